#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Each mistake of a driver that the models of isolation/models know, made once: it is reported, by its name, and no other.

Normally run by `make test-models`, before other people's drivers.  There is no guest: see models_bench.py.
"""

import argparse
import re
import subprocess
import sys
import tempfile
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path.insert(0, str(HERE))
sys.path.insert(0, str(HERE / "vm"))
import run as vm  # noqa: E402
from models_bench import MEMORY, Bench  # noqa: E402

RING, TX_RING, BUFFER, NOWHERE = 1 << 20, 2 << 20, 8 << 20, MEMORY + (1 << 30)
COUNT = 64                              # descriptors of a ring
LINK_SECONDS = 60

# Registers and bits, by the datasheet's names; of queues, queue 0's.
CTRL, CTRL_RST = 0x0, 1 << 26
EICS, IVAR = 0x808, 0x900
RX, TX = 0x1000, 0x6000
BAL, BAH, LEN, HEAD, SRRCTL, TAIL, CONTROL = 0x00, 0x04, 0x08, 0x10, 0x14, 0x18, 0x28
ENABLE, ADVANCED, TWO_KIB = 1 << 25, 1 << 25, 2
RDRXCTL, RXCTRL, RXEN, DMATXCTL, TE = 0x2F00, 0x3000, 1, 0x4A80, 0x81000001
HLREG0, STRIP, PAD = 0x4240, 1 << 1, 1 << 10
LINKS, LINK_UP, FCTRL, MRQC = 0x42A4, 1 << 30, 0x5080, 0x5818
SW_FW_SYNC = 0x10160
# Of transmit descriptors.
DATA, CONTEXT, EOP, IFCS, RS, DEXT, TSE = 3 << 20, 2 << 20, 1 << 24, 1 << 25, 1 << 27, 1 << 29, 1 << 31
TXSM = 1 << 9


class Driver:
    """Of the first device; the second one is only the other end of the wire."""

    def __init__(self, bench):
        self.bench = bench

    def write(self, *pairs):
        for offset, value in pairs:
            self.bench.write(0, offset, value)

    def reset(self):
        self.write((CTRL, CTRL_RST))
        end = time.monotonic() + LINK_SECONDS
        # A reset takes some time, and the link more.
        while self.bench.read(0, CTRL) & CTRL_RST:
            pass
        while not self.bench.read(0, LINKS) & LINK_UP:
            if time.monotonic() > end:
                raise TimeoutError("the link does not come up")
            time.sleep(0.01)

    def set_up(self, queue, ring, length=COUNT * 16):
        self.write((queue + BAL, ring), (queue + BAH, 0), (queue + LEN, length), (queue + HEAD, 0), (queue + TAIL, 0))

    def receive(self, srrctl=ADVANCED | TWO_KIB):
        self.set_up(RX, RING)
        self.write((RX + SRRCTL, srrctl), (RX + CONTROL, ENABLE), (RXCTRL, RXEN))

    def transmit(self):
        self.write((DMATXCTL, TE))
        self.set_up(TX, TX_RING)
        self.write((TX + CONTROL, ENABLE))

    def send(self, *descriptors, ring=TX_RING):
        self.transmit()
        for number, words in enumerate(descriptors):
            self.bench.memory(ring + 16 * number, b"".join((word & 0xFFFFFFFF).to_bytes(4, "little") for word in words))
        self.write((TX + TAIL, len(descriptors)))


def data(length=64, command=0, olinfo=None, address=BUFFER):
    """An advanced descriptor of a whole packet."""
    return (address, address >> 32, length | DATA | DEXT | EOP | IFCS | RS | command, length << 14 if olinfo is None else olinfo)


# --- what is right ---------------------------------------------------------------------

def all_in_order(driver):
    driver.receive()
    driver.write((FCTRL, 0x700), (RX + TAIL, COUNT - 1))
    driver.send(data(), data(1514))


# --- and what is not, by the name that it is to be reported by ------------------------------

MISTAKES = {}


def mistake(name, what):
    def add(make):
        MISTAKES[f"{name}: {what}"] = (name, make)
        return make
    return add


def writes(name, what, *pairs):
    mistake(name, what)(lambda driver: driver.write(*pairs))


writes("register-unknown", "a register that there is not", (0x300, 1))
writes("register-read-only", "LINKS is written", (LINKS, 0))
writes("ring-base", "a receive ring at no multiple of 128", (RX + BAL, RING + 64))
writes("ring-base", "a transmit ring at no multiple of 128", (TX + BAL, TX_RING + 16))
writes("ring-length", "a receive ring of no multiple of 128 bytes", (RX + LEN, 1000))
writes("ring-length", "a transmit ring of no multiple of 128 bytes", (TX + LEN, 16))
writes("ring-length", "a receive queue is turned on before it has a ring", (RX + SRRCTL, ADVANCED | TWO_KIB), (RX + CONTROL, ENABLE))
writes("ring-length", "a transmit queue is turned on before it has a ring", (DMATXCTL, TE), (TX + CONTROL, ENABLE))
writes("ring-tail-while-off", "descriptors are given to a receive queue that is off", (RX + LEN, COUNT * 16), (RX + TAIL, 5))
writes("ring-tail-while-off", "descriptors are given to a transmit queue that is off", (TX + LEN, COUNT * 16), (TX + TAIL, 5))
writes("receive-crc-strip-differs", "the MAC strips no CRC, and the DMA does", (HLREG0, PAD), (RDRXCTL, 2), (RXCTRL, RXEN))
writes("receive-crc-strip-differs", "the DMA strips no CRC, and the MAC does", (HLREG0, PAD | STRIP), (RDRXCTL, 0), (RXCTRL, RXEN))
writes("semaphore", "SW_FW_SYNC is written without the semaphores", (SW_FW_SYNC, 1))


@mistake("ring-moved-while-on", "the base of a receive ring that is on")
def move_receive(driver):
    driver.receive()
    driver.write((RX + BAL, RING + 4096))


@mistake("ring-moved-while-on", "the length of a transmit ring that is on")
def move_transmit(driver):
    driver.transmit()
    driver.write((TX + LEN, COUNT * 8))


@mistake("ring-moved-while-on", "the head of a receive ring that is on")
def move_head(driver):
    driver.receive()
    driver.write((RX + HEAD, 3))


@mistake("ring-tail-past-end", "of a receive ring")
def receive_tail(driver):
    driver.receive()
    driver.write((RX + TAIL, COUNT))


@mistake("ring-tail-past-end", "of a transmit ring")
def transmit_tail(driver):
    driver.transmit()
    driver.write((TX + TAIL, COUNT + 7))


@mistake("receive-buffer-size", "buffers of no size")
def no_buffers(driver):
    driver.receive(ADVANCED)


@mistake("receive-descriptor-type", "a type that there is not")
def receive_type(driver):
    driver.receive(3 << 25 | TWO_KIB)


@mistake("not-modelled", "headers are to be split")
def split(driver):
    driver.receive(2 << 25 | TWO_KIB)


@mistake("not-modelled", "packets of several pools")
def pools(driver):
    # It is known of the one who receives: our own packets come back.
    driver.receive()
    driver.write((FCTRL, 0x700), (MRQC, 8), (HLREG0, PAD | STRIP | 1 << 15), (RX + TAIL, COUNT - 1))
    driver.send(data())


@mistake("transmit-queue-before-te", "a queue is turned on before DMATXCTL.TE")
def before_te(driver):
    driver.set_up(TX, TX_RING)
    driver.write((TX + CONTROL, ENABLE))


@mistake("transmit-descriptor-type", "a type that there is not")
def transmit_type(driver):
    driver.send((BUFFER, 0, 64 | 5 << 20 | DEXT | EOP | IFCS | RS, 64 << 14))


@mistake("transmit-without-context", "a checksum, and no context")
def no_context(driver):
    driver.send(data(olinfo=64 << 14 | TXSM))


@mistake("transmit-offload", "a checksum behind the packet's end")
def offload(driver):
    driver.send((63 | 127 << 9, 0, CONTEXT | DEXT, 0), data(olinfo=64 << 14 | TXSM))


@mistake("transmit-offload", "segments of no size")
def segments(driver):
    driver.send((20 | 14 << 9, 0, CONTEXT | DEXT | 1 << 11 | 1 << 10, 20 << 8), data(200, TSE, (200 - 54) << 14))


@mistake("transmit-length", "PAYLEN is not what the descriptors have")
def length(driver):
    driver.send(data(olinfo=100 << 14))


@mistake("transmit-short", "a frame of 10 bytes")
def short(driver):
    driver.send(data(10))


@mistake("transmit-short", "a frame of 30 bytes, and nobody pads")
def unpadded(driver):
    driver.write((HLREG0, STRIP))
    driver.send(data(30))


@mistake("transmit-long", "a frame of 16,000 bytes")
def too_long(driver):
    driver.send(data(16000))


@mistake("interrupt-vector", "a queue's cause that EICR has no bit for")
def vector(driver):
    driver.write((IVAR, 0x80 | 20 | (0x80 | 20) << 8))
    driver.send(data())


@mistake("dma-refused", "a packet that is nowhere")
def nowhere(driver):
    driver.send(data(address=NOWHERE))


@mistake("dma-refused", "a ring that is nowhere")
def ring_nowhere(driver):
    driver.write((DMATXCTL, TE), (TX + BAH, 1), (TX + LEN, COUNT * 16), (TX + CONTROL, ENABLE), (TX + TAIL, 1))


@mistake("ring-tail-while-off", "a receive queue is turned on again with descriptors that it was given meanwhile")
def on_again(driver):
    off_while_filled(driver)
    driver.write((RX + CONTROL, ENABLE))


def off_while_filled(driver):
    driver.receive()
    driver.write((RX + TAIL, 10), (RX + CONTROL, 0), (RX + TAIL, 20))


def stopped_and_set_up(driver):
    off_while_filled(driver)
    driver.receive()


def in_reset(driver):
    driver.write((CTRL, CTRL_RST), (FCTRL, 0x700))


def names_in_source():
    """Of all mistakes that the model knows."""
    return set(re.findall(r'\] = "([\w-]+)",', (HERE.parent / "isolation/models/i82599/faults.c").read_text()))


def run(models):
    """The cases."""
    cases = []

    def judge(title, wanted, said):
        found = sorted({line.partition(":")[0] for line in said})
        good = found == wanted
        cases.append(vm.Case("models_mistakes", title, "pass" if good else "fail", "" if good else f"said: {said}, wanted: {wanted}"))

    with tempfile.NamedTemporaryFile("r") as report:
        def said(bench):
            bench.flush()
            return report.read().splitlines()

        options = (f",immediate=on,report={report.name}", "")
        bench = Bench(models, options)
        driver = Driver(bench)
        for title, wanted, make in [("none: all in order", [], all_in_order),
                                    ("none: a receive queue is stopped by one while another fills it", [], stopped_and_set_up),
                                    *((title, [name], make) for title, (name, make) in MISTAKES.items())]:
            driver.reset()
            make(driver)
            judge(title, wanted, said(bench))
        bench.close()
        # Where time stands still a reset does not end.
        bench = Bench(models, options, ["-S"])
        in_reset(Driver(bench))
        judge("register-in-reset: a register is written before a reset has ended", ["register-in-reset"], said(bench))
        bench.close()
    missing = names_in_source() - {name for name, _ in MISTAKES.values()} - {"register-in-reset"}
    cases.append(vm.Case("models_mistakes", "there is a test of each", "fail" if missing else "pass", " ".join(sorted(missing))))
    return cases


def main():
    argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter).parse_args()
    built = subprocess.run([HERE.parent / "isolation/models/build"], stdout=subprocess.PIPE, text=True, check=True)
    return vm.conclude(run(built.stdout.split()))


if __name__ == "__main__":
    vm.run_main(main, FileNotFoundError, ValueError, TimeoutError)
