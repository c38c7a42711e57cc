# SPDX-License-Identifier: MIT
"""What does a snapshot do to main's next writes?"""

from drawing import FORK, ORBIT, OTHER, THREAD, bars, finish, from_zero, line, panels

THREADS = (1, 2, 4)


def draw(data):
    figure, (left, right) = panels(data, "What does a snapshot do to the next writes?", 2, 5.0, 3.8)
    bars(left, data, [
        ("after a call", "fault/snapshot", ORBIT),
        ("while the task runs", "fault/snapshot/task runs", ORBIT),
        ("while the task runs, scanned", "fault/snapshot/scanned", ORBIT),
        ("after a call that copied", "fault/snapshot/copy", ORBIT),
        ("after fork(), child lives", "fault/fork", FORK),
        ("after fork(), child has ended", "fault/fork/child gone", FORK),
        ("private mapping of a file", "fault/private", OTHER),
        ("memory never touched", "fault/fresh", OTHER),
        ("nothing to do", "fault/plain", OTHER)])
    left.set_title("First write to a page")
    line(right, data, "fault/snapshot/threads={}", THREADS, "after a call", color=ORBIT)
    line(right, data, "fault/fork/threads={}", THREADS, "after fork()", color=FORK)
    line(right, data, "fault/private/threads={}", THREADS, "private mapping", color=THREAD)
    right.set(title="Threads that write at once", xticks=THREADS)
    from_zero(right)
    finish(right, "threads, each with pages of its own", f"{data.unit}, for each page in all")
    return figure
