# SPDX-License-Identifier: MIT
"""What the documents quote is in the examples, which are compiled and run; what they link to
is there."""

import re
import subprocess
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCES = {file: file.read_text() for file in sorted(ROOT.glob("examples/*/*"))
           if file.suffix in (".cc", ".h")}


def documents():
    found = [ROOT / name for name in
             subprocess.run(["git", "-C", ROOT, "ls-files", "*.md"], text=True, check=True,
                            stdout=subprocess.PIPE).stdout.split()]
    # A release has no git.
    return found or sorted(ROOT.glob("**/*.md"))


def quotes(text):
    return re.findall(r"^```cpp\n(.*?)^```$", text, re.M | re.S)


def is_quoted(quote):
    return any(quote in source for source in SOURCES.values())


class Docs(unittest.TestCase):
    def test_quotes_are_of_the_examples(self):
        number = 0
        for document in (ROOT / "README.md", ROOT / "docs/porting.md"):
            for quote in quotes(document.read_text()):
                number += 1
                with self.subTest(document=document.name, quote=quote.splitlines()[0]):
                    self.assertTrue(is_quoted(quote), quote)
        self.assertGreater(number, 8)
        self.assertFalse(is_quoted("int main()\n{\n\treturn 17;\n}\n"))

    def test_links_lead_somewhere(self):
        number = 0
        for document in documents():
            for link in re.findall(r"\]\(([^)#:\s]+)(?:#[^)]*)?\)", document.read_text()):
                number += 1
                with self.subTest(document=document.name, link=link):
                    self.assertTrue((document.parent / link).exists())
        self.assertGreater(number, 10)

    def test_outputs_are_as_expected(self):
        """Lines of output that the porting guide shows."""
        shown = re.findall(r"^      (\S.*)$", (ROOT / "docs/porting.md").read_text(), re.M)
        self.assertEqual(len(shown), 2)
        self.assertIn("\n".join(shown), (ROOT / "examples/porting-orbit/expected.txt").read_text())


if __name__ == "__main__":
    unittest.main()
