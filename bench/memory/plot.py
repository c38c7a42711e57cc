# SPDX-License-Identifier: MIT
"""What does a slow task hold while main keeps writing?"""

from drawing import FORK, ORBIT, OTHER, SHADES, THREAD, finish, panels

WRITTEN = (0, 1024, 2048, 4096, 8192, 16384, 32768)
LINES = {"orbit": ("orbit", ORBIT, "-"), "orbit, scan": ("orbit that scans", ORBIT, ":"),
         "orbit, copy": ("orbit, copy", SHADES[1], "--"),
         "orbit, adaptive": ("orbit, adaptive", THREAD, ":"), "fork": ("forked child", FORK, "-"),
         "portable": ("portable backend", OTHER, "-")}


def draw(data):
    figure, (during, rest) = panels(data, "What does a slow task hold?", 2, 5.0, 3.8, what="memory")
    for name, (label, color, style) in LINES.items():
        found, values, _ = data.series(f"memory/{name}/written={{}}, KiB", WRITTEN)
        during.plot([n / 1000 for n in found], [value / 1024 for value in values], marker="o",
                    color=color, linestyle=style, label=label)
    during.set(title="While main writes to 64 MiB at random")
    finish(during, "thousand writes, each to any of 16,384 pages", "MiB beyond those at the call")
    labels, before, after = [], [], []
    for name, (label, *_) in LINES.items():
        if f"memory/{name}/before, KiB" in data:
            labels.append(label)
            before.append(data[f"memory/{name}/before, KiB"] / 1024)
            after.append(data[f"memory/{name}/after, KiB"] / 1024)
    at = range(len(labels))
    rest.barh([n - 0.2 for n in at], before, 0.36, color=FORK, label="before the task")
    rest.barh([n + 0.2 for n in at], after, 0.36, color=ORBIT, label="more after the task")
    rest.set_yticks(at, labels)
    rest.invert_yaxis()
    rest.set(title="Before and after")
    finish(rest, "MiB beyond the 64 MiB", "")
    return figure
