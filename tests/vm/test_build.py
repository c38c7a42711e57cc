# SPDX-License-Identifier: MIT
"""Tests of linux-patches/build on a tree of a few files: patches come and go without a trace,
and whatever is missing stops it with one clear line."""

import importlib.machinery
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path
from unittest import mock

PATCHES = Path(__file__).resolve().parents[2] / "linux-patches"

CHANGE = """\
--- a/mm/file.c
+++ b/mm/file.c
@@ -1,3 +1,3 @@
 one
-two
+{}
 three
"""
CREATE = """\
--- /dev/null
+++ b/mm/new.c
@@ -0,0 +1 @@
+new
"""


class Build(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = Path(work.name)
        self.here, self.source = self.work / "linux-patches", self.work / "source"
        self.here.mkdir()
        for file in ("build", "BASE", *(file.name for file in PATCHES.glob("*.config"))):
            shutil.copy2(PATCHES / file, self.here)
        (self.source / "mm").mkdir(parents=True)
        (self.source / "Kbuild").touch()
        (self.source / "mm/file.c").write_text("one\ntwo\nthree\n")

    def build(self, *words, **environment):
        return subprocess.run([sys.executable, self.here / "build", *words], text=True,
                              capture_output=True, timeout=60,
                              env={**os.environ, "ORBIT_CACHE": str(self.work / "cache"),
                                   "KERNEL_SRC": str(self.source), **environment})

    def series(self, **patches):
        for name, text in patches.items():
            (self.here / f"{name}.patch").write_text(text)
        (self.here / "series").write_text("# a comment\n" + "".join(
            f"{name}.patch\n" for name in patches))

    def apply(self):
        done = self.build("apply")
        self.assertEqual(done.returncode, 0, done.stderr)
        return Path(done.stdout.strip())

    def refusal(self, *words, **environment):
        """The one line with which it stops, after its lines about what it does."""
        done = self.build(*words, **environment)
        self.assertEqual(done.returncode, 1, done.stderr)
        lines = [line for line in done.stderr.splitlines()
                 if "unpacking" not in line and "applying" not in line]
        self.assertEqual(len(lines), 1, done.stderr)
        return lines[0]

    def test_patches_come_and_go(self):
        self.series(a=CHANGE.format("2"), b=CREATE)
        tree = self.apply()
        self.assertEqual((tree / "mm/file.c").read_text(), "one\n2\nthree\n")
        self.assertEqual((tree / "mm/new.c").read_text(), "new\n")
        self.series(a=CHANGE.format("zwei"))
        self.assertEqual(self.apply(), tree)
        self.assertEqual((tree / "mm/file.c").read_text(), "one\nzwei\nthree\n")
        self.assertFalse((tree / "mm/new.c").exists())
        self.series()
        self.apply()
        self.assertEqual((tree / "mm/file.c").read_text(), "one\ntwo\nthree\n")

    def test_what_stays_the_same_keeps_its_time(self):
        self.series(a=CHANGE.format("2"))
        file = self.apply() / "mm/file.c"
        os.utime(file, (1000, 1000))
        self.series(a=CHANGE.format("2"), b=CREATE)
        self.apply()
        self.assertEqual(file.stat().st_mtime, 1000)
        self.series(a=CHANGE.format("3"))
        self.apply()
        self.assertGreater(file.stat().st_mtime, 1000)

    def test_the_source_stays_as_it_is(self):
        self.series(a=CHANGE.format("2"), b=CREATE)
        self.apply()
        self.assertEqual((self.source / "mm/file.c").read_text(), "one\ntwo\nthree\n")
        self.assertFalse((self.source / "mm/new.c").exists())

    def test_unpatchable_names_patch_and_file(self):
        self.series(a=CREATE, b=CHANGE.format("2").replace("one", "uno").replace("two", "due"))
        line = self.refusal("apply")
        self.assertIn("b.patch", line)
        self.assertIn("mm/file.c", line)
        self.series(a=CREATE)       # and what it left is put right
        self.assertEqual((self.apply() / "mm/file.c").read_text(), "one\ntwo\nthree\n")

    def test_patch_of_a_missing_file(self):
        self.series(a=CHANGE.format("2").replace("mm/file.c", "mm/gone.c"))
        line = self.refusal("apply")
        self.assertIn("mm/gone.c is not in the source", line)

    def test_missing_patch(self):
        self.series(a=CREATE)
        (self.here / "a.patch").unlink()
        self.assertIn("a.patch", self.refusal("apply"))

    def test_missing_packages(self):
        self.assertIn("apt-get install", self.refusal("vm", PATH=str(self.work)))

    def test_missing_source(self):
        self.assertIn("does not exist", self.refusal("vm", KERNEL_SRC="/nonexistent"))
        self.assertIn("not a kernel tree", self.refusal("vm", KERNEL_SRC=str(self.here)))

    def test_no_disk_space(self):
        script = self.here / "build"
        script.write_text(script.read_text().replace("FREE_GIB = 4", "FREE_GIB = 10**9"))
        self.assertIn("GiB free", self.refusal("vm"))

    def test_damaged_tarball(self):
        tarball = self.work / "linux-6.12.tar.xz"
        tarball.write_bytes(b"not it")
        self.assertIn("sha256", self.refusal("vm", KERNEL_SRC=str(tarball)))

    def load(self):
        """The script as a module, for its functions."""
        loader = importlib.machinery.SourceFileLoader("build_script", str(self.here / "build"))
        with mock.patch.dict(os.environ, ORBIT_CACHE=str(self.work / "cache")), \
                mock.patch.object(sys, "dont_write_bytecode", True):
            module = importlib.util.module_from_spec(
                importlib.util.spec_from_loader(loader.name, loader))
            loader.exec_module(module)
        self.enterContext(mock.patch.object(module, "say"))
        return module

    def test_every_flavour_has_its_configuration(self):
        script = self.load()
        self.assertEqual(set(script.OBJECTS), set(script.FLAVOURS))
        for flavour, fragments in script.FLAVOURS.items():
            with self.subTest(flavour=flavour):
                for fragment in fragments:
                    self.assertTrue((self.here / fragment).exists(), fragment)
                asked = [script.parse_config(self.here / f).get("CONFIG_ORBIT") for f in fragments]
                with_orbits = flavour in ("vm", "debug", "kcsan", "distro")
                self.assertEqual("y" in asked, with_orbits)
                self.assertEqual("n" in asked, flavour == "off")

    def test_unpatched_stays_so(self):
        self.series(a=CHANGE.format("2"), b=CREATE)
        script, patched = self.load(), self.apply()
        plain = script.unpack(self.source, "0" * 64, "unpatched")
        script.apply(plain, script.series_of("unpatched"))
        self.assertNotEqual(plain, patched)
        self.assertEqual((plain / "mm/file.c").read_text(), "one\ntwo\nthree\n")
        self.assertFalse((plain / "mm/new.c").exists())
        # And it is no other kernel when the series changes.
        with mock.patch.object(script.subprocess, "run", return_value=mock.Mock(stdout=b"gcc 1")):
            before = {flavour: script.kernel_key(flavour, "0" * 64) for flavour in script.FLAVOURS}
            self.series(a=CHANGE.format("3"))
            for flavour, key in before.items():
                same = script.kernel_key(flavour, "0" * 64) == key
                self.assertEqual(same, flavour == "unpatched", flavour)

    def test_no_unpatched_one_of_a_tree(self):
        self.assertIn("unpatched", self.refusal("--tree", str(self.source), "unpatched"))

    def test_off_begins_with_the_objects_of_vm(self):
        script = self.load()
        objects = self.work / "cache/obj"
        (objects / "vm-1").mkdir(parents=True)
        (objects / "vm-1/a.o").write_text("object")
        os.utime(objects / "vm-1/a.o", (1000, 1000))
        script.begin_with("off", objects / "off-1")
        self.assertEqual((objects / "off-1/a.o").stat().st_mtime, 1000)
        (objects / "off-1/a.o").write_text("another")
        script.begin_with("off", objects / "off-1")     # only the first time
        self.assertEqual((objects / "off-1/a.o").read_text(), "another")
        self.assertEqual((objects / "vm-1/a.o").read_text(), "object")
        script.begin_with("off", objects / "off-2")     # nothing to begin with
        script.begin_with("debug", objects / "debug-1")
        self.assertEqual(list((objects / "off-2").iterdir()), [])
        self.assertEqual(list((objects / "debug-1").iterdir()), [])

    def test_unknown_words(self):
        self.assertIn("fast", self.refusal("build", "fast"))

    def test_not_built_yet(self):
        self.assertIn("not built", self.refusal("path", "vm"))


if __name__ == "__main__":
    unittest.main()
