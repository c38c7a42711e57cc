# SPDX-License-Identifier: MIT
"""What does a call cost?"""

from drawing import FORK, ORBIT, OTHER, SHADES, THREAD, bars, finish, line, panels

PAGES = (1, 16, 256, 4096)


def draw(data):
    figure, (left, right) = panels(data, "What does a call cost?", 2, 5.2, 4.4)
    bars(left, data, [
        ("futex, two processes", "call/futex", OTHER),
        ("pipe, two processes", "call/pipe", OTHER),
        ("Unix socket, two processes", "call/socket", OTHER),
        ("condition variable, threads", "call/thread", THREAD),
        ("call without a pool", "call/sync/pool=none", ORBIT),
        ("call, nothing changed, 1 MiB", "call/sync/pool=1M/adjacent/pages=0/call", ORBIT),
        ("call, nothing changed, 1 GiB", "call/sync/pool=1G/adjacent/pages=0/call", ORBIT),
        ("call and write, 1 page of 1 GiB", "call/sync/pool=1G/adjacent/pages=1/total", ORBIT),
        ("vfork, wait; 16 MiB of heap", "call/vfork/heap=16M", FORK),
        ("spawn, wait; 16 MiB of heap", "call/spawn/heap=16M", FORK),
        ("fork, wait; 16 MiB of heap", "call/fork/heap=16M", FORK),
        ("fork, wait; 1 GiB of heap", "call/fork/heap=1G", FORK)])
    left.set_title("A round trip")
    for color, pool in zip(SHADES, ("1M", "16M", "256M", "1G")):
        line(right, data, f"call/sync/pool={pool}/adjacent/pages={{}}/total", PAGES, f"pool of {pool}iB",
             color=color)
    line(right, data, "call/sync/pool=1G/scattered/pages={}/total", PAGES[1:], "1GiB, scattered",
         color=SHADES[3], linestyle=":")
    line(right, data, "call/sync/pool=16M/adaptive/pages={}/total", PAGES, "16MiB, adaptive",
         color=THREAD)
    line(right, data, "call/fork_copies/pages={}/write", PAGES, "only the writes, after fork()",
         color=FORK, linestyle="--")
    right.set(xscale="log", yscale="log", title="Pages that changed: writes and call")
    finish(right, "pages changed before the call", data.unit)
    return figure
