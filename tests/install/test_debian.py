# SPDX-License-Identifier: MIT
"""The Debian packages build, hold what they should, and agree with the library."""

import os
import re
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
VERSION = re.search(r"^VERSION := (\S+)", (ROOT / "liborbit/Makefile").read_text(), re.M)[1]


def output(*command):
    return subprocess.run([str(word) for word in command], text=True, check=True,
                          stdin=subprocess.DEVNULL, stdout=subprocess.PIPE).stdout


class Debian(unittest.TestCase):
    def test_versions_agree(self):
        self.assertRegex((ROOT / "debian/changelog").read_text(), rf"^orbit \({re.escape(VERSION)}\) ")
        self.assertIn(f"\n## {VERSION}", (ROOT / "CHANGELOG.md").read_text())

    def test_symbols_agree(self):
        for package, version_map, node in (
                ("liborbit0", "liborbit.map", "LIBORBIT_0.1"),
                ("liborbit-compat0", "compat/liborbit-compat.map", "LIBORBIT_COMPAT_0.1")):
            with self.subTest(package=package):
                exported = set(re.findall(r"^\t(orbit_\w+);",
                                          (ROOT / "liborbit" / version_map).read_text(), re.M))
                listed = re.findall(rf"^ ([\w.]+)@{re.escape(node)} (\S+)$",
                                    (ROOT / f"debian/{package}.symbols").read_text(), re.M)
                self.assertGreater(len(exported), 30)
                self.assertEqual({name for name, _ in listed}, exported | {node})

    def test_packages(self):
        with tempfile.TemporaryDirectory(prefix="orbit-deb-") as work:
            done = subprocess.run(["make", "-s", "-C", ROOT, "deb", f"BUILD={work}"], text=True,
                                  stdin=subprocess.DEVNULL, stdout=subprocess.PIPE,
                                  stderr=subprocess.STDOUT)
            self.assertEqual(done.returncode, 0, done.stdout)
            self.assertNotIn("warning", (Path(work) / "deb/log").read_text())
            packages = {deb.name.split("_")[0]: deb for deb in (Path(work) / "deb").glob("*.deb")}
            self.assertLessEqual({"liborbit0", "liborbit-dev", "liborbit-compat0", "orbitctl"},
                                 packages.keys())
            self.assertEqual(output("dpkg-deb", "-f", packages["liborbit-dev"], "Depends").split(", ")[:2],
                             [f"liborbit0 (= {VERSION})", f"liborbit-compat0 (= {VERSION})"])
            # The C library and nothing else.
            self.assertRegex(output("dpkg-deb", "-f", packages["liborbit0"], "Depends"),
                             r"^libc6 \(>= [\d.]+\)\n$")

            where = output("gcc", "-print-multiarch").strip()
            system = Path(work) / "system"
            for package in ("liborbit0", "liborbit-dev", "liborbit-compat0", "orbitctl"):
                output("dpkg-deb", "-x", packages[package], system)
            found = {str(path.relative_to(system)) for path in system.rglob("*") if not path.is_dir()}
            for directory, inside, suffix in (("include/orbit", "usr/include/orbit", ""),
                                              *(("liborbit/man", f"usr/share/man/man{n}", ".gz")
                                                for n in (1, 2, 3, 7))):
                for path in (ROOT / directory).iterdir():
                    if not suffix or inside.endswith(path.suffix[1:]):
                        self.assertIn(f"{inside}/{path.name}{suffix}", found)

            environment = {**os.environ, "PKG_CONFIG_PATH": f"{system}/usr/lib/{where}/pkgconfig",
                           "PKG_CONFIG_SYSROOT_DIR": str(system),
                           # Debian's are system directories, which pkg-config leaves out.
                           "PKG_CONFIG_ALLOW_SYSTEM_CFLAGS": "1", "PKG_CONFIG_ALLOW_SYSTEM_LIBS": "1"}
            flags = subprocess.run(["pkg-config", "--cflags", "--libs", "orbit"], text=True, check=True,
                                   stdout=subprocess.PIPE, env=environment).stdout.split()
            program = Path(work) / "consumer"
            output("gcc", "-std=c11", "-Wall", "-Werror", "-o", program,
                   Path(__file__).parent / "consumer/consumer.c", *flags)
            ran = subprocess.run([program], text=True, stdout=subprocess.PIPE, check=True,
                                 env={**os.environ, "LD_LIBRARY_PATH": f"{system}/usr/lib/{where}"})
            self.assertRegex(ran.stdout, r"^-?\d+ \w.*\.\n$")


if __name__ == "__main__":
    unittest.main()
