# SPDX-License-Identifier: MIT
"""A progress bar that tells how much time is left."""

import json
import sys
import time
from pathlib import Path

WIDTH = 30


class Progress:
    """Knows the steps that there are to be, and how long each took the last time."""

    def __init__(self, steps, memory=None, out=sys.stderr):
        self.out, self.memory = out, Path(memory) if memory else None
        self.left = list(steps)
        self.total = max(1, len(self.left))
        self.seconds = {}       # step -> the last time
        try:
            self.seconds = json.loads(self.memory.read_text())
        except (AttributeError, OSError, ValueError):
            pass
        self.begin = self.last = time.monotonic()
        self.live = out.isatty()
        self.printed = -1

    def step(self, name):
        """This one has been done."""
        now = time.monotonic()
        self.seconds[name] = now - self.last
        self.last = now
        if name in self.left:
            self.left.remove(name)
        self.show(name)

    def remaining(self):
        """Seconds; a step that is not known takes as long as those that are, on average."""
        known = self.seconds.values()
        usual = sum(known) / len(known) if known else 0
        return sum(self.seconds.get(name, usual) for name in self.left)

    def show(self, name):
        share = 1 - len(self.left) / self.total
        if self.live:
            bar = "#" * round(share * WIDTH)
            self.out.write(f"\r[{bar:<{WIDTH}}] {share:4.0%}, {clock(self.remaining())} left  "
                           f"{name[:40]:<40}")
        elif int(share * 10) > self.printed:
            self.printed = int(share * 10)
            self.out.write(f"{share:4.0%}, {clock(self.remaining())} left\n")
        self.out.flush()

    def end(self):
        if self.live:
            self.out.write(f"\r{'':<100}\r")
        self.out.write(f"measured for {clock(time.monotonic() - self.begin)}\n")
        if self.memory:
            self.memory.parent.mkdir(parents=True, exist_ok=True)
            self.memory.write_text(json.dumps(self.seconds, indent=1))


def clock(seconds):
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"
