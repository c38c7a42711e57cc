# SPDX-License-Identifier: MIT
"""Tests of tests/distro.py: what is skipped without being expected to has failed."""

import sys
import tempfile
import unittest
import unittest.mock
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import distro  # noqa: E402
import run as vm  # noqa: E402


class Skipped(unittest.TestCase):
    def outcome(self, program, outcome, why=""):
        return distro.judge_skipped([vm.Case(f"distro: {program}", "a", outcome, why)])[0].outcome

    def test_fails(self):
        self.assertEqual(self.outcome("p3_moved_memory", "skip", "there is one node"), "fail")
        self.assertEqual(self.outcome("edges_test", "skip", "no loop device"), "fail")

    def test_unless_it_is_expected(self):
        for program, why in distro.MAY_SKIP:
            self.assertEqual(self.outcome(program or "p10_access", "skip", f"# SKIP {why}."), "skip")
            self.assertEqual(self.outcome(program or "p10_access", "fail", why), "fail")
        self.assertEqual(self.outcome("memory_test", "pass"), "pass")


class Features(unittest.TestCase):
    def test_a_result_for_each(self):
        script = distro.features().argv[2]
        names = distro.FEATURES.strip().splitlines()
        self.assertTrue(script.startswith(f"echo 1..{len(names)};"))
        self.assertEqual(script.count("|| echo 'not ok "), len(names))


class Modules(unittest.TestCase):
    def test_what_one_needs_comes_before_it(self):
        with tempfile.TemporaryDirectory() as work, unittest.mock.patch.object(distro, "MODULES", ["b_one", "built_in"]):
            for name, needed in (("b-one", "z,a"), ("z", ""), ("a", "z"), ("other", "b-one")):
                Path(work, f"{name}.ko").write_bytes(f"x\0depends={needed}\0y".encode())
            self.assertEqual(list(distro.modules(Path(work))), ["z", "a", "b_one"])


if __name__ == "__main__":
    unittest.main()
