# SPDX-License-Identifier: MIT
"""Compare counted figures with those of the baseline."""

import dataclasses
import json
import re
from pathlib import Path

BASELINE = Path(__file__).resolve().parents[1] / "baseline.json"
TOLERANCE = 0.02
# Two processes and a thread of main take turns there, as the scheduler likes, and it is about multiples.
PORTABLE_TOLERANCE = 0.1
# Memory is taken by whole slabs and by pages kept for each processor.
MEMORY_TOLERANCE = 0.05
SLACK = 10.0            # instructions, or KiB: of small figures that is less than a per cent
# Where several processes could go on at once, the scheduler chooses, and the least change of a
# program may let it choose otherwise: who runs first, and whether a page is still needed when main
# writes to it.  These are shown, and not held to the baseline.
SCHEDULED = re.compile(r"call/async/|call/queue/idle|scale/queue=|scale/orbits=\d+/(call|destroy)"
                       r"|scale/forks=\d+/destroy|domains/(ring/same core|create)/|apps/.*/(begin|latency (p99|max))")


@dataclasses.dataclass
class Difference:
    name: str
    wanted: float | None    # None: the baseline does not know it
    found: float | None     # None: it was not measured

    @property
    def ratio(self):
        return self.found / self.wanted if self.wanted and self.found is not None else None

    @property
    def verdict(self):
        """"same", "worse", "better", "missing", "new", or "free": it depends on the scheduler."""
        if self.found is None:
            return "missing"
        if self.wanted is None:
            return "new"
        tolerance = (MEMORY_TOLERANCE if is_memory(self.name) else
                     PORTABLE_TOLERANCE if self.name.startswith("portable/") else TOLERANCE)
        if abs(self.found - self.wanted) <= max(SLACK, tolerance * self.wanted):
            return "same"
        if SCHEDULED.search(self.name):
            return "free"
        return "worse" if self.found > self.wanted else "better"

    @property
    def passes(self):
        """What is better passes: but then the baseline should be brought up to date."""
        return self.verdict in ("same", "better", "free")

    def __str__(self):
        ratio = f" ({self.ratio - 1:+.1%})" if self.ratio else ""
        return (f"{self.verdict:8} {self.name}: wanted {text(self.wanted)}, "
                f"found {text(self.found)}{ratio}")


def text(number):
    return "nothing" if number is None else f"{number:,.1f}" if number < 100 else f"{number:,.0f}"


def is_memory(name):
    """Is this figure one of memory, rather than of instructions?"""
    return name.endswith(", KiB")


def read_figures(output):
    """The lines "figure NAME NUMBER" that a program prints."""
    return {name: float(number)
            for name, number in re.findall(r"^figure (.+) (-?\d+\.\d+)$", output, re.M)}


def load(path=BASELINE):
    return json.loads(Path(path).read_text())["figures"]


def compare(figures, baseline, all_of_it=True):
    """The differences of these figures from the baseline's, by name.

    all_of_it: whether what the baseline has beyond them is missing.
    """
    names = sorted({*figures, *baseline} if all_of_it else figures)
    return [Difference(name, baseline.get(name), figures.get(name)) for name in names]
