#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Run programs on a kernel in a virtual machine, and tell what they say.

  run.py test --kernel DIR [--json FILE] NAME=COMMAND...   run tests, judge each test case
  run.py exec --kernel DIR -- COMMAND...                   run one command, live, keep its status
  run.py boot --kernel DIR                                 an interactive shell

A kernel is a directory as linux-patches/build makes it: bzImage, .config.  One that was built
with modules has those that the guest needs in modules/, named in the order of loading.

The guest is hermetic: its initramfs holds a static busybox, the programs, the shared
libraries that these need, and the files given with --file, nothing else.  With
`--root host` it is instead the host's own root, read-only over 9p, with an overlay in the
guest's memory that takes all writes.

The console goes to one file and what the tests print goes, framed by this program's own
markers, through a virtio-serial port to another, so that neither can be taken for the other.
Everything that is not seen to pass has failed: a missing exit status, fewer results than
announced, a deadline, a machine that died, a kernel that complained.

$ORBIT_VM_ACCEL=kvm|tcg chooses the accelerator.  Without it KVM is used if a guest with this
kernel gets through a boot with it in a few seconds; a /dev/kvm alone proves nothing.
"""

import argparse
import contextlib
import dataclasses
import functools
import hashlib
import json
import os
import re
import secrets
import shlex
import shutil
import stat
import subprocess
import sys
import tempfile
import time
from pathlib import Path

QEMU = "qemu-system-x86_64"
QBOOT = Path("/usr/share/qemu/qboot.rom")       # boots a kernel in a fraction of SeaBIOS's time
BUSYBOX = "busybox"
CACHE = Path(os.environ.get("ORBIT_CACHE") or
             Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "orbit").absolute()

PROBE_SECONDS = 6       # in which a guest under KVM has long booted
BOOT_SECONDS = 30       # from power-on to the first test, on the bare machine
TEST_SECONDS = 60       # for one program, likewise
TCG_SCALE = 4           # how much slower emulation may be
DEBUG_SCALE = 4         # how much slower a kernel with KASAN and lockdep, or KCSAN, may be

# Guest time counts instructions: one a nanosecond.  The same program then takes the same
# time in every run.
ICOUNT = ["-icount", "shift=0,sleep=off", "-rtc", "base=2024-01-01T00:00:00,clock=vm", "-seed", "7"]


# --- what the guest is made of ---------------------------------------------------------

class Initramfs:
    """A cpio archive in the "newc" format, which the kernel unpacks into its first root."""

    def __init__(self):
        self._entries = {}      # name -> (mode, content, device numbers)

    def add(self, name, content=b"", mode=0o755, kind=stat.S_IFREG, device=(0, 0)):
        """Add a file, or what `kind` says, and the directories above it."""
        name = name.strip("/")
        parent = os.path.dirname(name)
        if parent and parent not in self._entries:
            self.add(parent, kind=stat.S_IFDIR)
        self._entries[name] = (kind | mode, content, device)

    def add_program(self, path, name):
        """Add an executable, and the shared libraries that it needs at the paths it expects."""
        self.add(name, Path(path).read_bytes())
        for library in shared_libraries(path):
            self.add(library, Path(library).read_bytes())

    def __bytes__(self):
        parts = []
        entries = [*self._entries.items(), ("TRAILER!!!", (0, b"", (0, 0)))]
        for number, (name, (mode, content, device)) in enumerate(entries, 1):
            path = name.encode() + b"\0"
            fields = (number, mode, 0, 0, 1, 0, len(content), 0, 0, *device, len(path), 0)
            header = b"070701" + b"".join(b"%08X" % field for field in fields)
            parts += [header, path, bytes(-(len(header) + len(path)) % 4),
                      content, bytes(-len(content) % 4)]
        return b"".join(parts)


@functools.cache
def shared_libraries(path):
    """The dynamic linker and libraries that an executable needs; none if it is static."""
    done = subprocess.run(["ldd", path], capture_output=True, text=True)
    if missing := re.search(r"(\S+) => not found", done.stdout):
        raise FileNotFoundError(f"{path} needs {missing[1]}, which is not installed")
    return re.findall(r"(?:=> |^\s+)(/\S+) \(0x", done.stdout, re.M)


# PID 1 of the guest.  /run/orbit/conf sets mode, root and nonce; /run/orbit/tests calls run.
INIT = r"""#!/run/orbit/busybox sh
here=/run/orbit
. $here/conf
if [ "$root" = host ] && [ "$1" != stage2 ]; then
    $here/busybox mkdir -p /lower /upper /new
    # The host is not expected to change its programs meanwhile, so they may be cached.
    $here/busybox mount -t 9p -o ro,trans=virtio,version=9p2000.L,msize=262144,cache=loose \
        root /lower
    $here/busybox mount -t tmpfs -o size=50% tmpfs /upper
    $here/busybox mkdir /upper/data /upper/work
    $here/busybox mount -t overlay -o lowerdir=/lower,upperdir=/upper/data,workdir=/upper/work \
        overlay /new
    $here/busybox mount -t tmpfs tmpfs /new/run
    $here/busybox cp -r $here /new/run/
    exec $here/busybox switch_root /new $here/busybox sh $here/init stage2
fi
# Busybox links to what /proc says it is, and the host's /proc would say that it is QEMU.
$here/busybox mkdir -p /proc $here/bin
$here/busybox mount -t proc proc /proc
$here/busybox --install -s $here/bin
export PATH=$here/bin HOME=/root
if [ "$root" != host ]; then
    mkdir -p /sys /dev /tmp /root
    chmod 1777 /tmp
    ln -s $here/bin /bin
fi
for module in $here/modules/*.ko; do
    [ -e "$module" ] && insmod $module
done
mount -t sysfs sysfs /sys
mount -t devtmpfs devtmpfs /dev
mkdir -p /dev/pts /dev/shm
mount -t devpts devpts /dev/pts
mount -t tmpfs tmpfs /dev/shm
mount -t debugfs debugfs /sys/kernel/debug
mount -t tracefs tracefs /sys/kernel/tracing
mount -t cgroup2 cgroup2 /sys/fs/cgroup
[ "$root" = host ] || mount -t tmpfs -o mode=1777 tmpfs /tmp
for controller in memory pids cpu; do
    echo +$controller >/sys/fs/cgroup/cgroup.subtree_control
done 2>/dev/null
if [ "$ORBIT_GUEST" = distro ]; then
    # What services of distributions turn on, and what the kernel of one has that another has not.
    mount -t securityfs securityfs /sys/kernel/security
    for controller in $(cat /sys/fs/cgroup/cgroup.controllers); do
        echo +$controller >/sys/fs/cgroup/cgroup.subtree_control
    done
    for file in /sys/kernel/mm/transparent_hugepage/*enabled /sys/kernel/mm/transparent_hugepage/*/*enabled; do
        echo always >$file
    done 2>/dev/null
    echo 1 >/sys/kernel/mm/ksm/run
    echo y >/sys/kernel/mm/lru_gen/enabled
    echo Y >/sys/module/zswap/parameters/enabled
    echo 1 >/proc/sys/kernel/yama/ptrace_scope
    echo full >/sys/kernel/debug/sched/preempt
    mkswap /dev/ram0 >/dev/null && swapon /dev/ram0
fi
ip link set lo up
hostname orbit
# This script uses busybox; programs find the guest's own commands first.
paths=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin:$here/bin

if [ "$mode" = shell ]; then
    cd "$chdir"
    [ -x /bin/bash ] && shell=/bin/bash || shell=/bin/sh
    stty -F /dev/ttyS0 sane rows ${rows:-24} cols ${columns:-80}
    export TERM
    PATH=$paths setsid cttyhack $shell
    poweroff -f
fi

for port in /sys/class/virtio-ports/*; do
    [ "$(cat $port/name)" = orbit ] && exec 3<>/dev/${port##*/}
done
done=0
mark() { printf '\n@@%s %s\n' "$nonce" "$*" >&3; }
# run NAME SECONDS COMMAND...: one test; what it leaves running is killed.
run() {
    name=$1 limit=$2
    shift 2
    mark begin "$name"
    read -r begin rest </proc/uptime
    PATH=$paths timeout -s KILL "$limit" "$@" </dev/null >&3 2>&1 3>&-
    status=$?
    read -r end rest </proc/uptime
    # The clock of this side: the other may have read the first marker late.
    [ $((${end%.*} - ${begin%.*})) -ge "$limit" ] && mark late "$name"
    mark end "$status" "$name"
    kill -KILL -1
    done=$((done + 1))
}
# What nothing points to any more.  An object counts only 5 s after it was allocated, and
# only if two scans agree on it.
kmemleak() {
    sleep 6
    echo scan >/sys/kernel/debug/kmemleak || return
    sleep 1
    echo scan >/sys/kernel/debug/kmemleak || return
    cat /sys/kernel/debug/kmemleak >/tmp/kmemleak || return
    cat /tmp/kmemleak
    [ ! -s /tmp/kmemleak ]
}
check_leaks() {
    mark begin kmemleak
    kmemleak >&3 2>&1
    mark end "$?" kmemleak
    done=$((done + 1))
}
cd /tmp
. $here/tests 2>/dev/console
mark plan "$done"
poweroff -f
"""


@dataclasses.dataclass
class Test:
    """A program to run in the guest: one to very many test cases."""
    name: str
    argv: list
    seconds: float = TEST_SECONDS       # on the bare machine; scaled for slower ones


@dataclasses.dataclass
class Case:
    """What became of one test case."""
    program: str
    name: str
    outcome: str        # "pass", "fail" or "skip"
    output: str = ""

    @property
    def title(self):
        return f"{self.program}: {self.name}" if self.name else self.program


# --- the machine -----------------------------------------------------------------------

@dataclasses.dataclass
class Machine:
    """How to boot a guest.  One object can boot any number of them."""
    kernel: Path
    accel: str = ""             # "kvm", "tcg", or "" to find out
    icount: bool = False        # count instructions: one processor, emulated
    cpus: int = 2
    memory: str = "1G"
    root: str = "initramfs"     # or "host"
    files: dict = dataclasses.field(default_factory=dict)   # guest path -> host path
    append: str = ""            # more of the kernel's command line
    cpu: str = ""               # QEMU's model, where the usual one is not wanted
    iommu: bool = False         # an IOMMU that remaps interrupts, for devices that programs drive
    devices: list = dataclasses.field(default_factory=list)     # more of QEMU's arguments
    models: list = dataclasses.field(default_factory=list)      # shared objects with devices that QEMU has not itself

    def __post_init__(self):
        self.kernel = Path(self.kernel)
        if not (self.kernel / "bzImage").exists():
            raise FileNotFoundError(f"there is no kernel in {self.kernel}")
        if not self.accel:
            self.accel = "tcg" if self.icount else choose_accelerator(self.kernel)
        if self.icount:
            if self.accel != "tcg":
                raise ValueError("only tcg can count instructions")
            self.cpus = 1

    def configured(self, symbol):
        """Does the kernel have this option?"""
        config = self.kernel / ".config"
        return config.exists() and f"\n{symbol}=y\n" in config.read_text()

    @property
    def scale(self):
        """How many times slower than the bare machine this one may be."""
        return ((TCG_SCALE if self.accel == "tcg" else 1)
                * (DEBUG_SCALE if self.configured("CONFIG_KASAN") or self.configured("CONFIG_KCSAN")
                   else 1))

    def initramfs(self, tests=(), script="", **conf):
        """The guest's first root: `tests`' programs and `script`, which runs them."""
        image = Initramfs()
        image.add("dev/console", mode=0o600, kind=stat.S_IFCHR, device=(5, 1))
        busybox = shutil.which(BUSYBOX)
        if not busybox or shared_libraries(busybox):
            raise FileNotFoundError("a static busybox is needed: apt-get install busybox-static")
        image.add("run/orbit/busybox", Path(busybox).read_bytes())
        conf = {"root": self.root, **conf}
        lines = [f"{name}={shlex.quote(str(value))}\n" for name, value in conf.items()]
        image.add("run/orbit/conf", "".join(lines).encode())
        image.add("run/orbit/tests", script.encode())
        image.add("run/orbit/init", INIT.encode())
        image.add("init", INIT.encode())
        for module in sorted((self.kernel / "modules").glob("*.ko")):
            image.add(f"run/orbit/modules/{module.name}", module.read_bytes())
        if self.root != "host":
            for test in tests:
                if guest_program(test.argv[0]) != test.argv[0]:
                    image.add_program(test.argv[0], guest_program(test.argv[0]))
            for name, path in self.files.items():
                image.add(name, Path(path).read_bytes(), Path(path).stat().st_mode & 0o777)
        return bytes(image)

    def command(self, initrd, serial, results=None):
        """QEMU's command line."""
        # On a busy host an emulated timer may miss the moment in which the kernel looks for it.
        append = f"console=ttyS0 panic=-1 no_timer_check {self.append}".strip()
        # Nested under some hypervisors, QEMU dies of a register that it may read and not write.
        cpu = self.cpu or ("host,arch-capabilities=off" if self.accel == "kvm" else "max")
        # The IOMMU comes before the devices that are behind it.
        iommu = ["-device", "intel-iommu,intremap=on"] if self.iommu else []
        if self.iommu:
            append += " intel_iommu=on"
        board = "q35,kernel-irqchip=split" if self.iommu else "q35"
        qemu = ["env", f"LD_PRELOAD={':'.join(map(str, self.models))}", QEMU] if self.models else [QEMU]
        command = [*qemu, "-M", board, "-accel", self.accel, "-nodefaults", "-no-user-config",
                   "-display", "none", "-no-reboot", "-m", self.memory, "-smp", str(self.cpus),
                   "-cpu", cpu, "-serial", serial, *iommu, *self.devices]
        if QBOOT.exists():
            command += ["-bios", str(QBOOT)]
        if results:
            # A write to the port is carried out at once, on the guest's own thread: when it was
            # left to another one, the guest's counted time depended on who won.
            command += ["-device", "virtio-serial-pci,ioeventfd=off",
                        "-chardev", f"file,id=results,path={results}",
                        "-device", "virtserialport,chardev=results,name=orbit"]
        if self.root == "host":
            command += ["-fsdev", "local,id=root,path=/,security_model=none,readonly=on,"
                        "multidevs=remap", "-device", "virtio-9p-pci,fsdev=root,mount_tag=root"]
        if self.icount:
            command += ICOUNT
            append += " nokaslr norandmaps"
        return [*command, "-kernel", str(self.kernel / "bzImage"), "-initrd", str(initrd),
                "-append", append]

    def shell(self, chdir="/root"):
        """An interactive shell on the serial console; returns when the guest is off."""
        size = shutil.get_terminal_size()
        with tempfile.TemporaryDirectory(prefix="orbit-vm-") as work:
            initrd = Path(work) / "initrd"
            initrd.write_bytes(self.initramfs(mode="shell", chdir=chdir, rows=size.lines,
                                              columns=size.columns,
                                              TERM=os.environ.get("TERM", "linux")))
            return subprocess.call(self.command(initrd, "mon:stdio"))

    def run(self, tests, live=None, deadline=None, progress=None):
        """Boot a guest, run the tests, and judge what came of it.

        live: called with bytes as the tests print them.
        deadline: seconds of the host from power-on to the end, instead of those of the tests.
        progress: called with each Test as it ends, its cases, and the seconds that it took.
        """
        with tempfile.TemporaryDirectory(prefix="orbit-vm-") as work:
            guest = Guest(self, tests, Path(work), live, deadline, progress)
            guest.run()
            return guest.report()


class Guest:
    """One boot: watches the machine and its results until the end or a deadline."""

    def __init__(self, machine, tests, work, live=None, deadline=None, progress=None):
        self.machine, self.work = machine, work
        self.live, self.progress = live, progress
        self.tests = list(tests)
        if machine.configured("CONFIG_DEBUG_KMEMLEAK") and tests:
            self.tests.append(Test("kmemleak", ["check_leaks"]))
        self.total_deadline = deadline
        self.nonce = secrets.token_hex(8) if not machine.icount else "0" * 16
        self.stream = Stream(self.nonce)
        self.running = None         # index of the test that has begun and not ended
        self.overdue = False        # did the guest's watch end it?
        self.done = 0               # tests that ended
        self.output = bytearray()
        self.cases = []
        self.plan = None
        self.trouble = ""           # why the machine was stopped, if it was
        self.seconds = 0.0

    def limit(self, test):
        return test.seconds * self.machine.scale

    def script(self):
        lines = []
        for test in self.tests:
            if test.argv == ["check_leaks"]:
                lines.append("check_leaks\n")
                continue
            program = (guest_program(test.argv[0]) if self.machine.root != "host" else
                       shutil.which(test.argv[0]) or test.argv[0])
            # In the counted mode the guest's seconds are not ours; the watch is on this side.
            limit = 10**6 if self.machine.icount else int(self.limit(test))
            lines.append(shlex.join(["run", test.name, str(limit), program, *test.argv[1:]]) + "\n")
        return "".join(lines)

    def run(self):
        machine = self.machine
        initrd, console, results = (self.work / name for name in ("initrd", "console", "results"))
        initrd.write_bytes(machine.initramfs(self.tests, self.script(), mode="tests",
                                             nonce=self.nonce))
        results.touch()
        command = machine.command(initrd, f"file:{console}", results)
        begin = self.since = time.monotonic()
        with results.open("rb") as port, (self.work / "qemu").open("w+") as errors:
            # Whatever ends this process ends the guest.
            command = ["setpriv", "--pdeathsig", "KILL", *command]
            qemu = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=errors, stderr=errors)
            try:
                while True:
                    ended = qemu.poll() is not None     # before the read: nothing comes after it
                    self.receive(port.read())
                    if ended:
                        break
                    if self.late(time.monotonic(), begin):
                        self.trouble = "the deadline passed: the machine was stopped"
                        break
                    time.sleep(0.02)
            finally:
                if qemu.poll() is None:
                    qemu.kill()
                qemu.wait()
            errors.seek(0)
            said = errors.read().strip()
        if qemu.returncode and not self.trouble:
            self.trouble = f"qemu ended with status {qemu.returncode}: {said}"
        self.seconds = time.monotonic() - begin
        self.console = console.read_text(errors="replace") if console.exists() else ""

    def late(self, now, begin):
        if self.total_deadline:
            return now - begin > self.total_deadline
        allowed = BOOT_SECONDS * self.machine.scale
        if self.running is not None:    # the guest's own watch gets the first chance
            allowed += self.limit(self.tests[self.running])
        return now - self.since > allowed

    def receive(self, data):
        """Take what the port had: output of the running test, and our markers."""
        for kind, value in self.stream.feed(data):
            if kind == "output":
                if self.running is not None:
                    self.output += value
                if self.live:
                    self.live(value)
                continue
            if kind == "late":
                self.overdue = True     # the marker of its end follows
                continue
            self.since, before = time.monotonic(), self.since
            if kind == "begin" and self.done < len(self.tests):
                self.running, self.overdue = self.done, False
                self.output.clear()
            elif kind == "end" and self.running is not None:
                test = self.tests[self.running]
                status = int(value.split()[0])
                self.judge(test, status, self.since - before,
                           "its deadline passed" if self.overdue and status == 128 + 9 else "")
                self.running, self.done = None, self.done + 1
            elif kind == "plan":
                self.plan = int(value)

    def judge(self, test, status, seconds, trouble=""):
        text = self.output.decode(errors="replace")
        cases = judge_output(test.name, status, text, trouble)
        self.cases += cases
        if self.progress:
            self.progress(test, cases, seconds)

    def report(self):
        """All cases: those of the tests, those that never came, and the kernel's log."""
        why = self.trouble or "the machine ended"
        if self.running is not None:
            self.judge(self.tests[self.running], None, time.monotonic() - self.since, why)
            self.done += 1
        for test in self.tests[self.done:]:
            self.cases.append(Case(test.name, "", "fail", f"not run: {why}"))
        log = [Case("kernel log", "", "fail", text) for text in scan_log(self.console)]
        if self.trouble or self.plan != len(self.tests):
            tail = "\n".join(self.console.splitlines()[-30:])
            log.append(Case("machine", "", "fail",
                            f"{self.trouble or 'there is no plan line'}\nThe console's end:\n{tail}"))
        elif "Linux version" not in self.console:
            log.append(Case("kernel log", "", "fail", "there is none"))
        return Report(self.cases + log, self.console, self.seconds, self.machine)


class Stream:
    """Divides the port's bytes into what the tests print and the init script's markers."""

    def __init__(self, nonce):
        self._mark = b"\n@@" + nonce.encode() + b" "
        self._held = b""

    def feed(self, data):
        """The events in order: ("output", bytes), or (word, text) for a marker."""
        self._held += data
        events = []
        while (at := self._held.find(self._mark)) >= 0:
            end = self._held.find(b"\n", at + 1)
            if end < 0:
                break
            words = self._held[at + len(self._mark):end].decode(errors="replace")
            if at:
                events.append(("output", self._held[:at]))
            self._held = self._held[end + 1:]
            events.append(tuple(words.split(" ", 1)))
        # The end may be the beginning of a marker: it waits for what follows.
        cut = self._held.rfind(b"\n")
        if cut < 0 or not (self._held[cut:].startswith(self._mark)
                           or self._mark.startswith(self._held[cut:])):
            cut = len(self._held)
        if cut:
            events.append(("output", self._held[:cut]))
            self._held = self._held[cut:]
        return events


@dataclasses.dataclass
class Report:
    """All that is known of one boot."""
    cases: list
    console: str
    seconds: float
    machine: Machine

    @property
    def other_races(self):
        """What KCSAN reports of the rest of the kernel."""
        return read_log(self.console)[1]

    def count(self, outcome):
        return sum(case.outcome == outcome for case in self.cases)


def guest_program(name):
    """Where a program of the host is in a hermetic guest; busybox's applets stay as they are."""
    # With its directories: programs of several of them may have the same name.
    return f"/opt{os.path.abspath(name)}" if os.path.isfile(name) else name


def choose_accelerator(kernel):
    """KVM if a guest gets through a boot with it, and TCG otherwise.

    /dev/kvm can be there and let a guest hang in its first instructions, so only a try tells.
    The verdict is kept until the host boots again, or the kernel or QEMU changes.
    """
    if chosen := os.environ.get("ORBIT_VM_ACCEL"):
        return chosen
    if not os.access("/dev/kvm", os.R_OK | os.W_OK):
        return "tcg"
    image, qemu = (kernel / "bzImage").stat(), Path(shutil.which(QEMU)).stat()
    boot = Path("/proc/sys/kernel/random/boot_id").read_text().strip()
    key = f"{boot} {kernel} {image.st_mtime_ns} {qemu.st_mtime_ns} {PROBE_SECONDS}"
    cache = CACHE / "accel"
    verdict = cache / hashlib.sha256(key.encode()).hexdigest()[:16]
    with contextlib.suppress(OSError):
        return verdict.read_text().strip()
    print("vm: trying KVM ...", end=" ", file=sys.stderr, flush=True)
    report = Machine(kernel, accel="kvm").run([], deadline=PROBE_SECONDS)
    accel = "tcg" if report.count("fail") else "kvm"
    print("it works" if accel == "kvm" else "a guest does not boot with it: emulating (slow)",
          file=sys.stderr)
    cache.mkdir(parents=True, exist_ok=True)
    verdict.write_text(accel)
    return accel


# --- the judge -------------------------------------------------------------------------

def judge_output(program, status, text, trouble=""):
    """The test cases of a program, from what it printed and how it ended.

    status: the exit status as a shell has it (128 + N for signal N), or None if there is none.
    trouble: what else went wrong with it.
    """
    listed = True
    if "[==========] Running " in text:
        cases, planned = judge_gtest(program, text)
    elif re.search(r"^(TAP version \d+|1\.\.\d+)", text, re.M):
        cases, planned = judge_tap(program, text)
    else:
        listed, cases, planned = False, [], None
    if status is None:
        wrong = f"no exit status: {trouble or 'it did not end'}"
    elif trouble or 128 < status <= 128 + 64:
        wrong = trouble or f"killed by signal {status - 128}"
    elif status and not any(case.outcome == "fail" for case in cases):
        wrong = f"exit status {status}"
    elif listed and planned is None:
        wrong = "it printed no plan"
    elif listed and len(cases) != planned:
        wrong = f"it announced {planned} tests, and {len(cases)} gave a result"
    elif listed and not planned:
        wrong = "it announced no test"
    else:
        wrong = ""
    if wrong:
        cases.append(Case(program, "", "fail", f"{wrong}\n{text}".strip()))
    return cases or [Case(program, "", "pass", text)]


def judge_gtest(program, text):
    """The cases and the announced number of a GoogleTest program's output."""
    cases, planned, begin = [], None, 0
    pattern = (r"\[==========\] (?:Running (?P<plan>\d+) tests?|\d+ tests? from .* (?P<ran>ran)\.)"
               r"|\[ RUN      \] (?P<run>\S+)$"
               r"|\[ {2,7}(?P<outcome>OK|FAILED {1}|SKIPPED) \] (?P<name>[^\s,]+).*\(\d+ ms\)$")
    for match in re.finditer(pattern, text, re.M):
        if match["plan"]:
            planned = int(match["plan"])
        elif match["ran"]:
            break       # the rest repeats what is known
        elif match["run"]:
            begin = match.end() + 1
        else:
            outcome = {"OK": "pass", "SKIPPED": "skip"}.get(match["outcome"], "fail")
            cases.append(Case(program, match["name"], outcome, text[begin:match.start()].strip()))
            begin = match.end() + 1
    return cases, planned


def judge_tap(program, text):
    """The cases and the announced number of TAP output, as the kselftest harness prints it."""
    cases, planned, begin = [], None, 0
    pattern = (r"^1\.\.(?P<plan>\d+)(?P<none> *# *SKIP.*)?"
               r"|^(?P<not>not )?ok\b *\d*(?: -)? *(?P<name>[^#\n]*?) *(?:# *(?P<mark>.*))?$")
    for match in re.finditer(pattern, text, re.M):
        if match["none"]:
            return [Case(program, "", "skip", match["none"].strip())], 1
        if match["plan"]:
            planned = int(match["plan"])
        else:
            mark = (match["mark"] or "").split(" ")[0].upper()
            outcome = ("skip" if mark.startswith("SKIP") else
                       "fail" if match["not"] and mark not in ("TODO", "XFAIL") else "pass")
            cases.append(Case(program, match["name"] or f"test {len(cases) + 1}", outcome,
                              text[begin:match.end()].strip()))
        begin = match.end() + 1
    return cases, planned


# What a healthy kernel never prints.  A user program's fault is its own affair: the lines
# that report one begin with "traps:" or hold "segfault at", and are no kernel trouble.
COMPLAINT = re.compile(
    r"\bBUG\b[:\s]|\bWARNING:|\bOops\b|\bINFO: (?:possible|suspicious|trying|task|lockdep|rcu)"
    r"|possible (?:circular|recursive|irq|unsafe)|\bKASAN\b.*\bin\b|kmemleak: \d+ new"
    r"|general protection|Kernel panic|rcu: INFO|hung[_ ]task.*blocked|blocked for more than"
    r"|Bad rss-counter|Bad page|UBSAN:|KCSAN:|ODEBUG:|page_table_check|soft lockup|hard LOCKUP"
    r"|sleeping function called|scheduling while atomic|refcount_t:|list_(?:add|del) corruption"
    r"|unable to handle|stack-protector|workqueue lockup|inconsistent lock state"
    r"|kmemleak: .*(?:disabled|exceeded)|non-zero pgtables_bytes")
USER_FAULT = re.compile(r"\btraps: .* ip:[0-9a-f]+ sp:")
CONTEXT_BEFORE, CONTEXT_AFTER = 3, 40


RACE = re.compile(r"BUG: KCSAN: ")
RACE_LINES = 120        # of a report that has no end
# A race is ours if a function of kernel/orbit makes one of the accesses that race, or has called
# who does; what an interrupt broke into has done neither. An access that is marked as one that
# may race is as it should be: then the other one matters.
ACCESS = re.compile(r"\b(?:read|write|assert no \w+)(?: \(([\w, ]+)\))? to 0x[0-9a-f]+ of")
OUR_FRAME = re.compile(r"\borbit_\w+\+0x")
INTERRUPT_ENTRY = re.compile(r"\basm_(?:sysvec_\w+|common_interrupt)\+0x")
# Whoever opens a file, or makes one as we do, takes a reference to the process's cred, and with that
# stores a zero there that others store, too: get_cred() in init_file().
FILE_MADE = re.compile(r"\balloc_empty_file\+0x")
STACK_END = re.compile(r"^(?:\[[ \d.]+\])?\s*$")
RULER = re.compile(r"={40}")


def race_end(lines, number):
    """The line after the report of a race, whose first line has this number."""
    for end in range(number + 1, min(number + RACE_LINES, len(lines))):
        if RULER.search(lines[end]):
            return end + 1
    return min(number + RACE_LINES, len(lines))


def is_our_race(report):
    """Whether one of the accesses in the report of a race is to be blamed on us."""
    ours = None         # how our functions look among the frames of such an access
    for line in report:
        if access := ACCESS.search(line):
            # A system call itself is the first frame only where the access is its own.
            ours = None if "marked" in (access[1] or "") else "orbit_"
        elif STACK_END.search(line) or INTERRUPT_ENTRY.search(line) or FILE_MADE.search(line):
            ours = None
        elif ours:
            if re.search(ours, line):
                return True
            ours = OUR_FRAME
    return False


def read_log(console):
    """The kernel's complaints, each with the lines around it, and the races of others.

    KCSAN finds races in all of the kernel, and those that were there before us are known to
    others; they are kept, and are no failure.
    """
    lines = console.splitlines()
    found, others, end = [], [], -1
    for number, line in enumerate(lines):
        if number < end or not COMPLAINT.search(line) or USER_FAULT.search(line):
            continue
        if RACE.search(line):
            end = race_end(lines, number)
            report = "\n".join(lines[number:end])
            # Another complaint in the middle of it is not to be lost.
            ours = (is_our_race(lines[number:end])
                    or any(COMPLAINT.search(text) for text in lines[number + 1:end]))
            (found if ours else others).append(report)
            continue
        end = number + CONTEXT_AFTER
        found.append("\n".join(lines[max(0, number - CONTEXT_BEFORE):end]))
    return found, others


def scan_log(console):
    """The kernel's complaints, each with the lines around it."""
    return read_log(console)[0]


# --- for people and for machines -------------------------------------------------------

def print_progress(test, cases, seconds):
    """A line for a program that has ended, and at once the end of what failed in it."""
    failed = [case for case in cases if case.outcome == "fail"]
    tests = f"{len(cases)} test{'s' if len(cases) != 1 else ''}"
    print(f"  {'FAIL' if failed else 'ok':4}  {test.name} "
          f"({tests}{f', {len(failed)} failed' if failed else ''}, {seconds:.1f} s)")
    for case in failed:
        print(f"        {case.name or case.program}")
        for line in case.output.splitlines()[-12:]:
            print(f"        | {line}")
    sys.stdout.flush()


def print_failures(cases):
    for case in cases:
        if case.outcome == "fail":
            print(f"FAIL {case.title}")
            for line in case.output.splitlines():
                print(f"     | {line}")


def conclude(cases):
    """Print what failed, and how many passed: the exit status of a program of tests."""
    print_failures(cases)
    print(summary(cases))
    return 1 if any(case.outcome == "fail" for case in cases) else 0


def summary(cases):
    """The closing line."""
    passed, failed, skipped = (sum(case.outcome == outcome for case in cases)
                               for outcome in ("pass", "fail", "skip"))
    return f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else "")


def write_json(path, report):
    machine = report.machine
    Path(path).write_text(json.dumps({
        "kernel": str(machine.kernel), "accel": machine.accel, "icount": machine.icount,
        "cpus": machine.cpus, "seconds": round(report.seconds, 3),
        "passed": report.count("pass"), "failed": report.count("fail"),
        "skipped": report.count("skip"),
        "cases": [dataclasses.asdict(case) for case in report.cases],
        "other_races": report.other_races,
        "console": report.console}, indent=1) + "\n")


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    commands = parser.add_subparsers(dest="command", required=True)
    for name in ("test", "exec", "boot"):
        sub = commands.add_parser(name)
        sub.add_argument("--kernel", type=Path, required=True, help="a built kernel's directory")
        sub.add_argument("--root", choices=("initramfs", "host"), default="initramfs")
        sub.add_argument("--cpus", type=int, default=2)
        sub.add_argument("--memory", default="1G")
        sub.add_argument("--append", default="", help="more of the kernel's command line")
        sub.add_argument("--file", action="append", default=[], metavar="HOST[:GUEST]",
                         help="a file for the guest, by default in its root directory")
        sub.add_argument("--iommu", action="store_true",
                         help="with an IOMMU, for devices that programs drive by VFIO")
        sub.add_argument("--drive", action="append", default=[], metavar="QEMU",
                         help="a block device's backend, as QEMU's option of this name")
        sub.add_argument("--device", action="append", default=[], metavar="QEMU",
                         help="a device, as QEMU's option of this name")
        if name == "boot":
            sub.add_argument("--chdir", default="/root", help="where in the guest to begin")
        else:
            sub.add_argument("--icount", action="store_true", help="count instructions")
            sub.add_argument("--timeout", type=float, default=TEST_SECONDS,
                             help="seconds for a program on the bare machine; a slower one gets more")
            sub.add_argument("--console", type=Path, help="keep the console's log here")
            sub.add_argument("--json", type=Path, help="write the results here")
    commands.choices["test"].add_argument("tests", nargs="+", metavar="NAME=COMMAND")
    commands.choices["exec"].add_argument("argv", nargs="+", metavar="COMMAND")
    options = parser.parse_args()

    files = {}
    for file in options.file:
        host, _, guest = file.partition(":")
        files[guest or f"/{os.path.basename(host)}"] = host
    try:
        machine = Machine(options.kernel, icount=getattr(options, "icount", False),
                          cpus=options.cpus, memory=options.memory, root=options.root,
                          files=files, append=options.append, iommu=options.iommu,
                          devices=[argument for option in ("drive", "device")
                                   for value in getattr(options, option)
                                   for argument in (f"-{option}", value)])
        if options.command == "boot":
            print(f"vm: booting with {machine.accel}; leave with `exit`, or Ctrl-A X")
            return machine.shell(options.chdir)
        if options.command == "exec":
            tests = [Test(os.path.basename(options.argv[0]), options.argv, options.timeout)]
            report = machine.run(tests, live=write_live)
        else:
            tests = [Test(name, shlex.split(command), options.timeout)
                     for name, command in (test.split("=", 1) for test in options.tests)]
            print(f"vm: {len(tests)} programs with {machine.accel}"
                  f"{', instructions counted' if machine.icount else ''}", flush=True)
            report = machine.run(tests, progress=print_progress)
    except (FileNotFoundError, ValueError) as error:
        return f"vm: {error}"
    if options.console:
        options.console.write_text(report.console)
    if options.json:
        write_json(options.json, report)
    if options.command == "exec":
        bad = [case for case in report.cases if case.outcome == "fail"]
        for case in bad:
            # The command's own output has been shown already.
            text = case.output.splitlines()[0] if case.program == tests[0].name else case.output
            print(f"vm: {case.title}: {text}", file=sys.stderr)
        return 1 if bad else 0
    print_failures(report.cases)
    print(f"{summary(report.cases)} ({report.seconds:.0f} s)")
    return 1 if report.count("fail") else 0


def write_live(data):
    sys.stdout.buffer.write(data)
    sys.stdout.buffer.flush()


def run_main(main, *expected):
    """End with what main returns; with one line if it raises one of the expected exceptions."""
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except expected as error:
        sys.exit(f"{Path(sys.argv[0]).name}: {error}")


if __name__ == "__main__":
    run_main(main)
