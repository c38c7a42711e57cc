#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A debugger on a main program: gdb sees one with ordinary children, and disturbs no orbit.

  check.py PROGRAM    debugged.cc, compiled; prints results as TAP

To be run on the patched kernel, where gdb is: in a guest with the host's root.
"""

import re
import subprocess
import sys

SECONDS = 600   # an emulated machine may be slow

COMMON = ["set confirm off", "set pagination off", "set debuginfod enabled off",
          "set print thread-events off", "set breakpoint pending off"]

# Each: what is tried, the commands, what must be there in this order, what must not.
SESSIONS = [
    ("main runs to its end",
     ["run"],
     [r"main: as ever", r"exited normally"], r"received signal"),
    ("a breakpoint in the task's code, set before the orbit is made, does not stop the orbit",
     ["break task_body", "run"],
     [r"Breakpoint 1 at", r"main: as ever", r"exited normally"], r"received signal|Breakpoint 1,"),
    ("nor does one that is set afterwards",
     ["break orbit_is_made", "run", "break task_body", "continue"],
     [r"Breakpoint 1, ", r"Breakpoint 2 at", r"main: as ever", r"exited normally"],
     r"received signal|Breakpoint 2,"),
    ("calls can be stepped over, and main's threads and stack be seen",
     ["break orbit_is_made", "run", "info threads", "finish", "break call_has_returned", "continue",
      "print seen.by_main", "up", "next", "delete", "continue"],
     [r"Breakpoint 1, ", r"Thread ", r"main \(\)", r"Breakpoint 2, ", r"= 42\b", r"main: as ever",
      r"exited normally"], r"received signal"),
    ("what the debugger writes to a pool is in the next snapshot",
     ["break orbit_is_made", "run", "finish", "set var data->written_by_debugger = 7",
      "break call_has_returned", "continue", "print seen.by_debugger", "up",
      "set var data->written_by_debugger = 8", "continue", "print seen.by_debugger", "delete",
      "continue"],
     [r"Breakpoint 2, ", r"= 7\b", r"Breakpoint 2, ", r"= 8\b", r"main: as ever",
      r"exited normally"], r"received signal"),
    ("a watchpoint on a pool tells of main's writes, and of no orbit's",
     ["break orbit_is_made", "run", "finish", "watch -l data->written_by_main", "continue", "continue",
      "continue", "delete", "continue"],
     [r"Old value = 41", r"New value = 42", r"Old value = 42", r"New value = 43",
      r"Old value = 43", r"New value = 44", r"main: as ever", r"exited normally"],
     r"received signal|New value = -1"),
    ("the debugger may follow the orbit, and sees it crash",
     ["set detach-on-fork off", "set schedule-multiple on", "run"],
     [r"\[New inferior 2", r'"orbit:debugged" received signal SIGILL'], r"internal-error|exited"),
    ("it may let go of main, which goes on by itself",
     ["break orbit_is_made", "run", "detach"],
     [r"Breakpoint 1, ", r"[Dd]etach"], r"received signal"),
]


def run_session(program, commands):
    """What gdb and the program print."""
    argv = ["gdb", "-nx", "-batch"]
    for command in COMMON + commands:
        argv += ["-ex", command]
    try:
        done = subprocess.run([*argv, program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, timeout=SECONDS)
        return done.stdout.decode(errors="replace")
    except subprocess.TimeoutExpired as late:
        return (late.stdout or b"").decode(errors="replace") + "\n(timed out)"


def judge(text, wanted, unwanted):
    """What is wrong with it, or nothing."""
    at = 0
    for pattern in wanted:
        found = re.search(pattern, text[at:])
        if not found:
            return f"there is no {pattern!r} after {at} characters"
        at += found.end()
    if "(timed out)" in text:
        return "it did not end"
    found = re.search(unwanted, text)
    return f"there is {found[0]!r}" if found else ""


def main():
    print("TAP version 13")
    print(f"1..{len(SESSIONS)}", flush=True)
    failed = 0
    for number, (what, commands, wanted, unwanted) in enumerate(SESSIONS, 1):
        text = run_session(sys.argv[1], commands)
        wrong = judge(text, wanted, unwanted)
        failed += bool(wrong)
        if wrong:
            for line in [wrong, *text.splitlines()]:
                print(f"# {line}")
        print(f"{'not ok' if wrong else 'ok'} {number} {what}", flush=True)
    return failed > 0


if __name__ == "__main__":
    sys.exit(main())
