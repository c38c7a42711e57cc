# SPDX-License-Identifier: MIT
"""Tests of tests/stress.py and of what all.py compares: the figures are read as the programs
print them, and what is missing is a failure."""

import sys
import tempfile
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import all as front  # noqa: E402
import stress  # noqa: E402

LINES = """\
stress: THIS KERNEL HAS NO updates: not tried
stress: seed 7: calls 100, orbit died 3, snapshots verified 40; seconds 20.1
fuzz: seed 8: calls 9, faults injected 2; seconds 3.0
stress: seed 8: calls 1, orbit died 2, snapshots verified 0; seconds 20.0
census: seed 7: rounds 220, killed after born 9, killed after in a call 4; slab 5892 to 5868 KiB, seconds 6.5
"""


class Figures(unittest.TestCase):
    def test_are_added(self):
        self.assertEqual(stress.figures(LINES), {
            "stress": {"calls": 101, "orbit died": 5, "snapshots verified": 40},
            "fuzz": {"calls": 9, "faults injected": 2},
            "census": {"rounds": 220, "killed after born": 9, "killed after in a call": 4}})
        total = stress.figures(LINES)
        stress.add(total, stress.figures(LINES))
        self.assertEqual(total["stress"]["calls"], 202)


class Machine:
    scale = 4


class Tests(unittest.TestCase):
    def test_the_time_is_all_used(self):
        tests = stress.long_tests(Path("build"), Machine(), 400, 100, 7)
        seconds = {"stress": 0, "fuzz": 0}
        seeds = []
        for test in tests[:-1]:
            seconds[test.name.split()[0]] += int(test.argv[test.argv.index("--seconds") + 1])
            seeds.append(test.argv[test.argv.index("--seed") + 1])
            self.assertIn("--require-all", test.argv)
        self.assertEqual(seconds, {"stress": 400, "fuzz": 400})
        self.assertEqual(len(seeds), len(set(seeds)))
        self.assertEqual(tests[-1].name, "census")


class Text(unittest.TestCase):
    def kernel(self, text):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        Path(work.name, "System.map").write_text(text)
        return Path(work.name)

    def compare(self, a, b):
        return stress.compare_text(self.kernel(a), self.kernel(b)).outcome

    def test_functions(self):
        ours = "ffffffff81000000 T _stext\nffffffff81000010 t one\nffffffff81000020 W two\n"
        self.assertEqual(self.compare(ours, ours), "pass")
        self.assertEqual(self.compare(ours + "ffffffff81c00000 D data\n", ours), "pass")
        self.assertEqual(self.compare(ours.replace("20 W", "30 W"), ours), "fail")
        self.assertEqual(self.compare(ours, ours + "ffffffff81000030 T three\n"), "fail")
        self.assertEqual(self.compare("", ""), "fail")


class Counted(unittest.TestCase):
    def outcomes(self, a, b):
        def cases(text):
            return [front.vm.Case("p11", "a test", "pass", text)]
        return {case.name: case.outcome for case in front.compare_counted(cases(a), cases(b))}

    def test_within_a_thousandth(self):
        self.assertEqual(self.outcomes("figure fork, exit 1000.0\nfigure map 2.0\n",
                                       "figure fork, exit 1000.9\nfigure map 2.1\n"),
                         {"fork, exit": "pass", "map": "fail"})

    def test_what_is_missing(self):
        self.assertEqual(self.outcomes("figure a 1.0\n", "figure b 1.0\n"), {"a": "fail", "b": "fail"})
        self.assertEqual(self.outcomes("", "nothing\n"), {"": "fail"})


if __name__ == "__main__":
    unittest.main()
