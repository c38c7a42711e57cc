#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The examples print what their expected.txt says, on the patched kernel.

  examples.py --build DIR --kernel DIR [NAME...]

An example without expected.txt has its own test, or judges itself.
"""

import argparse
import difflib
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "vm"))
import run as vm  # noqa: E402

EXAMPLES = HERE.parent / "examples"
SECONDS = 60
LONGEST_MAIN = 60       # lines


def expected():
    """{name: what it prints} of the examples that say so."""
    return {file.parent.name: file.read_text()
            for file in sorted(EXAMPLES.glob("*/expected.txt"))}


def tests(build):
    """What to run in a guest."""
    return ([vm.Test(f"example {name}", [str(build / "examples" / name)], SECONDS) for name in expected()]
            # It judges itself, and prints figures, which are never the same.
            + [vm.Test("sales", [str(build / "examples/sales"), "--megabytes", "4", "--seconds", "0.3",
                                 "--rate", "2000"], SECONDS)])


def judge(cases):
    """Turns cases of examples that have printed something else into failed ones."""
    wanted = expected()
    for case in cases:
        name = case.program.removeprefix("example ")
        if name == case.program or case.outcome != "pass":
            continue
        difference = "\n".join(difflib.unified_diff(
            wanted[name].splitlines(), case.output.splitlines(), "expected.txt", "printed",
            lineterm=""))
        if difference:
            case.outcome, case.output = "fail", difference
    return cases


def main_lines(source):
    """How many lines the function main() of a program has, its braces not counted; or None."""
    lines = source.splitlines()
    begin = next((i for i, line in enumerate(lines) if line.startswith("int main(")), None)
    return None if begin is None else lines.index("}", begin) - begin - 2


def judge_sources():
    """The main() of every example that is a program of ours is short enough to be read."""
    cases = []
    for directory in sorted({file.parent for file in EXAMPLES.glob("*/*.cc")}):
        lengths = [length for file in directory.glob("*.cc")
                   if (length := main_lines(file.read_text())) is not None]
        good = len(lengths) == 1 and lengths[0] < LONGEST_MAIN
        cases.append(vm.Case("examples", f"main() of {directory.name}", "pass" if good else "fail",
                             f"lines: {lengths}"))
    return cases or [vm.Case("examples", "", "fail", "there are none")]


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True)
    parser.add_argument("--kernel", type=Path, required=True)
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    machine = vm.Machine(options.kernel)
    wanted = [test for test in tests(options.build)
              if not options.names or test.name.removeprefix("example ") in options.names]
    report = machine.run(wanted, progress=lambda test, cases, seconds: vm.print_progress(
        test, judge(cases), seconds))
    return vm.conclude(judge_sources() + report.cases)


if __name__ == "__main__":
    sys.exit(main())
