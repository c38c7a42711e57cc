#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The tests of drivers, in a virtual machine with their devices behind an IOMMU.

Normally run by `make test-drivers`, which builds what this needs.  The kernel is that of the
distribution here, out of its package, with the portable backend; or, with --kernel, one with
the series and what linux-patches/devices.config asks for.  The devices are QEMU's: an NVMe controller with three namespaces, of blocks
of 512 and 4096 bytes, and one that is slow, has a sector that cannot be read, one that cannot
be written, and cannot be flushed.  For programs whose names end with removal it is one in a slot.  Network cards are those of isolation/models, for programs
whose names begin with ixgbe: two in one guest, on one wire, of which the other end is Linux's.
Where the kernel has both of VFIO's interfaces there is a guest for each.
BUILD/results/drivers.json, slot.json, cards.json and mad.json keep what was said, of a kernel with the series in drivers-series.json and so on, by
one of the interfaces in drivers-series-group.json.
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
import models  # noqa: E402
import run as vm  # noqa: E402

# What the guest needs of the distribution's kernel.
MODULES = ["virtio_pci", "virtio_console", "nvme", "ixgbe", "af_packet", "vfio_pci", "vfio_iommu_type1"]

NAMESPACE_MIB = 64
SLOT = 0x10             # of the controller, on bus 0
SECONDS = 90            # for one program, before scaling
KILL_SECONDS = 1        # for each kill
MAD = "ixgbe_mad"
FOREIGN = ("-device", f"e1000e,addr={SLOT + 8:#x}")     # no driver of ours is for this
PACKETS_A_SECOND = 200  # each way, at least
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


def interfaces(kernel):
    """What the kernel has of VFIO's two interfaces, as $ORBIT_VFIO names them."""
    both = all(kernel.configured(option) for option in ("CONFIG_VFIO_DEVICE_CDEV", "CONFIG_VFIO_GROUP"))
    return ("iommufd", "group") if both else ("",)


def devices(work):
    """QEMU's arguments, with the namespaces' files in a directory."""
    arguments, spaces = [], []
    for number, (name, drive, options) in enumerate(NAMESPACES, 1):
        file = Path(work, name)
        with file.open("wb") as image:
            image.truncate(NAMESPACE_MIB << 20)
        arguments += ["-drive", f"if=none,id={name},{drive.format(file)}"]
        spaces += ["-device", f"nvme-ns,bus=nvme,drive={name},nsid={number}{options}"]
    # And another controller, with one vector of MSI-X, which is not enough for interrupts of queues.
    return [*arguments, "-device", f"nvme,id=nvme,serial=orbit,max_ioqpairs=4,addr={SLOT:#x}", *spaces,
            "-drive", f"if=none,id=few,file.driver=null-co,file.size={NAMESPACE_MIB << 20},file.read-zeroes=on",
            "-device", f"nvme,serial=few,drive=few,msix_qsize=1,addr={SLOT + 1:#x}", *FOREIGN]


def slot(work):
    """QEMU's arguments for a controller in a slot, from which the guest can have it taken: by QEMU's monitor, which is on a port
    of the guest's.  It is slow, so that something is under way when it goes."""
    file = Path(work, "disk")
    with file.open("wb") as image:
        image.truncate(NAMESPACE_MIB << 20)
    return ["-global", "ICH9-LPC.acpi-pci-hotplug-with-bridge-support=off",     # but by the slot's own registers
            "-device", f"pcie-root-port,id=bay,slot=1,addr={SLOT:#x}",
            "-object", f"throttle-group,id=slow,x-iops-total={SLOW_TRANSFERS}",
            "-blockdev", f"driver=throttle,node-name=disk,throttle-group=slow,file.driver=file,file.filename={file}",
            "-device", "nvme,id=nvme,bus=bay,serial=orbit,drive=disk", *models.monitor(work)]


def fio():
    """The files of fio(1) for the guest, by their places there; none if it is not installed."""
    program = shutil.which("fio")
    if not program:
        print("drivers: fio is not installed: what it would verify is skipped", file=sys.stderr)
        return {}
    return {"usr/bin/fio": program, **{library: library for library in vm.shared_libraries(program)}}


def cards(work, wires, more=(), backplane=False):
    """QEMU's arguments: a network card for each of these, which says on which wire it is; the first may be on a backplane."""
    arguments = []
    for number, wire in enumerate(wires):
        arguments += ["-netdev", f"hubport,id=end{number},hubid={wire}",
                      "-device", f"i82599,id=nic{number},netdev=end{number},addr={SLOT + number:#x},"
                      f"mac=02:00:00:00:00:{number + 1:02x},report={work}/mistakes,"
                      f"backplane={'on' if backplane and not number else 'off'}"]
    return [*arguments, *more]


def mistakes(work):
    """What drivers have done wrong that a card does not report, but a model does: a failure, for ours do nothing wrong."""
    said = Path(work, "mistakes")
    return [vm.Case("cards", "nothing a driver did was wrong", "fail", said.read_text())] if said.exists() and said.stat().st_size else []


def demo(kernel, environment, build, seconds):
    """Show what programs print that have the devices for themselves."""
    failed = 0
    for program, wires in (("kv-store", ()), ("packet-forwarder", (0, 1, 0, 1))):
        with tempfile.TemporaryDirectory(prefix="orbit-drivers-") as work:
            print(f"\n{program}:\n", flush=True)
            machine = vm.Machine(kernel, iommu=True, append=environment, devices=cards(work, wires) if wires else devices(work),
                                 models=models.build_models() if wires else [])
            addresses = [f"0000:00:{SLOT + number:02x}.0" for number in range(len(wires) or 1)]
            command = [str(build / "examples" / program), *addresses, str(seconds), "--bind"]
            report = machine.run([vm.Test("demo", command, 4 * seconds + SECONDS)], live=vm.write_live)
            failed += report.count("fail")
    return 1 if failed else 0


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help="where make built the tests")
    parser.add_argument("--kernel", type=Path, help="one with the series and VFIO, instead of the distribution's")
    parser.add_argument("--kills", type=int, help="how often the driver is killed")
    parser.add_argument("--packets", type=int, help="how many packets go each way through the driver of the 82599")
    parser.add_argument("--filter", help="only these of the tests in the programs, as GoogleTest has it")
    parser.add_argument("--demo", type=int, metavar="SECONDS", help="show examples/kv-store and packet-forwarder instead, each phase for so long")
    parser.add_argument("programs", nargs="*", help="only these of the tests, by name")
    options = parser.parse_args()
    kernel = options.kernel or distro.distribution_kernel("distribution-drivers", MODULES)
    environment = everything.ENVIRONMENT if options.kernel else "ORBIT_BACKEND=portable"
    seconds = SECONDS
    if options.kills:
        environment += f" ORBIT_NVME_KILLS={options.kills} ORBIT_IXGBE_KILLS={options.kills}"
        seconds += options.kills * KILL_SECONDS
    if options.packets:
        environment += f" ORBIT_IXGBE_PACKETS={options.packets}"
        seconds += options.packets // PACKETS_A_SECOND
    if options.filter:
        environment += f" GTEST_FILTER={options.filter}"
    if options.demo:
        return demo(kernel, environment, options.build, options.demo)
    cases, suffix = [], "-series" if options.kernel else ""
    tests = [vm.Test(path.name, [str(path)], seconds)
             for path in everything.expect(cases, "programs of tests/drivers",
                                           everything.programs(options.build, "drivers"))
             if not options.programs or path.name in options.programs]
    on_cards = [test for test in tests if test.name.startswith("ixgbe")]
    in_a_slot = [test for test in tests if test.name.endswith("removal")]
    others = [test for test in tests if test not in on_cards + in_a_slot]
    with tempfile.TemporaryDirectory(prefix="orbit-drivers-") as work:
        for title, programs, made in (("drivers", others, devices), ("slot", in_a_slot, slot)):
            for interface in interfaces(vm.Machine(kernel)) if programs else ():
                machine = vm.Machine(kernel, iommu=True, devices=made(work), files=fio())
                name, way = (f"-{interface}", f" ORBIT_VFIO={interface}") if interface else ("", "")
                cases += everything.run_guest(f"{title}{suffix}{name}", machine, programs, options.build / "results", environment + way)
        if on_cards:
            # A driver that is out of its mind makes mistakes: it has a machine of its own, and there the card is on a backplane.
            for name, tests, wrong in (("cards", [test for test in on_cards if test.name != MAD], mistakes),
                                       ("mad", [test for test in on_cards if test.name == MAD], None)):
                if tests:
                    devices_of = cards(work, (0, 0), [*FOREIGN, *models.monitor(work)], backplane=not wrong)
                    machine = vm.Machine(kernel, iommu=True, devices=devices_of, models=models.build_models())
                    cases += everything.run_guest(f"{name}{suffix}", machine, tests, options.build / "results", environment)
                    cases += wrong(work) if wrong else []
    return vm.conclude(cases)


if __name__ == "__main__":
    vm.run_main(main, FileNotFoundError, ValueError)
