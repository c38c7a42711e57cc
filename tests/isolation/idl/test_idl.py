# SPDX-License-Identifier: MIT
"""The interface compiler: what it refuses, and in which words; that what it accepts compiles and does what it says; that
nothing makes it stumble; that it does nothing twice."""

import os
import random
import re
import shutil
import subprocess
import tempfile
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[2]
TOOL = ROOT / "isolation/idl/orbit-idl"
ACCEPTED = sorted((HERE / "accepted").glob("*.idl.hpp"))
BEGIN = "class ORBIT_INTERFACE X {\npublic:\n\tvirtual ~X() = default;"
INCLUDES = "".join(f"#include <{name}>\n" for name in (
    "cstddef", "cstdint", "array", "functional", "memory", "optional", "span", "string", "string_view", "tuple",
    "utility", "variant", "vector", "orbit/rref.hpp"))
MUTATIONS = int(os.environ.get("ORBIT_IDL_MUTATIONS", "150"))


def run(*arguments, **keywords):
    done = subprocess.run([str(TOOL), *map(str, arguments)], stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                          stdin=subprocess.DEVNULL, text=True, **keywords)
    return done.returncode, done.stdout, done.stderr


def rejected():
    """[(words, the header, the line, the column or None)]"""
    for case in re.split(r"^--- ", (HERE / "rejected.txt").read_text(), flags=re.M)[1:]:
        words, _, code = case.partition("\n")
        code = re.sub(r"^\{$", lambda _: BEGIN, code, flags=re.M)
        code = re.sub(r"^\}$(?![\s\S]*^\{$)", "};", code, flags=re.M) if "class ORBIT_INTERFACE X {\npublic:\n\tvirtual ~X() = default;" in code else code
        text = INCLUDES + code
        mark = text.find("@")
        line = text.count("\n", 0, mark) + 1 if mark >= 0 else 1
        column = mark - text.rfind("\n", 0, mark) if mark >= 0 else 1
        yield words, text.replace("@", ""), line, column


# Many headers in one process: most of the time goes into loading libclang.
MANY = """
import sys
sys.path.insert(0, sys.argv[1])
sys.dont_write_bytecode = True
from orbit_idl import command, source
if sys.argv[2] == "light":
    del source.WAYS[1:]
for header in sys.stdin.read().split("\\n"):
    if header:
        sys.stderr.flush()
        print("=== " + header, file=sys.stderr, flush=True)
        status = command.main(["--check", header])
        print("=== status", status, file=sys.stderr, flush=True)
"""


def check_many(headers, way="all"):
    """{header: (status, what it said)}, and the process; by the light headers alone that takes milliseconds each."""
    done = subprocess.run(["/usr/bin/python3", "-c", MANY, str(TOOL.parent), way], input="\n".join(map(str, headers)),
                          stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, errors="replace")
    found = {}
    for part in re.split(r"^=== (?=/)", done.stderr, flags=re.M)[1:]:
        header, _, rest = part.partition("\n")
        text, _, status = rest.partition("=== status ")
        found[header] = (int(status) if status.strip() else None, text)
    return found, done


class Case(unittest.TestCase):
    maxDiff = None

    def setUp(self):
        self.work = Path(tempfile.mkdtemp(prefix="orbit-idl-"))
        self.addCleanup(shutil.rmtree, self.work)


class Rejected(Case):
    def test_every_rule(self):
        """At the right place, in the right words, and with what to do."""
        cases = list(rejected())
        self.assertGreater(len(cases), 120)
        headers = []
        for n, (_, text, _, _) in enumerate(cases):
            headers.append(self.work / f"case{n}.idl.hpp")
            headers[-1].write_text(text)
        found, done = check_many(headers)
        self.assertEqual(done.returncode, 0, done.stderr[-3000:])
        for header, (words, text, line, column) in zip(headers, cases):
            with self.subTest(words=words, header=text[len(INCLUDES):]):
                status, said = found[str(header)]
                self.assertEqual(status, 1, said)
                first, *others = said.strip().split("\n")
                self.assertEqual(first.split(" error: ")[0], f"{header}:{line}:{column}:", said)
                self.assertIn(words, first)
                self.assertIn(": note: ", others[-1])

    def test_every_refusal_has_its_case(self):
        """No rule without a case: by the words that are constant in each."""
        source = (TOOL.parent / "orbit_idl/rules.py").read_text()
        rules = re.findall(r"self\.refuse\([^,]+, f?\"((?:[^\"\\]|\\.)*)\"", source)
        self.assertGreater(len(rules), 80)
        headers = []
        for n, (_, text, _, _) in enumerate(rejected()):
            headers.append(self.work / f"case{n}.idl.hpp")
            headers[-1].write_text(text)
        said = "".join(text for _, text in check_many(headers)[0].values())
        missing = []
        for rule in rules:
            pattern = "".join(".*" if part.startswith("{") else re.escape(part)
                              for part in re.split(r"(\{[^{}]*(?:\{[^{}]*\}[^{}]*)*\})", rule))
            if not re.search(pattern, said):
                missing.append(rule)
        self.assertEqual(set(missing) - NOT_TRIED, set())


# It takes two headers: test_interfaces_of_other_headers().
NOT_TRIED = {"{name} is declared in {os.path.basename(file)}, for which no code is generated"}


class Accepted(Case):
    def generate(self, header, output=None, *options):
        output = output or self.work / header.name.replace(".idl.hpp", ".orbit.hpp")
        status, out, said = run(header, "-o", output, *options)
        self.assertEqual((status, out, said), (0, "", ""))
        return output

    def compile(self, program, *sources, flags=()):
        done = subprocess.run(["g++", "-std=c++20", "-O0", "-Wall", "-Wextra", "-Werror", *flags, f"-I{ROOT / 'include'}",
                               f"-I{HERE / 'accepted'}", f"-I{self.work}", "-o", str(program), *map(str, sources)],
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout[:5000])

    def test_what_is_generated_does_what_the_interface_says(self):
        for header in ACCEPTED:
            self.generate(header)
        self.compile(self.work / "roundtrip", HERE / "roundtrip.cc", "-lgtest_main", "-lgtest", "-pthread",
                     flags=["-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
        done = subprocess.run([self.work / "roundtrip"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout[-8000:])
        self.assertRegex(done.stdout, r"\[  PASSED  \] 1\d tests")

    def test_typed_buffers(self):
        self.generate(HERE / "accepted/rrefs.idl.hpp")
        self.compile(self.work / "buffers", HERE / "buffers.cc", ROOT / "isolation/heap.cc", "-lgtest_main", "-lgtest", "-pthread",
                     flags=["-D_GNU_SOURCE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
        done = subprocess.run([self.work / "buffers"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout[-8000:])
        self.assertIn("[  PASSED  ] 5 tests", done.stdout)

    def test_coroutines(self):
        self.generate(HERE / "accepted/rrefs.idl.hpp", None, "--coroutines")
        parts = [ROOT / f"isolation/{part}.cc" for part in ("heap", "ring", "coroutine")]
        self.compile(self.work / "coroutines", HERE / "coroutines.cc", *parts, "-lgtest_main", "-lgtest", "-pthread",
                     flags=["-D_GNU_SOURCE", "-fsanitize=address,undefined", "-fno-sanitize-recover=all"])
        done = subprocess.run([self.work / "coroutines"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
        self.assertEqual(done.returncode, 0, done.stdout[-8000:])
        self.assertIn("[  PASSED  ] 6 tests", done.stdout)

    def test_coroutines_of_all_interfaces_compile(self):
        for header in ACCEPTED:
            self.generate(header, None, "--coroutines")
        (self.work / "a.cc").write_text("".join(f'#include "{path.name}"\n' for path in sorted(self.work.glob("*.orbit.hpp"))))
        self.compile(self.work / "a.o", self.work / "a.cc", flags=["-c", "-O1", "-Wshadow", "-Wconversion"])

    def test_it_compiles_with_more_warnings_twice_and_optimized(self):
        """Each header alone, in two files of one program."""
        for header in ACCEPTED:
            self.generate(header)
        includes = "".join(f'#include "{path.name}"\n' for path in sorted(self.work.glob("*.orbit.hpp")))
        (self.work / "a.cc").write_text(includes + includes + "int main() {}\n")
        (self.work / "b.cc").write_text(includes)
        self.compile(self.work / "both", self.work / "a.cc", self.work / "b.cc", ROOT / "isolation/heap.cc",
                     flags=["-O1", "-Wshadow", "-Wconversion"])

    def test_the_same_every_time_and_everywhere(self):
        for header in ACCEPTED:
            with self.subTest(header=header.name):
                first = self.generate(header).read_bytes()
                elsewhere = self.work / "else where"
                elsewhere.mkdir(exist_ok=True)
                shutil.copy(header, elsewhere)
                done = run(header.name, "-o", "there.hpp", cwd=elsewhere)
                self.assertEqual(done, (0, "", ""))
                self.assertEqual((elsewhere / "there.hpp").read_bytes(), first)
                self.assertNotIn(str(ROOT).encode(), first)

    def test_by_the_real_headers_it_is_the_same(self):
        """The light ones only save time."""
        header = HERE / "accepted/values.idl.hpp"
        first = self.generate(header).read_text()
        changed = self.work / header.name
        # std::type_identity is in none of the light headers.
        changed.write_text(header.read_text().replace(
            "namespace shapes {", "#include <type_traits>\nstatic_assert(std::is_same_v<std::type_identity_t<int>, int>);\n"
            "namespace shapes {", 1))
        second = self.generate(changed, self.work / "second.hpp").read_text()
        self.assertEqual(first.split("\n")[2:], second.split("\n")[2:])

    def test_type_ids_tell_layouts_apart(self):
        header = (HERE / "accepted/values.idl.hpp").read_text()
        ids = set()
        changes = [("", ""), ("square = 7", "square = 8"), ("double x, y;", "float x, y;"), ("bool filled;", "bool empty;"),
                   ("const Shape &shape", "const Shape &other"), ("std::int16_t grid[2][3]", "std::int16_t grid[3][2]")]
        for n, (old, new) in enumerate(changes):
            self.assertIn(old, header)
            path = self.work / f"v{n}.idl.hpp"
            path.write_text(header.replace(old, new, 1))
            text = self.generate(path).read_text()
            ids.add(tuple(re.findall(r"_type = (0x\w+);", text)))
        # All but the parameter's name.
        self.assertEqual(len(ids), len(changes) - 1)

    def test_interfaces_of_other_headers(self):
        (self.work / "a.idl.hpp").write_text((HERE / "accepted/objects.idl.hpp").read_text())
        body = ('#include "{}"\nclass ORBIT_INTERFACE User {{\npublic:\n\tvirtual ~User() = default;\n'
                '\tvirtual orbit::result<void> use(objects::Work &work) = 0;\n}};\n')
        (self.work / "b.idl.hpp").write_text(body.format("a.idl.hpp"))
        (self.work / "a.hpp").write_text((HERE / "accepted/objects.idl.hpp").read_text())
        (self.work / "c.idl.hpp").write_text(body.format("a.hpp"))
        self.generate(self.work / "a.idl.hpp")
        text = self.generate(self.work / "b.idl.hpp").read_text()
        self.assertIn('#include "a.orbit.hpp"', text)
        (self.work / "b.cc").write_text('#include "b.orbit.hpp"\nint main() {}\n')
        self.compile(self.work / "b", self.work / "b.cc")
        status, _, said = run(self.work / "c.idl.hpp")
        self.assertEqual(status, 1)
        self.assertIn("c.idl.hpp:5:49: error: objects::Work is declared in a.hpp, for which no code is generated", said)
        self.assertFalse((self.work / "c.orbit.hpp").exists())


class Documentation(Case):
    def test_the_example_is_accepted_and_the_error_is_what_is_said(self):
        text = (ROOT / "docs/domains.md").read_text()
        header = self.work / "counter.idl.hpp"
        header.write_text(re.search(r"```cpp\n(// counter.idl.hpp\n.*?)```", text, re.S)[1])
        self.assertEqual(run("--check", header), (0, "", ""))
        projection = re.search(r"```cpp\n(virtual .*?)```", text, re.S)[1]
        header.write_text("#include <orbit/interface.hpp>\nstruct Statistics { int errors; };\n"
                          "struct NetDevice { int mtu; char name[4]; Statistics statistics; NetDevice *next; };\n"
                          + BEGIN + "\n" + projection + "virtual orbit::result<void> f(NetDevice *device) = 0;\n};\n")
        status, _, said = run("--check", header)
        self.assertEqual(status, 1)
        shown = re.search(r"```\nnet.idl.hpp:(.*?)```", text, re.S)[1]
        self.assertEqual(re.sub(r"^\S+ ", "", said, flags=re.M), re.sub(r"^\S+ ", "", shown, flags=re.M))


class Unchanged(Case):
    def setUp(self):
        super().setUp()
        self.header = self.work / "block.idl.hpp"
        self.output = self.work / "block.orbit.hpp"
        (self.work / "types.hpp").write_text("#pragma once\nenum class Op : int { read, write };\n")
        self.header.write_text('#include "types.hpp"\n#include <orbit/interface.hpp>\nclass ORBIT_INTERFACE Block {\npublic:\n'
                               "\tvirtual ~Block() = default;\n\tvirtual orbit::result<void> f(Op op) = 0;\n};\n")

    def run_it(self, *options):
        """Whether the output was written anew."""
        os.utime(self.output, (1, 1)) if self.output.exists() else None
        status, out, said = run(self.header, *options)
        self.assertEqual((status, out, said), (0, "", ""))
        return self.output.stat().st_mtime != 1

    def test_is_not_generated_anew(self):
        self.assertTrue(self.run_it())
        self.assertFalse(self.run_it())
        self.header.touch()
        (self.work / "types.hpp").touch()
        self.assertFalse(self.run_it())

    def test_what_changed_is(self):
        self.run_it()
        for path, old, new in ((self.header, "f(Op op)", "f(Op op, int n)"),
                               (self.work / "types.hpp", "write", "write, trim"),
                               (self.output, "EPROTO", "EAGAIN")):
            text = path.read_text()
            self.assertIn(old, text)
            path.write_text(text.replace(old, new, 1))
            with self.subTest(path=path.name):
                self.assertTrue(self.run_it())
                self.assertFalse(self.run_it())
        self.assertTrue(self.run_it("-DNDEBUG"))
        self.assertFalse(self.run_it("-DNDEBUG"))
        self.assertIn("trim", self.output.read_text())

    def test_without_libclang_it_is_seen(self):
        """An unchanged input needs milliseconds, and no libclang; a new one says what is missing."""
        self.run_it()
        (self.work / "none/clang").mkdir(parents=True)
        (self.work / "none/clang/__init__.py").write_text("raise ImportError")
        environment = {**os.environ, "PYTHONPATH": str(self.work / "none")}
        self.assertEqual(run(self.header, env=environment), (0, "", ""))
        self.output.unlink()
        status, _, said = run(self.header, env=environment)
        self.assertEqual(status, 2)
        self.assertIn("apt-get install python3-clang", said)
        self.assertEqual(said.count("\n"), 1)

    def test_an_error_leaves_what_was_there(self):
        self.run_it()
        before = self.output.read_bytes()
        self.header.write_text(self.header.read_text().replace("f(Op op)", "f(Op *op)"))
        status, _, said = run(self.header)
        self.assertEqual(status, 1)
        self.assertIn("block.idl.hpp:6:36: error: Op * points into", said)
        self.assertEqual(self.output.read_bytes(), before)
        self.assertEqual({path.name for path in self.work.iterdir()}, {"types.hpp", "block.idl.hpp", "block.orbit.hpp"})

    def test_dependencies_for_make(self):
        deps = self.work / "block.d"
        self.run_it("--deps", deps)
        text = deps.read_text()
        self.assertEqual(text.split("\n")[0], f"{self.output}: {self.header} {self.work / 'types.hpp'}")
        deps.unlink()
        self.run_it("--deps", deps)
        self.assertEqual(deps.read_text(), text)

    def test_other_errors(self):
        for arguments, status, words in ((["/nowhere.idl.hpp"], 2, "no such file"), ([self.work], 2, "no such file"),
                                         ([self.header, "-o", "/nowhere/x"], 2, "No such file"),
                                         ([self.header, "-o", self.header], 2, "written over the header"),
                                         ([], 2, "usage:"), ([self.header, "--unknown"], 2, "usage:"),
                                         ([self.header, "--std=c++99"], 1, "libclang cannot read")):
            with self.subTest(arguments=arguments):
                found, _, said = run(*arguments)
                self.assertEqual(found, status, said)
                self.assertIn(words, said)
                self.assertNotIn("Traceback", said)

    def test_it_is_quick(self):
        """A tenth of a second; but the machine may be busy: processor time."""
        def seconds():
            before = os.times()
            self.run_it()
            after = os.times()
            return after.children_user + after.children_system - before.children_user - before.children_system

        self.assertLess(min(self.output.unlink(missing_ok=True) or seconds() for _ in range(3)), 1)
        self.assertLess(min(seconds() for _ in range(3)), 0.5)


class Mutated(Case):
    def test_nothing_makes_it_stumble(self):
        """Headers with tokens and bytes changed: accepted, or an error with a place. ORBIT_IDL_MUTATIONS=10000 tries more."""
        generator = random.Random(1)
        headers, pieces = [], []
        texts = [path.read_text() for path in ACCEPTED]
        for text in texts + [text for _, text, _, _ in rejected()]:
            pieces += re.findall(r"\w+|[^\w\s]|\n", text)
        pieces += ["virtual", "class", "(", ")", "<", ">", "\0", "\xff", "ORBIT_MAX(", "union", "struct {", "template <class T>",
                   "9" * 400, "::", "~", "@", "#", '"', "/*", "friend", "using", "concept", "requires", "co_await"]
        for n in range(MUTATIONS):
            tokens = re.findall(r"\w+|\s+|[^\w\s]", generator.choice(texts))
            for _ in range(generator.randint(1, 6)):
                at = generator.randrange(len(tokens))
                what = generator.randrange(5)
                if what == 0:
                    del tokens[at:at + generator.randint(1, 4)]
                elif what == 1:
                    tokens.insert(at, generator.choice(pieces))
                elif what == 2:
                    tokens[at] = generator.choice(pieces)
                elif what == 3:
                    other = generator.randrange(len(tokens))
                    tokens[at], tokens[other] = tokens[other], tokens[at]
                else:
                    tokens[at:at] = tokens[other:other + 8] if (other := generator.randrange(len(tokens))) else []
                if not tokens:
                    break
            headers.append(self.work / f"m{n}.idl.hpp")
            headers[-1].write_bytes("".join(tokens).encode("latin-1"))
        found, done = check_many(headers, "light")
        self.assertEqual(done.returncode, 0, f"{list(found)[-1:]} {done.stderr[-3000:]}")
        accepted = 0
        for header in headers:
            status, said = found[str(header)]
            with self.subTest(header=header.read_bytes()):
                self.assertNotIn("Traceback", said)
                self.assertIn(status, (0, 1))
                if status:
                    self.assertRegex(said, r"\A[^\n]+:\d+:\d+: error: [^\n]+\n")
                else:
                    self.assertEqual(said, "")
                    accepted += 1
        self.assertLess(accepted, len(headers))
        self.assertGreater(accepted, 0)


if __name__ == "__main__":
    unittest.main()
