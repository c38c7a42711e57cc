#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tests of the devices that isolation/models gives QEMU: they report mistakes, and other people's drivers run on them.

Normally run by `make test-models`, which builds what this needs.  The kernel is that of the distribution here, out of
its package, with its drivers as modules; and then, with --kernel, one that has them built in.  The devices are two models of the 82599, back to back;
for that kernel one of them is on a backplane.  The guest has a port
to the machine's monitor, with which a test makes something go wrong, and asks what the driver has done wrong.
BUILD/results/models.json, and models-series.json of that kernel, keep what was said.
"""

import argparse
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "vm"))
sys.path.insert(0, str(HERE))
import all as everything  # noqa: E402
import distro  # noqa: E402
import models_mistakes  # noqa: E402
import run as vm  # noqa: E402

MODULES = ["virtio_pci", "virtio_console", "ixgbe"]
SLOT = 0x10             # of the first one, on bus 0
SECONDS = 180           # for one program, before scaling
RESET_SECONDS = 3       # for each reset under traffic


def build_models():
    """The shared objects with the devices, built if they are not there."""
    done = subprocess.run([HERE.parent / "isolation/models/build"], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise FileNotFoundError("the models cannot be built")
    return [Path(line) for line in done.stdout.splitlines()]


def devices(work, backplane):
    """QEMU's arguments: two cards on one wire, one of which may be on a backplane, and the monitor's port."""
    arguments = []
    for number in range(2):
        arguments += ["-netdev", f"hubport,id=wire{number},hubid=0",
                      "-device", f"i82599,id=nic{number},netdev=wire{number},addr={SLOT + number:#x},"
                      f"mac=02:00:00:00:00:{number + 1:02x},report={work}/mistakes,backplane={'on' if backplane and number else 'off'}"]
    return [*arguments, *monitor(work)]


def monitor(work):
    """And those that give the guest a port to the machine's monitor."""
    monitor = f"socket,id={{}},path={work}/monitor"
    return ["-chardev", monitor.format("inside") + ",server=on,wait=off", "-mon", "chardev=inside,mode=control",
            "-chardev", monitor.format("outside"), "-device", "virtio-serial-pci,id=ports",
            "-device", "virtserialport,bus=ports.0,chardev=outside,name=monitor"]


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help="where make built the tests")
    parser.add_argument("--kernel", type=Path, help="one that has the series, and Linux's driver built in: the tests run on it, too")
    parser.add_argument("--resets", type=int, help="how often the device is reset under traffic")
    parser.add_argument("--filter", help="only these of the tests, as GoogleTest has it")
    options = parser.parse_args()
    kernels = {"models": distro.distribution_kernel("distribution-models", MODULES)}
    if options.kernel:
        kernels["models-series"] = options.kernel
    environment, seconds = "ORBIT_BACKEND=portable", SECONDS
    if options.resets:
        environment += f" ORBIT_IXGBE_RESETS={options.resets}"
        seconds += options.resets * RESET_SECONDS
    if options.filter:
        environment += f" GTEST_FILTER={options.filter}"
    cases = models_mistakes.run(build_models())
    tests = [vm.Test(path.name, [str(path)], seconds)
             for path in everything.expect(cases, "programs of tests/models", everything.programs(options.build, "models"))]
    for name, kernel in kernels.items():
        with tempfile.TemporaryDirectory(prefix="orbit-models-") as work:
            machine = vm.Machine(kernel, models=build_models(), devices=devices(work, name != "models"))
            found = everything.run_guest(name, machine, tests, options.build / "results", environment)
            mistakes = Path(work, "mistakes")
            if mistakes.exists() and any(case.outcome == "fail" for case in found):
                print("what drivers have done wrong, at last:", *mistakes.read_text().splitlines()[-20:], sep="\n  ")
            cases += found
    return vm.conclude(cases)


if __name__ == "__main__":
    vm.run_main(main, FileNotFoundError, ValueError)
