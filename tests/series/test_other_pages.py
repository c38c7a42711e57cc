# SPDX-License-Identifier: MIT
"""The manual pages that are not about a call: of the tools, and of the published API."""

import re
import shutil
import subprocess
import unittest

from test_man import MAN, OTHERS, ROOT, plain


class OtherPages(unittest.TestCase):
    def test_groff_has_no_warnings(self):
        if not shutil.which("groff"):
            self.skipTest("groff is not installed")
        for page in OTHERS:
            with self.subTest(page=page.name):
                done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", "-z", page],
                                      stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                      stdin=subprocess.DEVNULL)
                self.assertEqual((done.returncode, done.stdout), (0, ""))

    def test_pages_that_are_named_exist(self):
        for page in OTHERS:
            for name, section in re.findall(r"\b(orbit[\w-]*)\s?\((\d)\)", plain(page.read_text())):
                self.assertTrue((MAN / f"{name}.{section}").exists(), f"{name}({section})")

    def test_commands_and_options(self):
        """All that the usage shows is in the page, and nothing else."""
        usage = re.search(r"usage\[\] =\n(.*?);\n", (ROOT / "liborbit/orbitctl/command.cc").read_text(),
                          re.S)[1]
        page = plain((MAN / "orbitctl.1").read_text())
        wanted = set(re.findall(r"(?<![\w-])--?[a-z]\w*", usage))
        told = set(re.findall(r"(?<![\w-])--?[a-z]\w*", page))
        self.assertGreater(len(wanted), 4)
        self.assertEqual(wanted, told)
        for command in ("probe", "list", "top"):
            self.assertIn(f"orbitctl {command}", usage)
            self.assertIn(f".SS {command}\n", page)

    def test_options_and_attributes_of_the_interface_compiler(self):
        page = plain((MAN / "orbit-idl.1").read_text())
        command = (ROOT / "isolation/idl/orbit_idl/command.py").read_text()
        options = set(re.findall(r'add_argument\("(-[-\w]+)"', command))
        self.assertGreater(len(options), 5)
        self.assertEqual(options, set(re.findall(r"(?<![\w-])--?[a-zA-Z]\w*", page.partition("OPTIONS")[2].partition(".SH")[0])))
        attributes = set(re.findall(r"#define (ORBIT_[A-Z]+)\b(?!_)", (ROOT / "include/orbit/attributes.hpp").read_text()))
        attributes -= {"ORBIT_ATTRIBUTES_HPP"}
        self.assertGreater(len(attributes), 8)
        self.assertEqual(attributes, set(re.findall(r"\bORBIT_[A-Z]+\b", page)))

    def test_functions_of_the_published_api(self):
        """Those that the page names are in the header."""
        header = (ROOT / "include/orbit-compat.h").read_text()
        named = set(re.findall(r"\borbit_\w+(?=\()", plain((MAN / "orbit-compat.7").read_text())))
        self.assertGreater(len(named), 3)
        for name in named:
            self.assertRegex(header, rf"\b{name}\(")


if __name__ == "__main__":
    unittest.main()
