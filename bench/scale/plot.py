# SPDX-License-Identifier: MIT
"""How do the costs grow?"""

from drawing import FORK, ORBIT, OTHER, THREAD, finish, from_zero, line, panels

SIZES = {"4K": 4, "64K": 64, "1M": 2**10, "16M": 2**14, "256M": 2**18, "1G": 2**20, "4G": 2**22}
COUNTS = (1, 10, 100, 1000)
DEPTHS = (1, 4, 16, 64, 256, 1000)
THREADS = (1, 2, 4, 8)


def draw(data):
    figure, (size, queue, threads, count, memory, empty) = panels(data, "How do the costs grow?", 3, 4.2,
                                                                  3.2, rows=2)
    empty.set_axis_off()
    found, values, _ = data.series("scale/pool={}/total", SIZES)
    size.plot([SIZES[key] for key in found], values, marker="o", color=ORBIT)
    size.set(xscale="log", title="Size of the pool", xticks=[SIZES[key] for key in found])
    size.set_xticklabels(found)
    size.minorticks_off()
    from_zero(size)
    finish(size, "size; one page changed", f"{data.unit}: write and call", False)

    line(count, data, "scale/orbits={}/call", COUNTS, "call and write", color=ORBIT)
    line(count, data, "scale/orbits={}/create", COUNTS, "create an orbit", color=THREAD)
    line(count, data, "scale/forks={}/create", COUNTS, "fork()", color=FORK)
    count.set(xscale="log", yscale="log", title="Number of orbits")
    finish(count, "orbits, or children", f"{data.unit}, for each")

    line(memory, data, "scale/orbits={}/memory each, KiB", COUNTS, "an idle orbit", color=ORBIT)
    line(memory, data, "scale/forks={}/memory each, KiB", COUNTS, "a forked child", color=FORK)
    memory.set(xscale="log", title="Memory of each")
    from_zero(memory)
    if not memory.lines:
        memory.text(0.5, 0.5, "only measured in a guest", ha="center", transform=memory.transAxes)
    finish(memory, "orbits, or children", "KiB, the kernel's included")

    line(queue, data, "scale/queue={}/call", DEPTHS, "calls (and writes)", color=ORBIT)
    line(queue, data, "scale/queue={}/wait", DEPTHS, "then the wait for all", color=OTHER)
    queue.set(xscale="log", title="Depth of the queue")
    from_zero(queue)
    finish(queue, "calls in flight", f"{data.unit}, for each call")

    line(threads, data, "scale/threads={}/one orbit", THREADS, "one orbit for all", color=ORBIT)
    line(threads, data, "scale/threads={}/an orbit each", THREADS, "an orbit each", color=THREAD)
    threads.set(title="Calling threads", xticks=THREADS)
    from_zero(threads)
    finish(threads, "threads", f"{data.unit}, for each call in all")
    return figure
