# SPDX-License-Identifier: MIT
"""Of MariaDB the newest version is taken whose source and packages can both be had; what does not match is refused.

Also when the archive has moved on, or is between two versions.  MySQL's source is from another suite, or from where one says.
"""

import importlib.machinery
import importlib.util
import os
import re
import subprocess
import shutil
import sys
import tarfile
import tempfile
import unittest
from pathlib import Path

BUILD = Path(__file__).resolve().parents[2] / "examples/mysql-deadlock/build"
# The archive of a test is two lists of versions, and a list of those that are told of and are not there.
APT_GET = """#!/bin/sh
case " $* " in
*" indextargets "*) echo 'Debian|http://localhost/debian/|bookworm|main' ;;
*" update "*) {update} ;;
*" --download-only source "*|*" download "*)
    for word in {gone}; do
        case " $* " in *" $word "*) echo "E: Failed to fetch it  404 Not Found"; exit 100 ;; esac
    done
    case " $* " in *" source "*) what=source ;; *) what=packages ;; esac
    echo "$*" >"$what"
    {room} ;;
esac
"""
APT_CACHE = """#!/bin/sh
case " $* " in
*" showsrc "*) for version in {sources}; do printf 'Package: mariadb\\nVersion: %s\\n\\n' $version; done ;;
*" show "*) for version in {packages}; do printf 'Package: any\\nVersion: %s\\n\\n' $version; done ;;
esac
"""
OLD, NEW, NEXT = "1:10.11.9-0+deb12u1", "1:10.11.18-0+deb12u1", "1:10.11.20-0+deb12u1"


class Source(unittest.TestCase):
    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = Path(work.name)
        self.cache = self.work / "cache"

    def run_build(self, sources=(), packages=(), gone=(), update=":", room=":"):
        """Let it fetch from an archive that has this; gone: what it tells of and does not have."""
        programs = self.work / "bin"
        programs.mkdir(exist_ok=True)
        for name, text in (("apt-get", APT_GET.format(update=update, gone=" ".join(gone), room=room)),
                           ("apt-cache", APT_CACHE.format(sources=" ".join(sources), packages=" ".join(packages)))):
            (programs / name).write_text(text)
            (programs / name).chmod(0o755)
        return subprocess.run([sys.executable, BUILD, "source"], text=True, capture_output=True, timeout=60,
                              env={**os.environ, "ORBIT_CACHE": str(self.cache), "LC_ALL": "C.UTF-8",
                                   "PATH": f"{programs}:{os.environ['PATH']}"})

    def taken(self, **archive):
        """The version that it takes, and what it says about others."""
        done = self.run_build(**archive)
        self.assertEqual(done.returncode, 0, done.stderr)
        where = Path(done.stdout.strip())
        version = (where / "version").read_text()
        # Of both there is this version and no other.
        self.assertIn(f"mariadb={version}", (where / "source").read_text())
        self.assertIn(f"mariadb-server-core={version}", (where / "packages").read_text())
        return version, [line for line in done.stderr.splitlines() if "fetching" not in line]

    def refused(self, **archive):
        """The one line by which it fails; nothing is left that the next run could take for the source."""
        done = self.run_build(**archive)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertLessEqual({path.name for path in (self.cache / "mariadb").glob("*")}, {"lock", "fetch.log"})
        return done.stderr.splitlines()[-1]

    def test_the_newest_is_taken(self):
        self.assertEqual(self.taken(sources=(OLD, NEW), packages=(NEW, OLD)), (NEW, []))

    def test_packages_without_a_source_are_not(self):
        self.assertEqual(self.taken(sources=(OLD, NEW), packages=(OLD, NEW, NEXT)), (NEW, []))

    def test_nor_is_a_source_without_packages(self):
        self.assertEqual(self.taken(sources=(OLD, NEW, NEXT), packages=(OLD, NEW)), (NEW, []))

    def test_nor_one_that_the_archive_tells_of_and_does_not_have(self):
        for what in ("mariadb", "libmariadbd-dev"):
            with self.subTest(what):
                self.work = Path(tempfile.mkdtemp(dir=self.work))
                self.cache = self.work / "cache"
                version, said = self.taken(sources=(NEW, NEXT), packages=(NEW, NEXT), gone=(f"{what}={NEXT}",))
                self.assertEqual(version, NEW)
                self.assertEqual(said, [f"build: mariadb {NEXT} is listed and cannot be had whole: taking an older one"])

    def test_nor_another_series(self):
        self.assertEqual(self.taken(sources=(NEW, "1:11.8.3-1"), packages=(NEW, "1:11.8.3-1")), (NEW, []))

    def test_what_was_fetched_once_stays(self):
        self.taken(sources=(NEW,), packages=(NEW,))
        self.assertEqual(self.taken(sources=(NEXT,), packages=(NEXT,)), (NEW, []))

    def test_no_version_of_which_there_are_both(self):
        self.assertIn("do not have both source and packages of mariadb 10.11 in one version",
                      self.refused(sources=(NEW,), packages=(NEXT,)))

    def test_no_version_that_is_there(self):
        self.assertIn("404 Not Found", self.refused(sources=(NEW,), packages=(NEW,), gone=(f"mariadb={NEW}",)))

    def test_no_network(self):
        said = self.refused(update="echo 'E: Failed to fetch Packages  Connection refused'; exit 100")
        self.assertIn("is there a network?", said)
        self.assertIn("Connection refused", said)

    def test_no_room_on_the_disk(self):
        self.assertIn("make room, or set ORBIT_CACHE", self.refused(
            sources=(NEW,), packages=(NEW,), room="echo \"E: You don't have enough free space in .\"; exit 100"))


class MySQL(unittest.TestCase):
    """The source that it takes; nothing is compiled."""

    def setUp(self):
        work = tempfile.TemporaryDirectory()
        self.addCleanup(work.cleanup)
        self.work = Path(work.name)
        (self.work / "bin").mkdir()
        for name in ("g++", "cmake", "ninja", "bison", "pkg-config"):
            self.program(name, ":")
        self.program("patch", f'exec {shutil.which("patch")} "$@"')
        self.program("dpkg-source", "echo 'error: not unpacked here' >&2; exit 1")
        self.program("apt-cache", "printf 'Package: mysql-9.7\\nVersion: 9.7.2-4\\n\\n'")
        self.program("apt-get", f"""case " $* " in
*" indextargets "*)
    echo 'Debian|http://localhost/debian/|bookworm|main'
    echo 'Debian|http://localhost/debian/|bookworm-updates|main'
    echo 'Debian|http://localhost/security/|bookworm-security|main' ;;
*" update "*) for word; do case $word in Dir::Etc::SourceList=*) cp "${{word#*=}}" {self.work}/list ;; esac; done ;;
*" source "*) echo "$*" >mysql-9.7_9.7.2-4.dsc ;;
esac""")

    def program(self, name, text):
        (self.work / "bin" / name).write_text(f"#!/bin/sh\n{text}\n")
        (self.work / "bin" / name).chmod(0o755)

    def build(self, *arguments, **environment):
        return subprocess.run([sys.executable, BUILD.parent / "mysql/build", *arguments], text=True, capture_output=True, timeout=60,
                              env={**os.environ, "ORBIT_CACHE": str(self.work / "cache"), "LC_ALL": "C.UTF-8",
                                   "PATH": f"{self.work / 'bin'}:{os.environ['PATH']}", **environment})

    def apply(self, **environment):
        done = self.build("apply", **environment)
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        return done.stderr.splitlines()[-1]

    def tarball(self, release="1.0.3"):
        """Something of that release into which the patch does not go."""
        tree = self.work / "mysql"
        (tree / "storage/innobase").mkdir(parents=True)
        (tree / "storage/innobase/CMakeLists.txt").write_text("nothing that the patch knows\n")
        (tree / "MYSQL_VERSION").write_text("".join(f"MYSQL_VERSION_{part}={number}\n" for part, number in zip(
            ("MAJOR", "MINOR", "PATCH"), release.split("."))))
        name = self.work / f"mysql-{release}.tar.gz"
        with tarfile.open(name, "w:gz") as archive:
            archive.add(tree, "mysql")
        return str(name)

    def test_it_comes_from_another_suite_of_the_same_archive(self):
        self.assertIn("not unpacked here", self.apply())
        lines = (self.work / "list").read_text().splitlines()
        self.assertEqual([line.split()[-3:] for line in lines], [["http://localhost/debian/", "sid", "main"]])
        self.assertTrue(lines[0].startswith("deb-src "))
        self.assertIn("mysql-9.7=9.7.2-4", (self.work / "cache/mysql/source/mysql-9.7_9.7.2-4.dsc").read_text())

    def test_or_from_a_directory(self):
        self.assertIn("holds no mysql-9.7_", self.apply(MYSQL_SRC=str(self.work)))
        (self.work / "mysql-9.7_9.7.2-4.dsc").write_text("")
        self.assertIn("not unpacked here", self.apply(MYSQL_SRC=str(self.work)))
        self.assertFalse((self.work / "list").exists())

    def test_or_from_a_tarball_and_another_version_is_refused(self):
        self.assertRegex(self.apply(MYSQL_SRC=self.tarball()),
                         r"0001-.*\.patch does not apply: .*innobase.*for MySQL 9\.7\.\d+, and this is 1\.0\.3")
        self.assertFalse((self.work / "list").exists())

    def check_or_skip(self, **environment):
        return self.build("check", "--or-skip", "--library", "/dev/null", **environment)

    def test_where_there_is_no_source_for_the_patch_its_check_is_skipped(self):
        self.assertRegex(self.check_or_skip(MYSQL_SRC=self.tarball()).stdout, r"^1\.\.0 # SKIP .*does not apply.*this is 1\.0\.3")
        self.program("apt-get", "echo 'E: no network here'; exit 100")
        done = self.check_or_skip()
        self.assertEqual(done.returncode, 0)
        self.assertRegex(done.stdout, r"^1\.\.0 # SKIP .*no network here")

    def test_and_nothing_else_is(self):
        done = self.check_or_skip(MYSQL_SRC=self.tarball(re.search(r'RELEASE = "([\d.]+)"',
                                                                   (BUILD.parent / "mysql/build").read_text())[1]))
        self.assertEqual((done.returncode, done.stdout), (1, ""))
        self.assertIn("does not apply", done.stderr)


class Match(unittest.TestCase):
    """Source and packaged server."""

    CONFIG = "#define WITH_WSREP 1\n#define SIZEOF_LONG   8\n"

    def check(self, source="10.11.18", package="10.11.18", config=CONFIG):
        loader = importlib.machinery.SourceFileLoader("mysql_build", str(BUILD))
        module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
        written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
        loader.exec_module(module)
        sys.dont_write_bytecode = written
        with tempfile.TemporaryDirectory() as name:
            work = Path(name)
            (work / "VERSION").write_text("".join(f"MYSQL_VERSION_{part}={number}\n" for part, number in zip(
                ("MAJOR", "MINOR", "PATCH"), source.split("."))))
            (work / "mysql_version.h").write_text(f'#define MYSQL_SERVER_VERSION       "{package}-MariaDB"\n')
            (work / "my_config.h").write_text(config)
            module.check_version(work, work)

    def test_one_version(self):
        self.check()

    def test_another_version_is_refused(self):
        for package in ("10.11.19", "10.11.1", "10.1.18"):
            with self.subTest(package), self.assertRaises(SystemExit):
                self.check(package=package)

    def test_a_server_that_was_built_otherwise_is_refused(self):
        for config in ("#define SIZEOF_LONG 8\n", self.CONFIG.replace("8", "4"),
                       "/* #undef WITH_WSREP */\n#define SIZEOF_LONG 8\n"):
            with self.subTest(config), self.assertRaises(SystemExit):
                self.check(config=config)


if __name__ == "__main__":
    unittest.main()
