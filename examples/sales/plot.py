#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draw what the example sales has written with --samples.

  plot.py [--title TEXT] SAMPLES.csv IMAGE...
"""

import argparse
import csv
import statistics

import matplotlib

matplotlib.use("Agg")
matplotlib.rcParams["svg.hashsalt"] = "orbit"
matplotlib.rcParams["svg.fonttype"] = "none"
from matplotlib import pyplot  # noqa: E402

COLORS = {"no query": "0.6", "lock": "tab:red", "snapshot": "tab:blue", "scan": "tab:green"}


def read(path):
    """{(way, what): [(at, value)]}"""
    found = {}
    with open(path, newline="", encoding="utf-8") as file:
        for row in csv.DictReader(file):
            found.setdefault((row["way"], row["what"]), []).append((float(row["at"]), float(row["value"])))
    return found


def draw(data, title=""):
    ways = [way for way in COLORS if (way, "transactions") in data]
    figure, parts = pyplot.subplots(1, 4, figsize=(14, 3.6), constrained_layout=True)
    figure.suptitle(title, x=0.01, ha="left", fontsize=10)
    bars = (("transactions", "transactions a second", 1), ("p99", "p99 of a transaction, ms", 1000),
            ("query", "a query, ms (median)", 1000))
    for part, (what, heading, factor) in zip(parts, bars):
        shown = [way for way in ways if what != "query" or way != "no query"]
        part.bar(shown, [factor * statistics.median(value for _, value in data[way, what]) for way in shown],
                 color=[COLORS[way] for way in shown])
        part.set_title(heading)
    for way in ways:
        held = [(at, value) for at, value in data.get((way, "held"), []) if value >= 0]
        if held and way in ("snapshot", "scan"):
            parts[3].plot(*zip(*held), color=COLORS[way], label=way)
            parts[3].legend()
    parts[3].set(title="pages held, % of the table", xlabel="seconds", ylim=(0, None))
    for part in parts:
        part.spines[["top", "right"]].set_visible(False)
    return figure


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("samples")
    parser.add_argument("images", nargs="+")
    parser.add_argument("--title", default="")
    options = parser.parse_args()
    figure = draw(read(options.samples), options.title)
    for image in options.images:
        # Without the date the same samples give the same file.
        figure.savefig(image, dpi=120, metadata={"Date": None} if image.endswith(".svg") else {"Software": None})


if __name__ == "__main__":
    main()
