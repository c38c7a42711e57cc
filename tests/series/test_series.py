# SPDX-License-Identifier: MIT
"""Tests of the kernel patches as patches: the series is whole, clean and stays in its own
corner of the kernel, and what the library has copied from it is the same there."""

import functools
import re
import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
PATCHES = ROOT / "linux-patches"

# All that the series may touch: nothing of core mm, fork, exit or scheduling (promise 11).
# Of futexes the one place that keeps orbits from main's (promise 1).
ALLOWED = re.compile(r"""
    kernel/orbit/.*
    | include/uapi/linux/orbit\.h
    | include/trace/events/orbit\.h
    | include/linux/orbit\.h
    | kernel/futex/core\.c
    | arch/x86/entry/syscalls/[^/]*
    | include/linux/syscalls\.h
    | init/Kconfig
    | kernel/Makefile
    | Documentation/.*
    | MAINTAINERS
    | tools/testing/selftests/(orbit/.*|Makefile)
    """, re.X)


def series():
    """The patches that the series names, in order."""
    words = [line.split("#")[0].split() for line in (PATCHES / "series").read_text().splitlines()]
    return [PATCHES / line[0] for line in words if line]


@functools.cache
def tree():
    """The kernel's source with the series applied, where the build keeps it."""
    done = subprocess.run([PATCHES / "build", "apply"], stdout=subprocess.PIPE, text=True,
                          stdin=subprocess.DEVNULL, check=True)
    return Path(done.stdout.strip())


def touched(patch):
    """The files that a patch names, on either side."""
    text = patch.read_text()
    names = re.findall(r"^(?:--- (?:a/)?|\+\+\+ (?:b/)?)(\S+)$", text, re.M)
    for pair in re.findall(r"^diff --git a/(\S+) b/(\S+)$", text, re.M):
        names += pair       # a rename, a mode or a binary file has no other line
    return set(names) - {"/dev/null"}


class Series(unittest.TestCase):
    def test_names_every_patch_once_and_in_order(self):
        there = sorted(file.name for file in PATCHES.glob("*.patch"))
        self.assertEqual([name for name in there if not name.startswith("0000-")],
                         [patch.name for patch in series()])

    def test_has_one_cover_letter(self):
        self.assertEqual(len(list(PATCHES.glob("0000-*.patch"))), 1)

    def test_counts_its_patches(self):
        count = len(series())
        for number, patch in enumerate(series(), 1):
            with self.subTest(patch=patch.name):
                self.assertRegex(patch.read_text(), rf"(?m)^Subject: \[PATCH 0*{number}/{count}\] ")

    def test_lesson_10_touches_only_what_it_may(self):
        for patch in series():
            with self.subTest(patch=patch.name):
                files = touched(patch)
                self.assertTrue(files)
                self.assertEqual([], sorted(f for f in files if not ALLOWED.fullmatch(f)))

    def test_every_new_file_has_maintainers(self):
        entry = re.search(r"^ORBIT \(.*?\n\n", (tree() / "MAINTAINERS").read_text(), re.M | re.S)[0]
        known = tuple(re.findall(r"^F:\t(\S+)$", entry, re.M))
        new = {name for patch in series()
               for name in re.findall(r"^--- /dev/null\n\+\+\+ b/(\S+)$", patch.read_text(), re.M)}
        self.assertTrue(new)
        self.assertEqual([], sorted(name for name in new if not name.startswith(known)))

    def test_each_line_of_a_message_is_short(self):
        for patch in series():
            text = re.sub(r"^\S+: .*\n( .*\n)*", "", patch.read_text(), flags=re.M)  # not the header
            message = text.split("\n---\n")[0].splitlines()[1:]
            self.assertTrue(message, patch.name)
            self.assertEqual([], [line for line in message
                                  if len(line) > 75 and not line.startswith("Signed-off-by: ")])

    def test_checkpatch_finds_nothing(self):
        for patch in series():
            with self.subTest(patch=patch.name):
                # Standard error may tell that spdxcheck lacks a Python module.
                done = subprocess.run(["perl", "scripts/checkpatch.pl", "--strict", "--color=never",
                                       # A condition to wait for is looked at again and again; and new
                                       # files have their maintainers from the first patch on, see above.
                                       # <linux/pgalloc.h> is younger than the first 6.12.
                                       "--ignore=MACRO_ARG_REUSE,FILE_PATH_CHANGES,INCLUDE_LINUX",
                                       patch], cwd=tree(), text=True, stdout=subprocess.PIPE,
                                      stderr=subprocess.PIPE, stdin=subprocess.DEVNULL)
                total = re.search(r"^total: 0 errors, 0 warnings, 0 checks, (\d+) lines checked$",
                                  done.stdout, re.M)
                self.assertTrue(total and int(total[1]) > 0, f"{done.stdout}\n{done.stderr}")
                self.assertEqual(done.returncode, 0, done.stderr)


class Copies(unittest.TestCase):
    def test_abi_header_is_the_kernels(self):
        kernels = tree() / "include/uapi/linux/orbit.h"
        self.assertEqual((ROOT / "include/orbit/abi.h").read_bytes(), kernels.read_bytes())

    def test_system_call_numbers_are_the_kernels(self):
        table = (tree() / "arch/x86/entry/syscalls/syscall_64.tbl").read_text()
        kernels = re.findall(r"^(\d+)\s+orbit\s+(orbit_\w+)\s+sys_\2$", table, re.M)
        header = (ROOT / "liborbit/kernel/syscall.h").read_text()
        library = re.findall(r"\bNR_(orbit_\w+) = (\d+)", header)
        self.assertTrue(kernels)
        self.assertEqual(sorted(kernels), sorted((number, name) for name, number in library))
        # The same for programs that are built where no kernel with orbits is configured.
        abi = re.findall(r"^#define __NR_(orbit_\w+) (\d+)$", (ROOT / "include/orbit/abi.h").read_text(), re.M)
        self.assertEqual(sorted(kernels), sorted((number, name) for name, number in abi))


if __name__ == "__main__":
    unittest.main()
