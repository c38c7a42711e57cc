# SPDX-License-Identifier: MIT
"""Two devices of isolation/models in a QEMU without a guest: its test protocol accesses registers and memory."""

import os
import subprocess
import tempfile

MEMORY = 64 << 20
BARS = (0xE0000000, 0xE0200000)         # of the two devices: registers, and 1 MiB on, vectors
SLOTS = (0x10, 0x11)
# For a processor that is to do nothing: at the reset vector, cli; hlt; and again.
FIRMWARE = (b"\xf4" * 0xFFF0 + b"\xfa\xf4\xeb\xfd").ljust(0x10000, b"\xf4")


class Bench:
    """Two cards on one wire. Accesses are collected until flush() has them done."""

    def __init__(self, models, options=("", ""), more=()):
        """`options` are of each device, `more` QEMU's arguments."""
        arguments = ["-M", "q35", "-accel", "tcg", "-m", str(MEMORY >> 20), "-nodefaults", "-display", "none",
                     "-qtest", "stdio", "-qtest-log", "/dev/null", *more]
        for number, slot in enumerate(SLOTS):
            arguments += ["-netdev", f"hubport,id=w{number},hubid=0", "-device", f"i82599,netdev=w{number},addr={slot:#x},"
                          f"mac=02:00:00:00:00:{number + 1:02x}{options[number]}"]
        environment = {**os.environ, "ASAN_OPTIONS": "detect_leaks=0:detect_stack_use_after_return=0",
                       "UBSAN_OPTIONS": "print_stacktrace=1"}
        self.lines = []
        with tempfile.NamedTemporaryFile() as firmware:
            firmware.write(FIRMWARE)
            firmware.flush()
            self.qemu = subprocess.Popen(["env", f"LD_PRELOAD={':'.join(map(str, models))}", "qemu-system-x86_64", "-bios", firmware.name,
                                          *arguments], stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.PIPE,
                                         text=True, env=environment)
            for slot, bar in zip(SLOTS, BARS):
                for register, value in ((0x10, bar), (0x14, 0), (0x20, bar + (1 << 20)), (0x24, 0), (0x04, 0x0406)):
                    self.config(slot, register, value)
            self.flush()        # after that it has read its firmware

    def config(self, slot, register, value):
        self.lines += [f"outl 0xcf8 {0x80000000 | slot << 11 | register:#x}", f"outl 0xcfc {value & 0xFFFFFFFF:#x}"]

    def write(self, device, offset, value):
        self.lines.append(f"writel {BARS[device] + offset:#x} {value & 0xFFFFFFFF:#x}")

    def read(self, device, offset):
        """The value of a register, after all accesses before."""
        self.lines.append(f"readl {BARS[device] + offset:#x}")
        return int(self.flush()[-1].split()[1], 0)

    def memory(self, address, data):
        self.lines.append(f"write {address:#x} {len(data)} 0x{data.hex()}")

    def flush(self):
        """Have all done; what was answered, or None if QEMU is no more."""
        answers = []
        try:
            self.qemu.stdin.write("".join(line + "\n" for line in self.lines))
            self.qemu.stdin.flush()
            for _ in self.lines:
                while (line := self.qemu.stdout.readline()) and not line.startswith(("OK", "FAIL")):
                    pass
                if not line:
                    return None
                answers.append(line)
        except BrokenPipeError:
            return None
        finally:
            self.lines = []
        return answers

    def close(self):
        """End QEMU; what it said."""
        if self.qemu.poll() is None:
            self.qemu.terminate()
        return self.qemu.communicate()[1]
