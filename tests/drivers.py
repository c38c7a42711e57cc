#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tests of drivers, in a virtual machine with their devices behind an IOMMU.

Normally run by `make test-drivers`, which builds what this needs.  The kernel is that of the
distribution here, out of its package, with the portable backend; or, with --kernel, one with
the series and VFIO.  The devices are QEMU's: an NVMe controller with three namespaces, of blocks
of 512 and 4096 bytes, and one that is slow, has a sector that cannot be read, one that cannot
be written, and cannot be flushed.
BUILD/results/drivers.json keeps what was said.
"""

import argparse
import shutil
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "vm"))
sys.path.insert(0, str(HERE))
import all as everything  # noqa: E402
import distro  # noqa: E402
import run as vm  # noqa: E402

# What the guest needs of the distribution's kernel.
MODULES = ["virtio_pci", "virtio_console", "nvme", "vfio_pci", "vfio_iommu_type1"]

NAMESPACE_MIB = 64
SLOT = 0x10             # of the controller, on bus 0
SECONDS = 60            # for one program, before scaling
KILL_SECONDS = 1        # for each kill
# What goes wrong in the third namespace, and where, in sectors of 512 bytes.
FAULTS = (("read", ",inject-error.{n}.sector=2048"), ("write", ",inject-error.{n}.sector=3072"), ("flush", ""))
SLOW_TRANSFERS = 20     # a second, of the third namespace

# Their blocks are files of the host, sparse, for one boot.
NAMESPACES = (("plain", "format=raw,file={}", ""),
              ("large", "format=raw,file={}", ",logical_block_size=4096,physical_block_size=4096"),
              ("worn", "driver=blkdebug,image.driver=raw,image.file.driver=file,image.file.filename={},"
               f"throttling.iops-total={SLOW_TRANSFERS}"
               + "".join(f",inject-error.{n}.event=none,inject-error.{n}.errno=5,inject-error.{n}.iotype={kind}" + where.format(n=n)
                         for n, (kind, where) in enumerate(FAULTS)), ""))


def devices(work):
    """QEMU's arguments, with the namespaces' files in a directory."""
    arguments, spaces = [], []
    for number, (name, drive, options) in enumerate(NAMESPACES, 1):
        file = Path(work, name)
        with file.open("wb") as image:
            image.truncate(NAMESPACE_MIB << 20)
        arguments += ["-drive", f"if=none,id={name},{drive.format(file)}"]
        spaces += ["-device", f"nvme-ns,bus=nvme,drive={name},nsid={number}{options}"]
    return [*arguments, "-device", f"nvme,id=nvme,serial=orbit,max_ioqpairs=4,addr={SLOT:#x}", *spaces]


def fio():
    """The files of fio(1) for the guest, by their places there; none if it is not installed."""
    program = shutil.which("fio")
    if not program:
        print("drivers: fio is not installed: what it would verify is skipped", file=sys.stderr)
        return {}
    return {"usr/bin/fio": program, **{library: library for library in vm.shared_libraries(program)}}


def demo(kernel, environment, program, seconds):
    """Show what a program prints that has the device for itself."""
    with tempfile.TemporaryDirectory(prefix="orbit-drivers-") as work:
        machine = vm.Machine(kernel, iommu=True, devices=devices(work), append=environment)
        command = [str(program), f"0000:00:{SLOT:02x}.0", str(seconds), "--bind"]
        report = machine.run([vm.Test("demo", command, 3 * seconds + SECONDS)], live=vm.write_live)
    return 1 if report.count("fail") else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help="where make built the tests")
    parser.add_argument("--kernel", type=Path, help="one with the series and VFIO, instead of the distribution's")
    parser.add_argument("--kills", type=int, help="how often the driver is killed")
    parser.add_argument("--demo", type=int, metavar="SECONDS", help="show examples/kv-store instead, for three times as long")
    parser.add_argument("programs", nargs="*", help="only these of the tests, by name")
    options = parser.parse_args()
    kernel = options.kernel or distro.distribution_kernel("distribution-drivers", MODULES)
    environment = everything.ENVIRONMENT if options.kernel else "ORBIT_BACKEND=portable"
    seconds = SECONDS
    if options.kills:
        environment += f" ORBIT_NVME_KILLS={options.kills}"
        seconds += options.kills * KILL_SECONDS
    if options.demo:
        return demo(kernel, environment, options.build / "examples/kv-store", options.demo)
    cases = []
    with tempfile.TemporaryDirectory(prefix="orbit-drivers-") as work:
        tests = [vm.Test(path.name, [str(path)], seconds)
                 for path in everything.expect(cases, "programs of tests/drivers",
                                               everything.programs(options.build, "drivers"))
                 if not options.programs or path.name in options.programs]
        machine = vm.Machine(kernel, iommu=True, devices=devices(work), files=fio())
        cases += everything.run_guest("drivers", machine, tests, options.build / "results", environment)
    return vm.conclude(cases)


if __name__ == "__main__":
    vm.run_main(main, FileNotFoundError, ValueError)
