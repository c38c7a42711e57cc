# SPDX-License-Identifier: MIT
"""The plots can be drawn from the results that are committed, and carry their context."""

import importlib.util
import sys
import tempfile
import unittest
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path[1:1] = [str(BENCH / "common"), str(BENCH / "apps"), str(BENCH)]
import plots  # noqa: E402
import results  # noqa: E402


@unittest.skipUnless(importlib.util.find_spec("matplotlib"), "this python3 has no matplotlib")
class Plots(unittest.TestCase):
    def test_of_the_committed_results(self):
        kept = sorted((BENCH / "results").glob("*.json"))
        self.assertTrue(kept)
        for path in kept:
            data = results.Data(results.load(path))
            for name in plots.plots_of(data):
                with self.subTest(f"{path.stem}: {name}"), tempfile.TemporaryDirectory() as work:
                    png, svg = plots.draw(data, name, Path(work))
                    self.assertGreater(png.stat().st_size, 5000)
                    text = svg.read_text()
                    self.assertIn(data.context["kernel"], text)
                    # One way, one unit: never both in a plot.
                    counted = "in an emulated guest" in text
                    self.assertEqual((counted, "time, median" in text),
                                     (data.unit == "instructions", data.unit == "ns"))


if __name__ == "__main__":
    unittest.main()
