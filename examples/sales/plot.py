#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draw what the example sales has written with --samples.

  plot.py SAMPLES.csv IMAGE
"""

import csv
import statistics
import sys

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402

COLORS = {"no query": "0.6", "lock": "tab:red", "snapshot": "tab:blue", "scan": "tab:green"}


def read(path):
    """{(way, what): [(at, value)]}"""
    found = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["way"], row["what"]), []).append((float(row["at"]), float(row["value"])))
    return found


def draw(data):
    ways = [way for way in COLORS if (way, "transactions") in data]
    figure, parts = pyplot.subplots(1, 4, figsize=(14, 3.6), constrained_layout=True)
    bars = (("transactions", "transactions a second", 1), ("p99", "p99 of a transaction, ms", 1000),
            ("query", "a query, ms (median)", 1000))
    for part, (what, title, factor) in zip(parts, bars):
        shown = [way for way in ways if what != "query" or way != "no query"]
        part.bar(shown, [factor * statistics.median(value for _, value in data[way, what]) for way in shown],
                 color=[COLORS[way] for way in shown])
        part.set_title(title)
    for way in ways:
        held = [(at, value) for at, value in data.get((way, "held"), []) if value >= 0]
        if held and way in ("snapshot", "scan"):
            parts[3].plot(*zip(*held), color=COLORS[way], label=way)
            parts[3].legend()
    parts[3].set(title="pages held, % of the table", xlabel="seconds", ylim=(0, None))
    return figure


def main():
    if len(sys.argv) != 3:
        sys.exit(__doc__)
    draw(read(sys.argv[1])).savefig(sys.argv[2], dpi=120)


if __name__ == "__main__":
    main()
