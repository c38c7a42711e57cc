#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""The promises' tests on a kernel as distributions build it, with all that it has turned on.

Normally run by `make test-distro`, which builds what this needs.  The kernel is that of the
distribution here, out of its package, with the portable backend; or, with --kernel, one with
the series, its selftests and the kernel backend.  First a program in the guest tells whether
all that this is for is on.  A test that is skipped there without being expected to has
failed.  BUILD/results/distro.json keeps what was said.
"""

import argparse
import hashlib
import lzma
import re
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE / "vm"))
sys.path.insert(0, str(HERE))
import all as everything  # noqa: E402
import run as vm  # noqa: E402

PACKAGE = "linux-image-amd64"
# What the guest needs of it, besides what these need; what is not there is built in.
MODULES = ["virtio_pci", "virtio_console", "brd", "hwpoison_inject"]
MEMORY = "2G"           # of two nodes
# For the kernel, and the last for the guest's first program, which turns on what has no parameter.
APPEND = "numa=fake=2 movablecore=256M ORBIT_GUEST=distro"
PATIENCE = 2            # how much longer a program may take, with memory that goes offline and on again

# What is on: the condition, as a shell has it, and what it means.
FEATURES = r"""
[ -d /sys/devices/system/node/node1 ]                                   two nodes
[ $(cat /proc/sys/kernel/numa_balancing) = 1 ]                          NUMA balancing
grep -q '\[always\]' /sys/kernel/mm/transparent_hugepage/enabled        huge pages
! grep -L '\[always\]' /sys/kernel/mm/transparent_hugepage/hugepages-*/enabled | grep /sys    huge pages of other sizes
grep -q '\[always\]' /sys/kernel/mm/transparent_hugepage/shmem_enabled  huge pages of shared memory
[ $(cat /sys/kernel/mm/ksm/run) = 1 ]                                   KSM
[ $(cat /sys/kernel/mm/lru_gen/enabled) != 0x0000 ]                     the multi-generational LRU
[ -w /proc/sys/vm/compact_memory ]                                      compaction
[ $(grep -c . /proc/swaps) -gt 1 ]                                      swap
[ $(cat /sys/module/zswap/parameters/enabled) = Y ]                     zswap
[ -e /sys/devices/system/memory/memory0/state ]                         memory that goes offline
[ -w /sys/kernel/debug/hwpoison/corrupt-pfn ]                           pages that break
grep -q 'io.*memory.*hugetlb.*pids' /sys/fs/cgroup/cgroup.subtree_control    controllers of control groups
grep -q 'landlock.*yama.*apparmor' /sys/kernel/security/lsm             landlock, Yama, AppArmor
[ $(cat /proc/sys/kernel/yama/ptrace_scope) = 1 ]                       Yama lets processes trace children only
[ $(cat /sys/module/apparmor/parameters/enabled) = Y ]                  AppArmor
grep -q '(full)' /sys/kernel/debug/sched/preempt                        full preemption
! grep -q '^ffffffff81000000 T _text$' /proc/kallsyms                   an address that is random
"""

# Why a test may be skipped: the program, or "" for any, and a part of the reason that it gives.
MAY_SKIP = [
    ("inject_test", ""),    # distributions have no fault injection; the debug kernel has
    ("", "portable: "),     # what is about system calls, or not promised there
    ("orbitctl", "orbitctl lists the kernel's orbits"),
    # What moves away is not there to be looked at.
    ("modes_test", "values do not stay in main's pages"),
    ("modes_test", "main's own content moves away"),
]


def features():
    """A program for the guest, which prints a line of TAP for each feature."""
    lines = [re.split(r"\s{2,}", line, maxsplit=1) for line in FEATURES.strip().splitlines()]
    script = [f"echo 1..{len(lines)}"]
    script += [f"{condition} && echo 'ok {name}' || echo 'not ok {name}'" for condition, name in lines]
    return vm.Test("features", ["sh", "-c", "; ".join(script)])


def judge_skipped(cases):
    """Turns what was skipped into failed cases, where it may not be."""
    for case in cases:
        name = case.program.split(": ")[-1]
        if case.outcome == "skip" and not any(
                program in ("", name) and reason in case.output for program, reason in MAY_SKIP):
            case.outcome, case.output = "fail", f"skipped: {case.output}"
    return cases


def run(*command):
    done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True)
    if done.returncode:
        raise FileNotFoundError(f"{' '.join(map(str, command))}: {done.stdout.strip()}")
    return done.stdout


def modules(directory, names=None):
    """{name: content} of MODULES, or others, and of what they need, in the order of loading."""
    files = {re.sub(r"\.ko(\.xz)?$", "", file.name).replace("-", "_"): file for file in directory.rglob("*.ko*")}
    found = {}

    def add(name):
        if name in found or name not in files:
            return
        content = files[name].read_bytes()
        if files[name].suffix == ".xz":
            content = lzma.decompress(content)
        needed = re.search(rb"\0depends=([^\0]*)\0", content)
        for other in needed[1].decode().split(",") if needed else []:
            add(other.replace("-", "_"))
        found[name] = content

    for name in names or MODULES:
        add(name)
    return found


def unpack(package, directory, names):
    """Put what a guest needs of a kernel's package in a directory; nothing is installed."""
    with tempfile.TemporaryDirectory(prefix="orbit-kernel-") as work:
        run("env", "-C", work, "apt-get", "-q", "download", package)
        run("dpkg-deb", "-x", next(Path(work).glob("*.deb")), work)
        new = Path(work, "new")
        (new / "modules").mkdir(parents=True)
        (new / "bzImage").write_bytes(next(Path(work).glob("boot/vmlinuz-*")).read_bytes())
        (new / ".config").write_bytes(next(Path(work).glob("boot/config-*")).read_bytes())
        for number, (name, content) in enumerate(modules(Path(work), names).items()):
            (new / f"modules/{number:02}-{name}.ko").write_bytes(content)
        directory.parent.mkdir(parents=True, exist_ok=True)
        run("mv", "-T", new, directory)


def distribution_kernel(where="distribution", names=None):
    """Where in the cache the kernel of this distribution is, with these modules; fetched if it is not there."""
    found = re.search(r"Depends: (linux-image-\S+)", run("apt-cache", "depends", PACKAGE))
    if not found:
        raise FileNotFoundError(f"{PACKAGE} depends on no kernel")
    # With other modules it is another one.
    chosen = hashlib.sha256(" ".join(names or MODULES).encode()).hexdigest()[:8]
    directory = vm.CACHE / where / f"{found[1]}-{chosen}"
    if not directory.exists():
        print(f"distro: fetching {found[1]}", flush=True)
        unpack(found[1], directory, names)
    return directory


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help="where make built the tests")
    parser.add_argument("--kernel", type=Path, help="one with the series, instead of the distribution's")
    parser.add_argument("programs", nargs="*", help="only these of the tests, by name")
    options = parser.parse_args()
    cases = []
    machine = vm.Machine(options.kernel or distribution_kernel(), memory=MEMORY, append=APPEND)
    if options.kernel:
        tests, environment = everything.guest_tests(cases, options.build, machine.kernel), everything.ENVIRONMENT
    else:
        tests = [vm.Test(path.name, [str(path)], everything.LONG_SECONDS.get(path.name, everything.GUEST_SECONDS))
                 for kind in ("conformance", "compat")
                 for path in everything.expect(cases, f"programs of tests/{kind}",
                                               everything.programs(options.build, kind))]
        environment = everything.ENVIRONMENT.replace("=kernel", "=portable")
    for test in tests:
        test.seconds *= PATIENCE
    cases += everything.run_guest("distro", machine, [features()] + [
        test for test in tests if not options.programs or test.name in options.programs],
        options.build / "results", environment)
    print()
    return vm.conclude(judge_skipped(cases))


if __name__ == "__main__":
    vm.run_main(main, FileNotFoundError, ValueError)
