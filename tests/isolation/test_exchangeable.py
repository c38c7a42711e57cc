# SPDX-License-Identifier: MIT
"""What cannot be in a buffer between domains does not compile, and the compiler's text names the field."""

import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Each a type, what is said, and the field that is named.
REFUSED = [
    ("struct One { int number; int *where; };", "a pointer means nothing", "One::where"),
    ("struct Deep { int *hidden; }; struct Middle { int a; Deep deep; }; struct One { Middle middle; };",
     "a pointer means nothing", "Deep::hidden"),
    ("struct One { int number; void (*call)(); };", "a pointer means nothing", "One::call"),
    ("struct Two { int x; }; struct One { int Two::*member; };", "a pointer means nothing", "One::member"),
    ("struct One { std::array<const char *, 3> names; };", "a pointer means nothing", "One::names"),
    ("struct One { int first; int *list[4]; };", "a pointer means nothing", "One::list"),
    ("enum class Op { read }; struct One { int number; Op op; };", "specialize orbit::enumerators", "One::op"),
    ("union Either { int a; float b; }; struct One { int number; Either either; };",
     "which member of a union", "One::either"),
    ("struct Two { std::string text; }; struct One { Two two; int x; };", "not trivially copyable", "One"),
    ("struct One { int number; int &same; };", "not a plain struct", "One"),
    ("struct One { virtual void act(); int x; };", "not trivially copyable", "One"),
    ("struct Two { int x; }; struct One : Two { int y; };", "not a plain struct", "One"),
    ("class One { int x; public: One(int); };", "not a plain struct", "One"),
    ("struct One {};", "an empty struct", "One"),
    ("struct One { int " + ", ".join(f"f{i}" for i in range(49)) + "; };", "more than 48 fields", "One"),
    ("using One = int *;", "a pointer means nothing", "int*"),
]
RIGHT = """
enum class Op : unsigned char { read, write };
template <> inline constexpr std::array orbit::enumerators<Op>{Op::read, Op::write};
struct Inner { bool flag; Op op; double ratio; };
struct One { std::array<Inner, 3> all; char name[16]; Inner two[2][2]; long last; };
static_assert(orbit::exchangeable<One> && orbit::exchangeable<int>);
struct Pointer { int *where; };
static_assert(!orbit::exchangeable<Pointer> && !orbit::exchangeable<int &> && !orbit::exchangeable<void>);
static_assert(orbit::isolation::fields_number<One> == 4);
struct Most { int %s; };
static_assert(orbit::exchangeable<Most>);
namespace other { struct One { int x; }; }
using orbit::isolation::type_id;
static_assert(type_id<int> != type_id<int[]> && type_id<int> != type_id<unsigned> && type_id<One> != type_id<other::One>);
""" % ", ".join(f"f{i}" for i in range(48))


def compiled(header, text):
    with tempfile.TemporaryDirectory(prefix="orbit-exchangeable-") as work:
        source = Path(work) / "program.cc"
        source.write_text(f"#include <orbit/{header}>\n#include <string>\n{text}\n")
        done = subprocess.run(["g++", "-std=c++20", "-Wall", "-Wextra", "-fsyntax-only", "-fmax-errors=0",
                               "-I", ROOT / "include", source], text=True, stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


class D2Exchangeable(unittest.TestCase):
    def test_what_is_right_compiles_without_a_word(self):
        self.assertEqual(compiled("exchangeable.hpp", RIGHT + "constexpr bool right = "
                                  "orbit::isolation::require_exchangeable<One>();"), (0, ""))

    def test_what_is_not_is_refused_and_named(self):
        # One compilation; each type in a namespace of its own, which the compiler tells with it.
        status, told = compiled("exchangeable.hpp", "\n".join(
            f"namespace n{i}_ {{ {text} constexpr bool wrong = orbit::isolation::require_exchangeable<One>(); }}"
            for i, (text, _, _) in enumerate(REFUSED)))
        self.assertNotEqual(status, 0)
        lines = told.splitlines()
        for i, (text, said, field) in enumerate(REFUSED):
            with self.subTest(text=text):
                # From where the compiler begins to tell of an instantiation, to the error at its end.
                found, begin = [], 0
                for number, line in enumerate(lines):
                    if ": In instantiation of" in line or ": In function" in line:
                        begin = number
                    if "error: static assertion failed: not exchangeable: " in line and said in line:
                        found.append("\n".join(lines[begin:number]))
                names = [context for context in found if f"program.cc:{3 + i}:" in context]
                self.assertTrue(names, told if not found else found)
                self.assertTrue(any(field in context for context in names), names)


class D2Misuse(unittest.TestCase):
    def test_an_rref_is_not_copied_nor_moved_without_saying_so(self):
        wrong = (("orbit::rref<int> other = buffer;", "use of deleted function"),
                 ("(void)endpoint.send(buffer, 2);", "no matching function|cannot bind rvalue reference"),
                 ("*lent = 5;", "read-only"),
                 ("(void)endpoint.send(std::move(lent.get()), 2);", "no matching function"))
        status, told = compiled("rref.hpp", "void act(orbit::isolation::Endpoint &endpoint, orbit::rref<int> &buffer, "
                                "orbit::borrowed<const int> &lent)\n{\n" +
                                "\n".join(statement for statement, _ in wrong) + "\n}")
        self.assertNotEqual(status, 0)
        for i, (statement, said) in enumerate(wrong):
            with self.subTest(statement=statement):
                self.assertRegex(told, rf"program\.cc:{5 + i}:\d+: error: .*({said})")


if __name__ == "__main__":
    unittest.main()
