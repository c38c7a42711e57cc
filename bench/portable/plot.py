# SPDX-License-Identifier: MIT
"""What does a call cost where processes carry orbits?"""

from drawing import FORK, ORBIT, OTHER, bars, finish, line, panels

SIZES = {"64M": 64, "256M": 256, "512M": 512, "1G": 1024}


def draw(data):
    figure, (left, right) = panels(data, "What does a call cost where processes carry orbits?", 2, 5.0, 3.8)
    for changed, label, color in (("same/pages=0", "nothing changed", OTHER),
                                  ("scattered/pages=16", "16 pages changed", ORBIT)):
        line(left, data, f"portable/pool={{}}/{changed}/call", SIZES, label, color=color)
    line(left, data, "portable/fork/heap={}", SIZES, "fork() and wait", color=FORK)
    left.set(yscale="log", title="Size of the pool, or heap")
    finish(left, "MiB", data.unit)
    bars(right, data, [
        ("16 pages, scattered", "portable/pool=256M/scattered/pages=16/call", ORBIT),
        ("16 pages, adjacent", "portable/pool=256M/adjacent/pages=16/call", ORBIT),
        ("100 runs of 5 pages", "portable/pool=256M/runs/pages=500/call", ORBIT),
        ("1024 pages, scattered", "portable/pool=256M/scattered/pages=1024/call", ORBIT),
        ("1024 pages, adjacent", "portable/pool=256M/adjacent/pages=1024/call", ORBIT),
        ("fork() and wait", "portable/fork/heap=256M", FORK)])
    right.set_title("What has changed of 256 MiB")
    return figure
