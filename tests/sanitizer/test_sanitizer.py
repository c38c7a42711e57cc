# SPDX-License-Identifier: MIT
"""An application under a sanitizer, with a library that was not compiled for it."""
import os
import subprocess
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parent.parent
BUILD = Path(os.environ.get("ORBIT_TEST_BUILD", PROJECT / "build"))


class Sanitizer(unittest.TestCase):
    def test_address(self):
        with tempfile.TemporaryDirectory() as directory:
            program = Path(directory) / "application"
            subprocess.run([os.environ.get("CXX", "g++").split()[-1], "-std=c++20", "-O1", "-g",
                            "-fsanitize=address", f"-I{PROJECT / 'include'}", "-o", program,
                            HERE / "application.cc", BUILD / "liborbit/liborbit.a", "-pthread"], check=True)
            done = subprocess.run([program], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, timeout=120,
                                  stdin=subprocess.DEVNULL, env={**os.environ, "ORBIT_BACKEND": "portable"})
        self.assertEqual(done.returncode, 0, done.stdout)


if __name__ == "__main__":
    unittest.main()
