#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A driver that is out of its mind, against the devices of isolation/models, under sanitizers.

Normally run by `make fuzz-models`.  There is no guest: QEMU's test protocol accesses registers and memory at random, with
values that are often nearly right, so that rings come to work, and then break.  Whatever a sanitizer finds, and any other
end of QEMU, is a failure; the seed and the last accesses are printed, and a run with this seed does the same again.
"""

import argparse
import collections
import random
import subprocess
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
from models_bench import BARS, MEMORY, SLOTS, Bench  # noqa: E402

RINGS, BUFFERS = 1 << 20, 8 << 20       # where they are in memory
COUNT = 64                              # descriptors of a ring
BATCH = 300                             # accesses between two looks
ENABLE = 1 << 25

# What a set-up writes, and more of what does something.
CONTROL = [0x0, 0x8, 0x18, 0x20, 0x28, 0x800, 0x808, 0x810, 0x880, 0x888, 0x890, 0x898, 0x900, 0x904, 0xA00, 0xA90, 0xAA0, 0xAB0,
           0xAD0, 0x820, 0x824, 0x2300, 0x2F00, 0x3000, 0x3200, 0x3220, 0x3260, 0x3C00, 0x3D00, 0x4240, 0x425C, 0x4268, 0x4294, 0x42A0,
           0x42A8, 0x4900, 0x4A80, 0x4A88, 0x4A8C, 0x5000, 0x5080, 0x5088, 0x5090, 0x5128, 0x5400, 0x5404, 0x5818, 0x5C00, 0x5C80,
           0x8600, 0xA000, 0xA200, 0xA204, 0xCC00, 0xEC00, 0xEE00, 0xEE18, 0xEE1C, 0xEE20, 0xEE24, 0xEE28, 0xEE2C, 0xEE3C, 0xEE40, 0xEE44,
           0xEE70, 0x10010, 0x10014, 0x10140, 0x10160, 0x12300]


class Fuzzer(Bench):
    def __init__(self, seed, models):
        self.random = random.Random(seed)
        self.last = collections.deque(maxlen=3 * BATCH)
        options = [f",immediate={'on' if self.random.random() < 0.5 else 'off'}" for _ in BARS]
        super().__init__(models, options)

    def flush(self):
        self.last.extend(self.lines)
        return super().flush()

    # --- what is nearly right ---------------------------------------------------------

    def ring(self, device, transmit, queue):
        return RINGS + ((device * 2 + transmit) * 128 + queue) * COUNT * 16

    def base(self, transmit, queue):
        return 0x6000 + 0x40 * queue if transmit else 0x1000 + 0x40 * queue if queue < 64 else 0xD000 + 0x40 * (queue - 64)

    def set_up(self, device):
        """As a driver does it, for a few queues."""
        for offset, value in ((0x0, 0), (0x3000, 1), (0x4A80, 0x81000001), (0x5080, 0x700), (0x4240, 0x8020C07 | self.random.choice((0, 4))),
                              (0x4268, 9728 << 16), (0x898, self.random.choice((0, 0x10, 0x40000010))), (0x880, ~0), (0xAA0, ~0),
                              (0x5818, self.random.choice((0, 0x370001))), (0x42A0, 0x6000), (0x5008, 0), (0x820, self.random.choice((0, 0x7F8)))):
            self.write(device, offset, value)
        for queue in self.random.sample(range(128), 3) + [0, 1]:
            for transmit in (0, 1):
                at = self.base(transmit, queue)
                for offset, value in ((0x28, 0), (0, self.ring(device, transmit, queue)), (4, 0), (8, COUNT * 16), (0x10, 0), (0x18, 0)):
                    self.write(device, at + offset, value)
                if not transmit:
                    self.write(device, at + 0x14, self.random.choice((0x02000002, 0x02000404, 0x00000001, 0x1200000A)))
                    self.write(device, at + 0x2C, self.random.choice((0, 1, 0xD)))
                self.write(device, at + 0x28, ENABLE | self.random.choice((0, 1 << 30)))
                self.fill(device, transmit, queue)
                self.write(device, at + 0x18, self.random.randrange(COUNT))
            self.write(device, 0x900 + queue // 2 * 4 % 0x100, 0x83828180)

    def segments(self, device):
        """A TCP packet to be cut, all right, so that the other device can coalesce what comes of it."""
        at, ring, buffer = self.base(1, 0), self.ring(device, 1, 0), BUFFERS + self.random.randrange(4000) * 4096
        size = self.random.randrange(100, 12000)
        ip = bytes((0x45, 0)) + (40).to_bytes(2, "big") + bytes((0, 0, 0, 0, 64, 6, 0, 0, 10, 0, 0, 1, 10, 0, 0, 2))
        seed = 6 + sum(int.from_bytes(ip[i:i + 2], "big") for i in range(12, 20, 2))
        seed = (seed & 0xFFFF) + (seed >> 16)
        tcp = bytes((4, 0, 0, 7)) + self.random.randbytes(8) + bytes((0x50, 0x10, 1, 0)) + seed.to_bytes(2, "big") + bytes(2)
        frame = bytes((2, 0, 0, 0, 0, 2 - device)) + bytes((2, 0, 0, 0, 0, 1 + device, 8, 0)) + ip + tcp + self.random.randbytes(size)
        for offset in range(0, len(frame), 1024):
            self.memory(buffer + offset, frame[offset:offset + 1024])
        other, to = 1 - device, self.base(0, 0)
        for offset, value in ((0x0, 0), (0x3000, 1), (0x4240, 0x8020C07), (0x5008, 0), (0x5080, 0x700), (0x5088, 0), (0x5818, 0),
                              (0x900, 0x83828180), (0x820, 0x7F8), (to + 0x28, 0), (to, self.ring(other, 0, 0)), (to + 4, 0),
                              (to + 8, COUNT * 16), (to + 0x10, 0), (to + 0x18, 0), (to + 0x14, 0x02000002), (to + 0x2C, 0xD), (to + 0x28, ENABLE)):
            self.write(other, offset, value)
        self.fill(other, 0, 0)
        self.write(other, to + 0x18, COUNT - 1)
        for offset, value in ((0x0, 0), (0x4240, 0x8020C07), (0x4A80, 0x81000001), (at + 0x28, 0), (at, ring), (at + 4, 0),
                              (at + 8, COUNT * 16), (at + 0x10, 0), (at + 0x18, 0), (at + 0x28, ENABLE)):
            self.write(device, offset, value)
        for number, words in enumerate(((20 | 14 << 9, 0, 2 << 20 | 1 << 29 | 1 << 10 | 1 << 11, 20 << 8 | self.random.choice((100, 536, 1448)) << 16),
                                        (buffer, 0, len(frame) | 3 << 20 | 0xAB << 24, 3 << 8 | size << 14))):
            self.memory(ring + 16 * number, b"".join(word.to_bytes(4, "little") for word in words))
        self.write(device, at + 0x18, 2)

    def address(self):
        kind = self.random.random()
        if kind < 0.9:
            return BUFFERS + self.random.randrange(4096) * 4096 + self.random.randrange(64)
        return self.random.choice((self.random.getrandbits(64), BARS[0] + self.random.randrange(1 << 17), MEMORY - 100, 0xFEE00000))

    def fill(self, device, transmit, queue):
        at = self.ring(device, transmit, queue)
        for number in range(COUNT):
            self.memory(at + number * 16, self.descriptor() if transmit else
                        self.address().to_bytes(8, "little") + self.address().to_bytes(8, "little"))

    def descriptor(self):
        r = self.random
        kind = r.random()
        if kind < 0.1:
            return r.randbytes(16)
        if kind < 0.35:
            words = (r.choice((20, 40, 0, r.getrandbits(9))) | r.choice((14, 18, 0, 127)) << 9 | r.getrandbits(16) << 16, 0,
                     2 << 20 | 1 << 29 | r.choice((0, 1 << 10)) | r.choice((0, 1, 2, 3)) << 11,
                     r.choice((0, 1)) << 4 | r.choice((20, 8, 32, 0, 255)) << 8 | r.choice((1448, 1, 0, 9000, 65535)) << 16)
            return b"".join(word.to_bytes(4, "little") for word in words)
        size = r.choice((60, 64, 1514, 9014, 0, 1, 17, 65535, r.randrange(16384)))
        command = r.choice((0x2B, 0x2B, 0x3B, 0xAB, 0x6B, 0x20, 0x0B, 0x0F, 0x4B, 0xFF))
        paylen = r.choice((size, max(0, size - 54), r.getrandbits(18)))
        words = (size | r.choice((3, 3, 3, 0, 15)) << 20 | command << 24, r.choice((0, 1, 7)) << 4 | r.getrandbits(3) << 8 | (paylen & 0x3FFFF) << 14)
        return self.address().to_bytes(8, "little") + b"".join(word.to_bytes(4, "little") for word in words)

    def frame(self):
        r = self.random
        data = bytes((2, 0, 0, 0, 0, r.choice((1, 2)))) if r.random() < 0.7 else r.choice((b"\xFF" * 6, b"\x01\x80\xC2\x00\x00\x01", r.randbytes(6)))
        data += r.randbytes(6) + (r.choice((b"", b"\x81\x00" + r.randbytes(2))))
        data += r.choice((b"\x08\x00", b"\x86\xDD", b"\x88\x08\x00\x01", r.randbytes(2)))
        data += r.choice((b"\x45", b"\x4F", b"\x60", b"\x46")) + r.randbytes(1) + r.randrange(1600).to_bytes(2, "big") + r.randbytes(4)
        data += r.randbytes(1) + bytes((r.choice((6, 17, 132, 0, 43, 44, 60)),)) + r.randbytes(60)
        return data

    # --- and what is not ----------------------------------------------------------------

    def access(self):
        r = self.random
        device, kind = r.randrange(2), r.random()
        transmit, queue = r.randrange(2), r.choice((0, 1, r.randrange(128)))
        if kind < 0.01:
            self.set_up(device)
        elif kind < 0.02:
            self.segments(device)
        elif kind < 0.40:
            self.write(device, self.base(transmit, queue) + 0x18, r.choice((r.randrange(COUNT), r.getrandbits(16))) if r.random() < 0.1
                       else r.randrange(COUNT))
        elif kind < 0.50:
            self.memory(self.ring(device, transmit, queue) + r.randrange(COUNT) * 16, self.descriptor())
        elif kind < 0.60:
            self.memory(BUFFERS + r.randrange(4096) * 4096, self.frame())
        elif kind < 0.70:
            self.write(device, self.base(transmit, queue) + r.randrange(16) * 4, r.choice((0, ENABLE, r.getrandbits(32), COUNT * 16)))
        elif kind < 0.80:
            self.write(device, r.choice(CONTROL), r.choice((0, 1, 1 << r.randrange(32), r.getrandbits(32), ~0)))
        elif kind < 0.84:
            self.write(device, r.randrange(1 << 15) * 4, r.getrandbits(32))
        elif kind < 0.94:
            self.lines.append(f"readl {BARS[device] + (r.choice(CONTROL) if r.random() < 0.5 else r.randrange(1 << 15) * 4):#x}")
        elif kind < 0.96:
            self.lines.append(f"writel {BARS[device] + (1 << 20) + r.randrange(1 << 12) * 4:#x} {r.getrandbits(32):#x}")
        elif kind < 0.97:
            self.config(SLOTS[device], r.choice((0x4, 0x52, 0x70, 0xA8)), r.choice((0x0406, 0x0002, 0x80000000, 0x8000, r.getrandbits(16))))
            self.config(SLOTS[device], 0x4, 0x0406)
        else:
            self.lines.append("endianness")         # a pause

    def run(self, end):
        """Until a time; how many accesses there were, and whether all is well."""
        done = 0
        for device in range(2):
            self.set_up(device)
        while time.monotonic() < end:
            for _ in range(BATCH):
                self.access()
            done += len(self.lines)
            if self.flush() is None:
                return done, False
        return done, True


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--minutes", type=float, default=10)
    parser.add_argument("--seed", type=int, default=None)
    parser.add_argument("--round", type=float, default=30, metavar="SECONDS", help="how long one QEMU lives")
    options = parser.parse_args()
    models = subprocess.run([HERE.parent / "isolation/models/build", "--sanitize"], stdout=subprocess.PIPE, text=True, check=True)
    seed = options.seed if options.seed is not None else random.SystemRandom().getrandbits(31)
    end, accesses, rounds = time.monotonic() + 60 * options.minutes, 0, 0
    while time.monotonic() < end:
        fuzzer = Fuzzer(seed, models.stdout.split())
        done, well = fuzzer.run(min(end, time.monotonic() + options.round))
        said = fuzzer.close()
        accesses, rounds = accesses + done, rounds + 1
        if not well:
            print(*fuzzer.last, sep="\n")
            print(said)
            return f"fuzz-models: QEMU died in round {rounds}, with --seed {seed}"
        seed += 1
    print(f"fuzz-models: {accesses} accesses in {rounds} rounds, nothing found")
    return 0


if __name__ == "__main__":
    sys.exit(main())
