# SPDX-License-Identifier: MIT
"""The manual pages tell of all that the headers and the system calls have: every call has its
page, with every error that the kernel's own comments name; every function of the library is in
one, with its prototype and every error that its comment names; every constant and every field is
in one of them.  And they are clean, and their examples compile."""

import errno
import re
import shlex
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

from test_series import tree

ROOT = Path(__file__).resolve().parents[2]
MAN = ROOT / "liborbit/man"
HEADER = (ROOT / "include/orbit/abi.h").read_text()
LIBRARY = (ROOT / "include/orbit/orbit.h").read_text()
BOTH = HEADER + LIBRARY
NOT_FOR_USE = {"ORBIT_ORBIT_H", "ORBIT_API", "ORBIT_NOTHROW"}
NUMBERS = dict(re.findall(r"\bNR_(orbit_\w+) = (\d+)",
                          (ROOT / "liborbit/kernel/syscall.h").read_text()))
OTHERS = [MAN / "orbitctl.1", MAN / "orbit-idl.1", MAN / "orbit-compat.7"]     # see test_other_pages.py
PAGES = sorted(set(MAN.glob("*.[0-9]")) - set(OTHERS))


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


# With those that are two names of one number.
# Python knows this one from 3.14 on.
ERRNOS = {name for name in dir(errno) if name.startswith("E")} | {"EHWPOISON"}


def errnos(text):
    return words(text) & ERRNOS


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
    """All macros and enumerators, but not the header's own."""
    return (set(re.findall(r"^(?:#define |\t)(ORBIT_\w+)\b", without_comments(text), re.M))
            - NOT_FOR_USE)


def kernel_docs(text):
    """{call: the comment above its SYSCALL_DEFINE}"""
    return dict(re.findall(r"^/\*\*\n \* sys_(orbit_\w+) - (.*?)\*/\nSYSCALL_DEFINE", text,
                           re.M | re.S))


def header_docs(text):
    """{call: the comment above the struct of its arguments}"""
    found = re.findall(r"^ \* struct orbit_\w+ - (orbit_\w+)\((.*?)\*/", text, re.M | re.S)
    return {call: doc for call, doc in found if call in NUMBERS}


def squeezed(text):
    """A declaration, whatever its white space is."""
    return re.sub(r"\s+", " ", re.sub(r"\s*([(),*;])\s*", r"\1", text)).strip()


def prototypes(text):
    """{function: its declaration} of the library's header."""
    found = re.findall(r"^ORBIT_API ([^;]*?\b(orbit_\w+)\([^;]*?\)) ORBIT_NOTHROW;", text, re.M)
    return {name: squeezed(declaration + ";") for declaration, name in found}


def shown_prototypes(source):
    """The same of a page's section SYNOPSIS."""
    lines = re.findall(r"^\.BI? (.*)$", source.partition(".SH SYNOPSIS")[2].partition(".SH ")[0], re.M)
    text = " ".join("".join(shlex.split(line)) if line.startswith('"') else line for line in lines)
    return {re.search(r"\b(orbit_\w+)\(", declaration)[1]: squeezed(declaration + ";")
            for declaration in text.partition("orbit.h>")[2].split(";")
            if declaration.strip() and not declaration.strip().startswith("typedef")}


def types(text):
    """{type: its declaration} of the types of functions."""
    return {name: squeezed(whole) for whole, name in
            re.findall(r"^(?:\.B )?(typedef [^;]*\(\*(orbit_\w+)\)[^;]*;)", text, re.M)}


def library_docs(text):
    """{function: the comment above it, from where it tells what is returned}"""
    found = re.findall(r"^/\*\*\n \* (orbit_\w+)\(\) - (.*?)\*/$", text, re.M | re.S)
    return {name: doc.partition("\n * Returns ")[2] for name, doc in found}


def names(source):
    """What a page is about."""
    return re.search(r"^\.SH NAME\n(.*) \\- ", source, re.M)[1].split(", ")


def of_section(number):
    return [page for page in PAGES if page.suffix == f".{number}"]


def examples(source):
    return re.findall(r"^\.EX\n(.*?)^\.EE$", sections(source).get("EXAMPLES", ""), re.M | re.S)


class Man(unittest.TestCase):
    maxDiff = None

    def test_every_call_has_its_page(self):
        self.assertEqual(len(NUMBERS), 8)
        self.assertEqual({f"{call}.2" for call in NUMBERS} | {"orbit.7"},
                         {page.name for page in PAGES} - {page.name for page in of_section(3)})

    def test_every_function_is_on_one_page(self):
        wanted = prototypes(LIBRARY)
        self.assertEqual(len(wanted), LIBRARY.count("\nORBIT_API "))
        shown = {}
        for page in of_section(3):
            source = page.read_text()
            found = shown_prototypes(source)
            with self.subTest(page=page.name):
                self.assertEqual(list(found), names(source))
                self.assertEqual(found.keys() & shown.keys(), set())
            shown |= found
        self.assertEqual(shown, wanted)

    def test_every_type_of_a_function_is_shown(self):
        wanted = types(LIBRARY)
        self.assertEqual(set(wanted), {"orbit_entry", "orbit_operation", "orbit_log_fn", "orbit_scan_fn"})
        shown = {}
        for page in of_section(3):
            shown |= types(page.read_text())
        self.assertEqual(shown, wanted)

    def test_every_error_of_the_librarys_comments_is_listed(self):
        docs = library_docs(LIBRARY)
        self.assertEqual(sum(bool(errnos(doc)) for doc in docs.values()), 27)
        for page in of_section(3):
            source = page.read_text()
            listed = listed_errnos(source) if "ERRORS" in sections(source) else set()
            for name in names(source):
                with self.subTest(function=name):
                    self.assertEqual(errnos(docs.get(name, "")) - listed, set())

    def test_every_parameter_is_explained(self):
        for page in of_section(3):
            source = page.read_text()
            told = words(" ".join(re.findall(r"\\fI(?:\\%)?(.*?)\\fR",
                                             source.partition(".SH DESCRIPTION")[2])))
            for name, declaration in shown_prototypes(source).items():
                parameters = re.findall(r"(\w+)[,)]", declaration)
                # What a function with one handle does with it goes without saying.
                if len(parameters) > 1:
                    with self.subTest(function=name):
                        self.assertEqual(set(parameters) - told, set())

    def test_pages_have_their_sections(self):
        call = ["NAME", "SYNOPSIS", "DESCRIPTION", '"RETURN VALUE"', "ERRORS", "NOTES",
                "EXAMPLES", '"SEE ALSO"']
        function = ["NAME", "LIBRARY", *call[1:]]
        for page in PAGES:
            with self.subTest(page=page.name):
                source = page.read_text()
                titles = [f'"{title}"' if " " in title.strip('"') else title
                          for title in (t.strip('"') for t in sections(source))]
                self.assertEqual(names(source)[0], page.stem)
                self.assertIn(f".TH {page.stem.upper()} {page.suffix[1:]} ", source)
                if page.suffix == ".2":
                    self.assertEqual(titles, call)
                if page.suffix == ".3":
                    self.assertEqual(titles, [title for title in function
                                              if title != "ERRORS" or title in titles])

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
        wanted = constants(BOTH)
        self.assertGreater(len(wanted), 60)
        told = set().union(*(words(plain(page.read_text())) for page in PAGES))
        self.assertEqual(wanted - told, set())
        # Nor is one told of that there is not.
        self.assertEqual({word for word in told if re.match(r"ORBIT_[A-Z]\w*$", word)}
                         - wanted - {page.stem.upper() for page in PAGES}
                         - {"ORBIT_BACKEND", "ORBIT_CHECK", "ORBIT_MEMORY_LIMIT", "ORBIT_TRACKER",
                            "ORBIT_WINDOW"},  # of the environment
                         set())

    def test_every_struct_is_shown(self):
        wanted = structs(BOTH)
        self.assertGreater(len(wanted), 20)
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
                    self.assertEqual(set(names) - ERRNOS, set())

    def test_references_are_to_pages(self):
        there = {str(n): [name for page in of_section(n) for name in names(page.read_text())]
                 for n in (2, 3, 7)}
        for page in PAGES:
            with self.subTest(page=page.name):
                for name, section in re.findall(r"\b(orbit(?:_\w+)?) ?\((\d)\)",
                                                plain(page.read_text())):
                    self.assertIn(name, there[section], f"{name}({section})")

    def test_groff_has_no_warnings(self):
        if not shutil.which("groff"):
            self.skipTest("groff is not installed")
        for page in PAGES:
            with self.subTest(page=page.name):
                done = subprocess.run(["groff", "-man", "-Tutf8", "-ww", page],
                                      stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
                                      stdin=subprocess.DEVNULL)
                self.assertEqual((done.returncode, done.stderr), (0, ""))
                self.assertRegex(done.stdout, rf"{page.stem}(,| - )")

    def test_examples_compile(self):
        for page in PAGES:
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

    def test_pages_are_found_by_every_name(self):
        with tempfile.TemporaryDirectory() as work:
            subprocess.run(["make", "-s", "-C", ROOT / "liborbit", "install", f"DESTDIR={work}/to",
                            f"BUILD={work}/build", "CXXFLAGS=-O0"], check=True,
                           stdin=subprocess.DEVNULL)
            installed = Path(work) / "to/usr/local/share/man/man3"
            self.assertEqual({path.stem for path in installed.iterdir()}, set(prototypes(LIBRARY)))
            for page in of_section(3):
                for other in names(page.read_text())[1:]:
                    self.assertEqual((installed / f"{other}.3").read_text(), f".so man3/{page.name}\n")

    def test_a_difference_is_seen(self):
        source = (MAN / "orbit_send.2").read_text()
        self.assertNotIn("EPIPE", listed_errnos(source.replace(".B EPIPE", ".B EPIPF")))
        self.assertNotEqual(structs(plain(source)), structs(plain(source.replace("__u32 type;", ""))))
        self.assertIn("ORBIT_SEND_NEW", constants(HEADER + "#define ORBIT_SEND_NEW 2\n"))
        self.assertEqual(prototypes("ORBIT_API int orbit_x(struct orbit_y *a,\n\t\tint b) ORBIT_NOTHROW;\n"),
                         shown_prototypes('.SH SYNOPSIS\n.B #include <orbit/orbit.h>\n'
                                          '.BI "int orbit_x(struct orbit_y *" "a" ", int "\n'
                                          '.BI "b" ");"\n.SH X\n'))
        docs = kernel_docs("/**\n * sys_orbit_x - Do\n *\n * Return: 0, or -EPERM.\n */\n"
                           "SYSCALL_DEFINE0(orbit_x)")
        self.assertEqual(errnos(docs["orbit_x"]), {"EPERM"})


if __name__ == "__main__":
    unittest.main()
