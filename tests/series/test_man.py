# SPDX-License-Identifier: MIT
"""The manual pages tell of all that the header and the system calls have: every call has its
page, with every error that the kernel's own comments name; every constant and every field is
in one of them.  And they are clean, and their examples compile."""

import errno
import re
import shutil
import subprocess
import unittest
from pathlib import Path

from test_series import tree

ROOT = Path(__file__).resolve().parents[2]
MAN = ROOT / "liborbit/man"
HEADER = (ROOT / "include/orbit/abi.h").read_text()
NUMBERS = dict(re.findall(r"\bNR_(orbit_\w+) = (\d+)",
                          (ROOT / "liborbit/syscall.h").read_text()))
PAGES = sorted(MAN.glob("*.[0-9]"))


def plain(source):
    """What a page says, without what groff shall do with it."""
    text = re.sub(r'^\.\\".*\n', "", source, flags=re.M)
    text = re.sub(r"\\f(?:[A-Z]|\[\w*\]|\(\w\w)|\\%|\\&", "", text)
    for escape, char in (("\\-", "-"), ("\\(aq", "'"), ("\\(ha", "^"), ("\\(ti", "~"),
                         ("\\e", "\\")):
        text = text.replace(escape, char)
    return text


def words(text):
    return set(re.findall(r"\w+", text))


def errnos(text):
    return words(text) & set(errno.errorcode.values())


def sections(source):
    """{title: text}"""
    parts = re.split(r"^\.SH (.+)\n", plain(source), flags=re.M)
    return dict(zip(parts[1::2], parts[2::2]))


def listed_errnos(source):
    """The error numbers that a page's section ERRORS has an entry for."""
    return errnos(" ".join(re.findall(r"^\.TP\n\.B (\w+)$", sections(source)["ERRORS"], re.M)))


def without_comments(text):
    return re.sub(r"/\*.*?\*/", "", text, flags=re.S)


def structs(text):
    """{struct: [its fields as they are declared]}"""
    return {name: [" ".join(line.split()) for line in body.splitlines() if line.strip()]
            for name, body in re.findall(r"^struct (orbit_\w+) \{\n(.*?)^\};",
                                         without_comments(text), re.M | re.S)}


def constants(text):
    """All macros and enumerators, but not the header's guard."""
    return set(re.findall(r"^(?:#define |\t)(ORBIT_\w+)\b", without_comments(text), re.M))


def kernel_docs(text):
    """{call: the comment above its SYSCALL_DEFINE}"""
    return dict(re.findall(r"^/\*\*\n \* sys_(orbit_\w+) - (.*?)\*/\nSYSCALL_DEFINE", text,
                           re.M | re.S))


def header_docs(text):
    """{call: the comment above the struct of its arguments}"""
    found = re.findall(r"^ \* struct orbit_\w+ - (orbit_\w+)\((.*?)\*/", text, re.M | re.S)
    return {call: doc for call, doc in found if call in NUMBERS}


def examples(source):
    return re.findall(r"^\.EX\n(.*?)^\.EE$", sections(source).get("EXAMPLES", ""), re.M | re.S)


class Man(unittest.TestCase):
    maxDiff = None

    def test_every_call_has_its_page(self):
        self.assertEqual(len(NUMBERS), 8)
        self.assertEqual({f"{call}.2" for call in NUMBERS} | {"orbit.7"},
                         {page.name for page in PAGES})

    def test_pages_have_their_sections(self):
        call = ["NAME", "SYNOPSIS", "DESCRIPTION", '"RETURN VALUE"', "ERRORS", "NOTES",
                "EXAMPLES", '"SEE ALSO"']
        for page in PAGES:
            with self.subTest(page=page.name):
                source = page.read_text()
                titles = [f'"{title}"' if " " in title.strip('"') else title
                          for title in (t.strip('"') for t in sections(source))]
                self.assertEqual(re.search(r"^\.SH NAME\n(\w+) \\- ", source, re.M)[1], page.stem)
                self.assertIn(f".TH {page.stem.upper()} {page.suffix[1:]} ", source)
                if page.suffix == ".2":
                    self.assertEqual(titles, call)

    def test_numbers(self):
        for call, number in NUMBERS.items():
            with self.subTest(call=call):
                parts = sections((MAN / f"{call}.2").read_text())
                self.assertIn(f"int syscall({number}, ", parts["SYNOPSIS"])
                self.assertIn(f"{call}() is system call {number} ", parts["NOTES"])
                used = re.findall(r"\bsyscall\((\d+),", parts["EXAMPLES"])
                self.assertIn(number, used)
                self.assertIn(f".TP\n{number} {call}(2)\n", plain((MAN / "orbit.7").read_text()))

    def test_every_constant_is_told(self):
        wanted = constants(HEADER)
        self.assertGreater(len(wanted), 50)
        told = set().union(*(words(plain(page.read_text())) for page in PAGES))
        self.assertEqual(wanted - told, set())
        # Nor is one told of that there is not.
        self.assertEqual({word for word in told if re.match(r"ORBIT_[A-Z]\w*$", word)}
                         - wanted - {call.upper() for call in NUMBERS}, set())

    def test_every_struct_is_shown(self):
        wanted = structs(HEADER)
        self.assertGreater(len(wanted), 10)
        shown = {}
        for page in PAGES:
            for name, fields in structs(plain(page.read_text())).items():
                self.assertNotIn(name, shown)
                shown[name] = fields
        self.assertEqual(shown, wanted)

    def test_every_field_is_explained(self):
        """Beside its declaration, in the page that has it."""
        for page in PAGES:
            source = page.read_text()
            # Set in italics wherever it is not code.
            told = words(" ".join(re.findall(r"\\fI(?:\\%)?(.*?)\\fR", source)))
            for name, fields in structs(plain(source)).items():
                for field in fields:
                    with self.subTest(page=page.name, struct=name, field=field):
                        self.assertIn(re.search(r"(\w+)(?:\[\w+\])?;$", field)[1], told)

    def test_every_error_of_the_kernels_comments_is_listed(self):
        docs = kernel_docs((tree() / "kernel/orbit/syscalls.c").read_text())
        self.assertEqual(set(docs), set(NUMBERS))
        for call, doc in docs.items():
            with self.subTest(call=call):
                wanted = errnos(doc.partition("Return:")[2])
                self.assertGreater(len(wanted), 5)
                # A kernel without orbits has one more.
                wanted |= {"ENOSYS"}
                self.assertEqual(wanted - listed_errnos((MAN / f"{call}.2").read_text()), set())

    def test_every_error_of_the_header_is_listed(self):
        docs = header_docs(HEADER)
        self.assertEqual(set(docs), set(NUMBERS) - {"orbit_ctl"})
        for call, doc in docs.items():
            with self.subTest(call=call):
                # Those of the tasks it is about are not its own.
                theirs = {"ECANCELED"} if call == "orbit_cancel" else set()
                self.assertEqual(errnos(doc) - theirs
                                 - listed_errnos((MAN / f"{call}.2").read_text()), set())

    def test_errors_are_in_order(self):
        for page in PAGES:
            with self.subTest(page=page.name):
                text = sections(page.read_text()).get("ERRORS", "")
                for part in re.split(r"^\.PP$", text, flags=re.M):
                    names = re.findall(r"^\.TP\n\.B (\w+)$", part, re.M)
                    self.assertEqual(names, sorted(set(names)))
                    self.assertEqual(set(names) - set(errno.errorcode.values()), set())

    def test_references_are_to_pages(self):
        for page in PAGES:
            with self.subTest(page=page.name):
                for name, section in re.findall(r"\b(orbit(?:_\w+)?) ?\((\d)\)",
                                                plain(page.read_text())):
                    self.assertTrue((MAN / f"{name}.{section}").exists(), f"{name}({section})")

    def test_groff_has_no_warnings(self):
        if not shutil.which("groff"):
            self.skipTest("groff is not installed")
        for page in PAGES:
            with self.subTest(page=page.name):
                done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", page],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      stdin=subprocess.DEVNULL)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertTrue(f"{page.stem} - " in done.stdout)

    def test_examples_compile(self):
        for page in PAGES:
            if page.suffix != ".2":
                continue
            with self.subTest(page=page.name):
                programs = examples(page.read_text())
                self.assertTrue(programs)
                for program in programs:
                    done = subprocess.run(
                        ["gcc", "-std=gnu11", "-Wall", "-Wextra", "-Werror", "-fsyntax-only",
                         f"-I{ROOT / 'include'}", "-xc", "-"], input=program, text=True,
                        stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
                    self.assertEqual(done.returncode, 0, done.stdout)

    def test_make_installs_them(self):
        done = subprocess.run(["make", "-n", "-C", ROOT / "liborbit", "install", "PREFIX=/where"],
                              stdout=subprocess.PIPE, text=True, stdin=subprocess.DEVNULL,
                              check=True)
        for page in PAGES:
            with self.subTest(page=page.name):
                self.assertRegex(done.stdout, rf"(?m)^install -m 644 .*/{re.escape(page.name)}\b.*"
                                              rf" /where/share/man/man{page.suffix[1:]}$")

    def test_a_difference_is_seen(self):
        source = (MAN / "orbit_send.2").read_text()
        self.assertNotIn("EPIPE", listed_errnos(source.replace(".B EPIPE", ".B EPIPF")))
        self.assertNotEqual(structs(plain(source)), structs(plain(source.replace("__u32 type;", ""))))
        self.assertIn("ORBIT_SEND_NEW", constants(HEADER + "#define ORBIT_SEND_NEW 2\n"))
        docs = kernel_docs("/**\n * sys_orbit_x - Do\n *\n * Return: 0, or -EPERM.\n */\n"
                           "SYSCALL_DEFINE0(orbit_x)")
        self.assertEqual(errnos(docs["orbit_x"]), {"EPERM"})


if __name__ == "__main__":
    unittest.main()
