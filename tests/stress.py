#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The long tests: stress, fuzz and census, on several kernels in virtual machines.

Normally run by `make stress`, which builds what this needs.  The time is divided among the
kernels, and on each between the stress and the fuzzer, in runs with seeds of their own; the
census comes on top, as it has rounds and no time.  Prints what was counted, and fails if a
program does or if a kernel complains.  BUILD/results/ keeps what each machine said.
"""

import argparse
import re
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "vm"))
import run as vm  # noqa: E402

SLICE = 150             # seconds of one run: a failure costs no more, and there are many seeds
PATIENCE = 120          # in which a single call must have come back, before scaling
CENSUS_PER_ROUND = 1.0  # seconds that one may take, before scaling
# Kernels with many checks are slow, and what is left behind shows after few rounds.
CENSUS_PART = {"vm": 1, "debug": 20, "kcsan": 20}


def programs(build):
    """The two that make builds."""
    return build / "tests/stress/stress", build / "tests/fuzz/fuzz"


def long_tests(build, machine, seconds, rounds, seed):
    """What runs in one guest: so many seconds of stress and of fuzz, and so many rounds."""
    stress, fuzz = programs(build)
    # The guest's clock goes on however slow it is, so the seconds of a run are not scaled,
    # and patience is.
    patience = str(int(PATIENCE * machine.scale / vm.TCG_SCALE))
    tests, number = [], 0
    for name, program in (("stress", stress), ("fuzz", fuzz)):
        left = seconds
        while left > 0:
            part = min(left, SLICE)
            tests.append(vm.Test(f"{name} {number}",
                                 [str(program), "--seconds", str(int(part)), "--seed",
                                  str(seed + number), "--patience", patience, "--require-all"],
                                 part + 2 * PATIENCE))
            left -= part
            number += 1
    if rounds:
        tests.append(vm.Test("census", [str(stress), "--census", str(rounds), "--seed", str(seed),
                                        "--patience", patience, "--require-all"],
                             2 * PATIENCE + rounds * CENSUS_PER_ROUND))
    return tests


def make_machine(kernel, memory=None):
    """A guest for these: the caches of orbits are to be seen, and debug kernels need room."""
    machine = vm.Machine(kernel, append="slab_nomerge")
    heavy = any(machine.configured(symbol) for symbol in ("CONFIG_KASAN", "CONFIG_KCSAN"))
    machine.memory = memory or ("2G" if heavy else "1G")
    return machine


def figures(text):
    """What the programs' last lines count: {"stress": {"calls": 12, ...}, ...}."""
    found = {}
    for name, line in re.findall(r"^(stress|fuzz|census): seed \d+: ([^;\n]*);", text, re.M):
        counts = found.setdefault(name, {})
        for what, number in re.findall(r"([^,]+) (\d+)(?:, |$)", line):
            counts[what] = counts.get(what, 0) + int(number)
    return found


def add(total, counts):
    for name, each in counts.items():
        into = total.setdefault(name, {})
        for what, number in each.items():
            into[what] = into.get(what, 0) + number


def print_figures(title, counts):
    for name, each in sorted(counts.items()):
        print(f"{title}: {name}: " + ", ".join(f"{what} {number:,}" for what, number in each.items()))


def functions(kernel):
    """Every function of a kernel with its address.

    The size of the text section would not do: it is rounded up to 2 MiB.
    """
    return re.findall(r"^([0-9a-f]+) [tTwW] (\S+)$", (kernel / "System.map").read_text(), re.M)


def compare_text(off, unpatched):
    """P11: without CONFIG_ORBIT the patched kernel has the unpatched one's code.

    The same functions at the same addresses: so each has its size, too.
    """
    ours, theirs = functions(off), functions(unpatched)
    differ = sorted({name for _, name in set(ours) ^ set(theirs)})
    return vm.Case("P11", "text size without CONFIG_ORBIT",
                   "pass" if ours == theirs and ours else "fail",
                   f"text: {len(ours):,} functions without CONFIG_ORBIT, {len(theirs):,} unpatched, of which "
                   f"{len(differ):,} differ in address: {', '.join(differ[:10]) or 'none'}")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help="where make built the tests")
    parser.add_argument("--kernel", action="append", default=[], metavar="NAME=DIR", required=True,
                        help="vm, debug, kcsan: a kernel to run on")
    parser.add_argument("--off", type=Path, help="the kernel without CONFIG_ORBIT")
    parser.add_argument("--unpatched", type=Path, help="the kernel without the series")
    parser.add_argument("--minutes", type=float, default=30, help="of stress and fuzz together")
    parser.add_argument("--rounds", type=int, default=10000, help="of the census")
    parser.add_argument("--seed", type=int, default=0, help="of the first run; 0 for the time")
    options = parser.parse_args()
    kernels = [kernel.split("=", 1) for kernel in options.kernel]
    seed = options.seed or int(time.time()) % 10**6 * 100
    seconds = options.minutes * 60 / len(kernels) / 2
    results = options.build / "results"
    results.mkdir(parents=True, exist_ok=True)
    cases, total = [], {}

    for number, (name, kernel) in enumerate(kernels):
        machine = make_machine(Path(kernel))
        tests = long_tests(options.build, machine, seconds,
                           options.rounds // CENSUS_PART.get(name, 1), seed + 1000 * number)
        print(f"{name} ({machine.accel}, {len(tests)} runs, seeds from {seed + 1000 * number})",
              flush=True)
        report = machine.run(tests, progress=vm.print_progress)
        vm.write_json(results / f"stress-{name}.json", report)
        counts = {}
        for case in report.cases:
            add(counts, figures(case.output))
            case.program = f"{name}: {case.program}"
        print_figures(name, counts)
        if report.other_races:
            print(f"{name}: {len(report.other_races)} races that are none of ours are in "
                  f"{results / f'stress-{name}.json'}")
        add(total, counts)
        cases += report.cases
    if options.off and options.unpatched:
        cases.append(compare_text(options.off, options.unpatched))
        print(cases[-1].output)
    print()
    print_figures("all", total)
    return vm.conclude(cases)


if __name__ == "__main__":
    vm.run_main(main, FileNotFoundError, ValueError)
