# SPDX-License-Identifier: MIT
"""Which mode of snapshot costs least?"""

from drawing import FORK, ORBIT, THREAD, finish, panels, short

COLORS = {"cow": FORK, "copy": THREAD, "adaptive": ORBIT}
REGULAR = (1, 2, 3, 4, 8, 16, 64)
RANDOM = (2, 4, 10)
TICKS = (1e4, 2e4, 5e4, 1e5, 2e5, 5e5)


def draw(data):
    figure, both = panels(data, "Which mode costs least? 64 pages, all read by the task", 2, 5.0, 3.8)
    for axes, where in zip(both, ("adjacent", "scattered")):
        for mode, color in COLORS.items():
            found, values, _ = data.series(f"modes/{mode}/{where}/every={{}}/total", REGULAR)
            axes.plot([100 / n for n in found], values, marker="o", color=color, label=mode)
            found, values, _ = data.series(f"modes/{mode}/{where}/random={{}}/total", RANDOM)
            axes.plot([100 / n for n in found], values, marker="x", linestyle="", color=color,
                      label=f"{mode}, at random")
        axes.set(xscale="log", title=f"Pages that are {where}")
        axes.set_xticks([100 / n for n in REGULAR], [f"{100 / n:.3g}" for n in REGULAR], fontsize=8)
        axes.set_yscale("log")
        axes.set_yticks(TICKS, [short(tick) for tick in TICKS])
        axes.minorticks_off()
        finish(axes, "% of the pages change before a call", f"{data.unit}: writes and call")
    return figure
