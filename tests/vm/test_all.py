# SPDX-License-Identifier: MIT
"""Tests of tests/all.py: a test that is not there is a failed test."""

import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
import all as front  # noqa: E402


class Missing(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.tests, self.build = Path(work.name, "tests"), Path(work.name, "build")
        self.kernel = Path(work.name, "kernel")
        for directory in (self.tests / "conformance", self.build / "tests/conformance",
                          self.tests / "compat", self.build / "tests/compat",
                          self.kernel / "selftests"):
            directory.mkdir(parents=True)
        self.addCleanup(mock.patch.stopall)
        mock.patch.object(front, "HERE", self.tests).start()

    def program(self, path):
        path.write_text("#!/bin/sh\n")
        path.chmod(0o755)

    def guest_tests(self):
        cases = []
        tests = front.guest_tests(cases, self.build, self.kernel)
        self.assertTrue(all(case.outcome == "fail" for case in cases))
        return [test.name for test in tests], [case.program for case in cases]

    def test_all_there(self):
        self.program(self.kernel / "selftests/call_test")
        self.program(self.build / "tests/conformance/p1")
        self.program(self.build / "tests/compat/calls")
        (self.tests / "conformance/p1.cc").touch()
        (self.tests / "compat/calls.c").touch()
        self.assertEqual(self.guest_tests(), (["call_test", "p1", "calls"], []))

    def test_none_there(self):
        self.assertEqual(self.guest_tests(), ([], [f"selftests in {self.kernel}",
                                                   "programs of tests/conformance",
                                                   "programs of tests/compat"]))
        (self.kernel / "selftests").rmdir()
        self.assertEqual(len(self.guest_tests()[1]), 3)

    def test_program_without_a_source_is_not_run(self):
        self.program(self.build / "tests/conformance/old")
        (self.tests / "conformance/p1.cc").touch()
        self.assertEqual(self.guest_tests()[0], ["p1"])

    def test_source_without_a_program_fails(self):
        (case,) = front.run_here("p1", [self.build / "tests/conformance/p1"])
        self.assertEqual(case.outcome, "fail")
        self.assertIn("No such file", case.output)

    def test_python_tests_that_are_none_fail(self):
        (self.tests / "test_nothing.py").write_text("import unittest\n")
        self.assertEqual([case.outcome for case in front.run_unittests(self.tests)], ["fail"])

    def test_python_tests_that_do_not_load_fail(self):
        (self.tests / "test_broken.py").write_text("import a_module_that_is_not_there\n")
        self.assertEqual([case.outcome for case in front.run_unittests(self.tests)], ["fail"])


if __name__ == "__main__":
    unittest.main()
