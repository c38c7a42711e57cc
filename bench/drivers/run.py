#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Count what drivers cost, in a guest with their devices; normally run by `make bench-drivers`.

Prints each figure, in instructions, and its ratio to that of the driver linked into its program; BUILD/bench/drivers keeps them.
"""

import argparse
import json
import re
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "tests"), str(HERE.parents[1] / "tests/vm")]
import drivers  # noqa: E402
import models  # noqa: E402
import run as vm  # noqa: E402
sys.path.append(str(HERE))
import testpmd  # noqa: E402

SECONDS = 900           # for one program, before scaling


# Two cards on one wire, that do within the write of a register what it asks for.
def cards(work):
    return [f"{argument},immediate=on" if argument.startswith("i82599") else argument for argument in drivers.cards(work, (0, 0))]


# Each program with the devices that it drives, and what its figures are compared with, of the same batch.
PROGRAMS = {"nvme": (drivers.devices, "nvme/linked in"), "ixgbe": (cards, "ixgbe/linked in")}


def count(build, kernel, program):
    """The figures of one program, by name."""
    devices, _ = PROGRAMS[program]
    tests = [vm.Test(program, [str(build / "bench/drivers" / program)], SECONDS)]
    peer = program == "ixgbe" and testpmd.installed()
    if peer:
        tests.append(testpmd.test(32))
    elif program == "ixgbe":
        print("bench: testpmd is not installed (Debian: dpdk): what it costs is not counted", file=sys.stderr)
    with tempfile.TemporaryDirectory(prefix="orbit-drivers-") as work:
        machine = vm.Machine(kernel, icount=True, iommu=True, memory="2G", devices=devices(work), append="ORBIT_BACKEND=kernel",
                             files=testpmd.files()[1] if peer else {}, models=models.build_models() if program == "ixgbe" else [])
        report = machine.run(tests)
        wrong = drivers.mistakes(work)
    for case in [*report.cases, *wrong]:
        if case.outcome != "pass":
            raise ValueError(f"{case.title}: {case.output}")
    found = {name: float(number) for case in report.cases
             for name, number in re.findall(r"^figure (.+) (\S+)$", case.output, re.M)}
    if peer:
        found |= {f"ixgbe/testpmd/{case.program.split()[1]}": testpmd.instructions(case.output)
                  for case in report.cases if case.program.startswith("testpmd")}
    if not found:
        raise ValueError(f"{program} printed no figure")
    return found


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("programs", nargs="*", help=" ".join(PROGRAMS))
    parser.add_argument("--build", type=Path, required=True, help="where make built the programs")
    parser.add_argument("--kernel", type=Path, required=True, help="a kernel with the series and VFIO")
    options = parser.parse_args()
    out = options.build / "bench/drivers"
    for program in options.programs or PROGRAMS:
        figures = count(options.build, options.kernel, program)
        print(f"\n{program}: instructions for each, and beside {PROGRAMS[program][1]}")
        for name, number in figures.items():
            reference = figures[f"{PROGRAMS[program][1]}/{name.rsplit('/', 1)[1]}"]
            print(f"  {name:<60}{number:>10,.0f}{number / reference:>8.2f}")
        (out / f"{program}.json").write_text(json.dumps(figures, indent=1) + "\n")
    return 0


if __name__ == "__main__":
    vm.run_main(main, FileNotFoundError, ValueError)
