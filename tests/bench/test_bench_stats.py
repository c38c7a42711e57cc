# SPDX-License-Identifier: MIT
"""Tests of what bench/ says about samples."""

import random
import sys
import unittest
from pathlib import Path

sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "bench/common"))
import stats  # noqa: E402


class Percentiles(unittest.TestCase):
    def test_nearest_rank(self):
        values = list(range(1, 101))
        random.Random(1).shuffle(values)
        self.assertEqual(stats.percentile(values, 0.5), 50)
        self.assertEqual(stats.percentile(values, 0.99), 99)
        self.assertEqual(stats.percentile(values, 0.999), 100)
        self.assertEqual(stats.percentile(values, 1), 100)
        self.assertEqual(stats.percentile(values, 0), 1)

    def test_one_value_is_all_of_them(self):
        self.assertEqual([stats.percentile([7], share) for share in (0, 0.5, 0.999)], [7, 7, 7])

    def test_of_nothing(self):
        for function in (lambda: stats.percentile([], 0.5), lambda: stats.median([])):
            with self.assertRaises(ValueError):
                function()

    def test_median(self):
        self.assertEqual(stats.median([9, 1, 5]), 5)
        self.assertEqual(stats.median([9, 1, 5, 6]), 5.5)


class Intervals(unittest.TestCase):
    def test_the_same_each_time(self):
        values = [3, 1, 4, 1, 5, 9, 2, 6, 5]
        self.assertEqual(stats.interval(values), stats.interval(values))

    def test_holds_the_median_and_lies_in_the_values(self):
        values = [3, 1, 4, 1, 5, 9, 2, 6, 5]
        low, high = stats.interval(values)
        self.assertLessEqual(min(values), low)
        self.assertLessEqual(low, stats.median(values))
        self.assertLessEqual(stats.median(values), high)
        self.assertLessEqual(high, max(values))

    def test_no_spread_no_width(self):
        self.assertEqual(stats.interval([4] * 9), (4, 4))

    def test_covers_the_true_median_about_as_often_as_it_says(self):
        # The bootstrap is known to cover a little less with few values.
        rng, hits = random.Random(5), 0
        for _ in range(200):
            low, high = stats.interval([rng.gauss(10, 2) for _ in range(15)], resamples=200)
            hits += low <= 10 <= high
        self.assertGreaterEqual(hits, 170)
        self.assertLess(hits, 200)

    def test_more_repetitions_narrow_it(self):
        rng = random.Random(2)
        widths = []
        for count in (9, 200):
            low, high = stats.interval([rng.gauss(10, 2) for _ in range(count)])
            widths.append(high - low)
        self.assertLess(widths[1], widths[0] / 2)


class Summaries(unittest.TestCase):
    def test_repetitions_are_drawn_and_not_samples(self):
        # Each repetition agrees with itself and not with the others: the samples are many, and
        # still what is known is little.
        summary = stats.summarize([[10.0] * 1000, [20.0] * 1000, [30.0] * 1000])
        self.assertEqual((summary["low"], summary["median"], summary["high"]), (10, 20, 30))
        self.assertEqual((summary["samples"], summary["repetitions"]), (3000, 3))

    def test_the_tail_is_of_all_samples(self):
        summary = stats.summarize([[1.0] * 999 + [50.0], [1.0] * 998 + [60.0, 70.0]])
        self.assertEqual(summary["p50"], 1)
        self.assertEqual(summary["p99"], 1)
        self.assertEqual(summary["p99.9"], 50)
        self.assertEqual(summary["max"], 70)

    def test_ratio(self):
        self.assertEqual(stats.ratio([[30.0]] * 5, [[10.0]] * 5), {"median": 3, "low": 3, "high": 3})
        found = stats.ratio([[20.0], [30.0], [40.0]], [[10.0], [10.0], [20.0]])
        self.assertEqual(found["median"], 3)
        self.assertLess(found["low"], 3)
        self.assertGreater(found["high"], 3)


if __name__ == "__main__":
    unittest.main()
