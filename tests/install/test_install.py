# SPDX-License-Identifier: MIT
"""What `make install` puts in place can be used from there: by C programs with pkg-config, and
by C++ programs with CMake, wherever DESTDIR is."""

import os
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
CONSUMER = Path(__file__).resolve().parent / "consumer"
BUILD = Path(os.environ.get("ORBIT_TEST_BUILD", ROOT / "build")).resolve() / "liborbit"
IDL = ROOT / "isolation/idl"
MAKEFILE = (ROOT / "liborbit/Makefile").read_text()
VERSION = re.search(r"^VERSION := (\S+)", MAKEFILE, re.M)[1]


def run(command, **environment):
    done = subprocess.run([str(word) for word in command], text=True, stdin=subprocess.DEVNULL,
                          stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                          env={**os.environ, **environment})
    return done.returncode, done.stdout


class Installed(unittest.TestCase):
    def setUp(self):
        self.work = Path(tempfile.mkdtemp(prefix="orbit-install-"))
        self.addCleanup(shutil.rmtree, self.work)

    def run_ok(self, command, **environment):
        status, text = run(command, **environment)
        self.assertEqual(status, 0, text)
        return text

    def install(self, libdir="/usr/local/lib", prefix="/usr/local"):
        destination = self.work / "destination"
        self.run_ok(["make", "-s", "-C", ROOT / "liborbit", "install", f"BUILD={BUILD}",
                     f"DESTDIR={destination}", f"PREFIX={prefix}", f"LIBDIR={libdir}"])
        return destination

    def test_what_is_installed(self):
        destination = self.install()
        found = {str(path.relative_to(destination)) for path in destination.rglob("*")
                 if not path.is_dir()}
        headers = {f"usr/local/include/orbit/{path.name}"
                   for path in (ROOT / "include/orbit").iterdir()}
        headers |= {"usr/local/include/orbit-compat.h", "usr/local/include/orbit-compat/orbit.h"}
        pages = {f"usr/local/share/man/man{path.suffix[1:]}/{path.name}"
                 for path in (ROOT / "liborbit/man").iterdir()}
        # By every function's name; tests/series/test_man.py looks into them.
        pages |= {f"usr/local/share/man/man3/{name}.3" for name in
                  re.findall(r"\t(orbit_\w+);", (ROOT / "liborbit/liborbit.map").read_text())}
        self.assertGreater(len(headers), 3)
        self.assertGreater(len(pages), 8)
        idl = {f"usr/local/share/orbit/idl/{path.relative_to(IDL)}" for directory in ("orbit_idl", "light")
               for path in (IDL / directory).rglob("*") if path.is_file() and path.suffix != ".pyc"}
        self.assertGreater(len(idl), 15)
        idl |= {"usr/local/share/orbit/idl/orbit-idl.mk", "usr/local/lib/cmake/orbit/orbit-idl.cmake",
                "usr/local/bin/orbit-idl"}
        self.assertEqual(found, headers | pages | idl | {"usr/local/bin/orbitctl"} | {
            "usr/local/lib/" + name for name in
            ("liborbit.a", "liborbit.so", "liborbit.so.0", f"liborbit.so.{VERSION}",
             "liborbit-isolation.a", "liborbit-compat.a", "liborbit-compat.so", "liborbit-compat.so.0",
             f"liborbit-compat.so.{VERSION}", "pkgconfig/orbit-compat.pc",
             "pkgconfig/orbit.pc", "cmake/orbit/orbitConfig.cmake",
             "cmake/orbit/orbitConfigVersion.cmake")})
        for path in destination.rglob("*"):
            if path.suffix in (".pc", ".cmake"):
                self.assertNotRegex(path.read_text(), r"@\w+@", path.name)

    def test_c_with_pkg_config(self):
        destination = self.install()
        for libraries, linked in (["--libs"], True), (["--libs", "--static"], False):
            flags = self.run_ok(["pkg-config", "--cflags", *libraries, "orbit"],
                                PKG_CONFIG_PATH=f"{destination}/usr/local/lib/pkgconfig",
                                PKG_CONFIG_SYSROOT_DIR=str(destination)).split()
            if not linked:
                flags = [f"-l:{flag[2:]}" if flag == "-lliborbit.a" else flag for flag in flags]
                flags = ["-l:liborbit.a" if flag == "-lorbit" else flag for flag in flags]
            program = self.work / f"consumer{linked}"
            # No C++: the library must not need its runtime.
            self.run_ok(["gcc", "-std=c11", "-Wall", "-Wextra", "-Werror", "-pedantic", "-o", program,
                         CONSUMER / "consumer.c", *flags])
            _, needed = run(["objdump", "-p", program])
            self.assertEqual("liborbit.so.0" in needed, linked)
            self.assertNotIn("libstdc++", needed)
            self.assertRegex(self.run_ok([program], LD_LIBRARY_PATH=f"{destination}/usr/local/lib"),
                             r"^-?\d+ \w.*\.\n$")
        version = self.run_ok(["pkg-config", "--modversion", "orbit"],
                              PKG_CONFIG_PATH=f"{destination}/usr/local/lib/pkgconfig")
        self.assertEqual(version.strip(), VERSION)

    def test_make_install_installs_and_nothing_else(self):
        """No packages of the system, no tests, no benchmarks: from a script that must not."""
        text = self.run_ok(["make", "-n", "-C", ROOT, "install", f"BUILD={BUILD.parent}",
                            f"DESTDIR={self.work}/destination"])
        text = text.replace(str(ROOT), "ROOT")
        self.assertTrue("install -m 644 ROOT/build/liborbit/liborbit.a" in text or
                        f"install -m 644 {BUILD}/liborbit.a" in text)
        self.assertIsNone(re.search(r"install-packages|apt-get|tests/|bench/|linux-patches", text))
        self.assertFalse((self.work / "destination").exists())

    def test_what_headers_need_is_named(self):
        """Where it is missing, by the compiler; and by pkg-config, which cannot look for it."""
        told = self.run_ok(["pkg-config", "--list-all"],
                           PKG_CONFIG_LIBDIR=f"{self.install()}/usr/local/lib/pkgconfig")
        for header, needed, package in (("orbit.hpp", "tl/expected.hpp", "libexpected-dev"),
                                        ("memory.hpp", "Boost.Interprocess", "libboost-dev")):
            source = self.work / "program.cc"
            source.write_text(f"#include <orbit/{header}>\n")
            status, text = run(["g++", "-std=c++20", "-nostdinc", "-nostdinc++", "-fsyntax-only",
                                "-I", ROOT / "include", source])
            self.assertNotEqual(status, 0)
            first = text.split("error: ")[1].splitlines()[0]
            for text in first, told:
                self.assertIn(needed, text)
                self.assertIn(package, text)

    def cmake(self, destination, prefix, wanted):
        return run(["cmake", "-S", CONSUMER, "-B", self.work / "cmake", f"-DWANTED={wanted}",
                    f"-DCMAKE_PREFIX_PATH={destination}{prefix}",
                    f"-DCMAKE_LIBRARY_ARCHITECTURE={self.architecture()}"])

    @staticmethod
    def architecture():
        return run(["gcc", "-print-multiarch"])[1].strip()

    def test_cpp_with_cmake(self):
        # The second is where Debian has libraries.
        for prefix, libdir in (("/usr/local", "/usr/local/lib"),
                               ("/usr", f"/usr/lib/{self.architecture()}")):
            with self.subTest(libdir=libdir):
                destination = self.install(libdir, prefix)
                shutil.rmtree(self.work / "cmake", ignore_errors=True)
                status, text = self.cmake(destination, prefix, ".".join(VERSION.split(".")[:2]))
                self.assertEqual(status, 0, text)
                self.run_ok(["cmake", "--build", self.work / "cmake"])
                for kind, linked in ("orbit", True), ("static", False):
                    program = self.work / "cmake" / f"consumer-{kind}"
                    # CMake has left the way to the library in it.
                    self.assertRegex(self.run_ok([program]), r"^-?\d+ \w.*\.\n$")
                    self.assertEqual("liborbit.so.0" in run(["objdump", "-p", program])[1], linked)

    def test_cmake_where_usr_is_merged_and_bin_comes_first(self):
        """CMake looks beside what PATH names: /bin, so it finds the package by the link /lib."""
        destination = self.install("/usr/lib", "/usr")
        for directory in "bin", "lib":
            (destination / directory).symlink_to(f"usr/{directory}")
        configured = ["cmake", "-S", CONSUMER, "-B", self.work / "cmake", "-DWANTED=" + ".".join(VERSION.split(".")[:2])]
        self.run_ok(configured, PATH=f"{destination}/bin:{os.environ['PATH']}")
        self.assertIn(f"{destination}/lib/cmake/orbit", (self.work / "cmake/CMakeCache.txt").read_text())
        self.run_ok(["cmake", "--build", self.work / "cmake", "--target", "consumer-orbit"])
        self.assertRegex(self.run_ok([self.work / "cmake/consumer-orbit"]), r"^-?\d+ \w.*\.\n$")

    def test_interfaces_with_cmake_and_make(self):
        """orbit_idl() and orbit-idl.mk: generated where it is needed, and not again."""
        destination = self.install()
        for path in (CONSUMER / "idl").iterdir():
            shutil.copy(path, self.work)
        self.run_ok(["cmake", "-S", self.work, "-B", self.work / "cmake", f"-DCMAKE_PREFIX_PATH={destination}/usr/local",
                     f"-DCMAKE_LIBRARY_ARCHITECTURE={self.architecture()}"])
        make = ["make", "-C", self.work, f"ROOT={destination}/usr/local"]
        for build, program, generated in (
                (["cmake", "--build", self.work / "cmake"], self.work / "cmake/caller", self.work / "cmake/orbit-idl/echo.orbit.hpp"),
                (make, self.work / "caller", self.work / "echo.orbit.hpp")):
            with self.subTest(build=build[0]):
                self.run_ok(build)
                self.assertEqual(self.run_ok([program]), "42\n")
                before = generated.stat().st_mtime_ns, program.stat().st_mtime_ns
                (self.work / "types.hpp").touch()
                self.run_ok(build)
                self.assertEqual(generated.stat().st_mtime_ns, before[0])
                text = (self.work / "types.hpp").read_text()
                (self.work / "types.hpp").write_text(text.replace("};", "\tint more;\n};"))
                self.run_ok(build)
                self.assertNotEqual(generated.stat().st_mtime_ns, before[0])
                self.assertNotEqual(program.stat().st_mtime_ns, before[1])
                (self.work / "types.hpp").write_text(text)
        self.assertNotIn("orbit-idl", self.run_ok(make) and self.run_ok(make))

    def test_cmake_refuses_other_versions(self):
        destination = self.install()
        for wanted in ("99", "0.99", "1.0", "0.0"):
            with self.subTest(wanted=wanted):
                shutil.rmtree(self.work / "cmake", ignore_errors=True)
                status, text = self.cmake(destination, "/usr/local", wanted)
                self.assertNotEqual(status, 0)
                self.assertIn("version", text)


class Abi(unittest.TestCase):
    def test_a_changed_struct_is_seen(self):
        """The dump that check-abi compares with has the types, not only the names."""
        with tempfile.TemporaryDirectory(prefix="orbit-abi-") as work:
            changed = Path(work) / "liborbit.abi"
            dump = (ROOT / "liborbit/liborbit.abi").read_text()
            self.assertNotIn(str(ROOT), dump)
            for name in re.findall(r"^struct (orbit_\w+) \{", (ROOT / "include/orbit/orbit.h")
                                   .read_text(), re.M):
                self.assertIn(f"<class-decl name='{name}' size-in-bits=", dump)
            changed.write_text(re.sub(r"(name='orbit_options' size-in-bits=)'\d+'", r"\1'64'", dump))
            status, text = run(["abidiff", ROOT / "liborbit/liborbit.abi", changed])
            self.assertNotEqual(status, 0)
            self.assertIn("struct orbit_options", text)


if __name__ == "__main__":
    unittest.main()
