# SPDX-License-Identifier: MIT
"""What keeps PostgreSQL's source from being fetched stops its build with one clear line."""

import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "examples/postgres-autovacuum/build"
APT_GET = """#!/bin/sh
case " $* " in
*" indextargets "*) echo 'Debian|http://localhost/debian/|bookworm|main' ;;
*" update "*) {update} ;;
*" source "*) {source} ;;
esac
"""


class Source(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = Path(work.name)
        self.cache = self.work / "cache"

    def run_build(self, update="", source="", versions="", **environment):
        """Let an apt-get that does only this fetch the source."""
        programs = self.work / "bin"
        programs.mkdir()
        for name, text in (("apt-get", APT_GET.format(update=update or ":", source=source or ":")),
                           ("apt-cache", f"#!/bin/sh\nprintf '{versions}'\n")):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        return subprocess.run([sys.executable, BUILD, "source"], text=True, capture_output=True, timeout=60,
                              env={**os.environ, "ORBIT_CACHE": str(self.cache), "POSTGRES_SRC": "",
                                   "PATH": f"{programs}:{os.environ['PATH']}", **environment})

    def fetch(self, **how):
        """Fail at it; the last line, with all else checked."""
        done = self.run_build(**how)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        lines = [line for line in done.stderr.splitlines()
                 if line != "build: fetching the source of postgresql-15"]
        self.assertEqual(len(lines), 1, done.stderr)
        # Nothing is left that the next run could take for the source.
        left = {path.name for path in (self.cache / "postgres").glob("*")}
        self.assertLessEqual(left, {"lock", "fetch.log"})
        return lines[0]

    def test_no_network(self):
        said = self.fetch(update="echo 'E: Failed to fetch Packages  Connection refused'; echo 'E: Some index files "
                                 "failed'; exit 100")
        self.assertIn("is there a network? else set POSTGRES_SRC", said)
        self.assertIn("Failed to fetch Packages  Connection refused", said)

    def test_a_mirror_that_does_not_have_it(self):
        said = self.fetch(versions="Version: 15.1-1\\n", source="echo 'E: Failed to fetch it  404 Not Found'; exit 100")
        self.assertIn("404 Not Found", said)

    def test_an_older_version_is_told_of(self):
        done = self.run_build(versions="Version: 15.1-1\\nVersion: 15.20-1\\n", source="case \"$*\" in *=15.20-1) exit 100 ;; esac; "
                              "touch postgresql-15_15.1-1.dsc")
        self.assertEqual(done.returncode, 0, done.stderr)
        self.assertIn("the archive tells of postgresql-15 15.20-1 and does not have its source: taking an older one", done.stderr)

    def test_the_archive_has_no_such_package(self):
        self.assertIn("has no source of postgresql-15", self.fetch())

    def test_no_room_on_the_disk(self):
        said = self.fetch(versions="Version: 15.1-1\\n",
                          source="echo \"E: You don't have enough free space in .\"; exit 100")
        self.assertIn("make room, or set ORBIT_CACHE", said)

    def test_no_source_where_it_was_said_to_be(self):
        self.assertIn("holds no postgresql-15_*.dsc", self.fetch(POSTGRES_SRC=str(self.work)))


if __name__ == "__main__":
    unittest.main()
