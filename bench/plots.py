#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Draw the plots of results, each as PNG and SVG.

  plots.py --out DIR RESULTS.json [QUESTION...]

bench/run.py does that at its end.  Results of the two ways are never drawn together.
"""

import argparse
import importlib.util
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "common"), str(HERE / "apps")]
import results  # noqa: E402


def question(name):
    """The module bench/NAME/plot.py."""
    spec = importlib.util.spec_from_file_location(f"plot_{name}", HERE / name / "plot.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def plots_of(data):
    """The questions that these results answer. (Figures of another processor have a prefix.)"""
    return [path.parent.name for path in sorted(HERE.glob("*/plot.py"))
            if any(name.startswith(path.parent.name + "/") for name in data.values)]


def draw(data, name, directory):
    """Write NAME-WAY.png and .svg; returns their paths."""
    figure = question(name).draw(data)
    paths = [directory / f"{name}-{data.context['way']}.{kind}" for kind in ("png", "svg")]
    directory.mkdir(parents=True, exist_ok=True)
    for path in paths:
        # Without the date the same results give the same file.
        figure.savefig(path, metadata={"Date": None} if path.suffix == ".svg" else {"Software": None})
    return paths


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("questions", nargs="*")
    options = parser.parse_args()
    data = results.Data(results.load(options.results))
    asked = options.questions or plots_of(data)
    for name in asked:
        for path in draw(data, name, options.out):
            print(path)


if __name__ == "__main__":
    main()
