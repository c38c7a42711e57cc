# SPDX-License-Identifier: MIT
"""What cannot be right does not compile, and the compiler says why in words that help."""

import subprocess
import tempfile
import unittest
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

# Each a statement, and what is to be said about its line.
MISUSES = [
    ("audit.call({}, [] { return 1; });", "nodiscard"),
    ("audit.call_async({}, [] {});", "nodiscard"),
    ("audit.post({}, [] {});", "nodiscard"),
    ("targets.add(number);", "nodiscard"),
    ("note.send(1);", "nodiscard"),
    ("orbit::send(&number, 1);", "nodiscard"),
    ("int use = untrusted;", "cannot convert"),
    ("if (untrusted) number = 1;", "could not convert"),
    ("number = numbers[untrusted];", "no match for .operator\\[\\]"),
]
# These are said about a line of the header; the compiler stops at each.
REFUSED = [
    ("(void)audit.call({}, [text] { return text.size(); });", "the callable must be trivially copyable"),
    ("(void)audit.call({}, [](std::string) {}, text);", "every argument must be trivially copyable"),
    ("(void)audit.call({}, [] { return std::string(); });", "the return type must be trivially copyable"),
    ("(void)audit.call({}, [&number]() -> int & { return number; });", "cannot return a reference"),
    ("(void)orbit::Operation<std::string>{1};", "every argument of an operation must be trivially copyable"),
    ("(void)targets.add(texts);", "what is declared must be trivially copyable"),
]
PROGRAM = """#include <orbit/orbit.hpp>
#include <string>
constexpr orbit::Operation<int> note{{1}};
void misuse(orbit::Orbit &audit, orbit::Targets &targets, orbit::Untrusted<int> untrusted)
{{
int number = 0;
std::array<int, 3> numbers{{}};
std::string text;
std::array<std::string, 2> texts;
(void)numbers, (void)text, (void)texts, (void)audit, (void)targets, (void)untrusted, (void)number;
{statements}
}}
"""


def compiled(statements):
    with tempfile.TemporaryDirectory(prefix="orbit-misuse-") as work:
        source = Path(work) / "misuse.cc"
        source.write_text(PROGRAM.format(statements="\n".join(statements)))
        done = subprocess.run(["g++", "-std=c++20", "-Wall", "-Wno-unused-variable", "-fsyntax-only",
                               "-fmax-errors=0", "-I", ROOT / "include", source], text=True,
                              stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    return done.returncode, done.stdout


class Misuse(unittest.TestCase):
    def test_what_is_right_compiles_without_a_word(self):
        status, text = compiled(["orbit::require(note.send(1));",
                                 "number = audit.call({}, [] { return 1; }).value_or(0);",
                                 "number = untrusted.copy_and_verify([](int i) { return i & 3; });"])
        self.assertEqual((status, text), (0, ""))

    def test_what_is_wrong_is_told_where_it_is(self):
        _, text = compiled([statement for statement, _ in MISUSES])
        first = PROGRAM.split("{statements}")[0].count("\n") + 1
        for number, (statement, said) in enumerate(MISUSES):
            with self.subTest(statement=statement):
                self.assertRegex(text, rf"misuse\.cc:{first + number}:\d+: (warning|error): .*{said}")

    def test_what_cannot_travel_is_refused_in_words(self):
        status, text = compiled([statement for statement, _ in REFUSED])
        self.assertNotEqual(status, 0)
        for statement, said in REFUSED:
            with self.subTest(statement=statement):
                self.assertIn(said, text)


if __name__ == "__main__":
    unittest.main()
