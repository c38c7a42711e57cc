#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""DPDK's testpmd on two models of the 82599, in a guest that counts instructions: what a forwarded packet costs it.

Normally run by run.py.  Both ports are on one wire, and what the one receives the other sends: so a batch of packets goes round
each way for ever, as it does in ixgbe.cc.  The one processor does nothing else, so testpmd's own packets a second are packets a
thousand million instructions.
"""

import glob
import re
import shutil
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE.parents[1] / "tests"), str(HERE.parents[1] / "tests/vm")]
import run as vm  # noqa: E402

PROGRAM = "dpdk-testpmd"
DRIVERS = ["bus_pci", "bus_vdev", "mempool_ring", "net_ixgbe"]
SECONDS = 900           # before scaling
PORTS = ["0000:00:10.0", "0000:00:11.0"]
SCRIPT = r"""
mkdir -p /var/run
chmod 755 /
for port in %(ports)s; do
    device=/sys/bus/pci/devices/$port
    echo vfio-pci >$device/driver_override
    [ -e $device/driver ] && echo $port >$device/driver/unbind
    echo $port >/sys/bus/pci/drivers_probe
done
(sleep 2; echo start tx_first; sleep 1; echo show port stats all; sleep 1; echo show port stats all; echo stop; echo quit) |
    %(program)s %(drivers)s %(allow)s --lcores 0@0,1@0 --no-huge -m 256 --iova-mode=va --no-telemetry -- \
        -i --burst=%(burst)d --rxd=512 --txd=512 --total-num-mbufs=4096 --forward-mode=io
"""


def installed():
    return bool(shutil.which(PROGRAM))


def files():
    """What the guest needs of DPDK, by its places there."""
    libraries = [sorted(glob.glob(f"/usr/lib/*/dpdk/pmds-*/librte_{name}.so.*"))[0] for name in DRIVERS]
    wanted = {library for path in (shutil.which(PROGRAM), *libraries) for library in vm.shared_libraries(path)}
    return libraries, {path: path for path in (*libraries, *wanted, shutil.which(PROGRAM))}


def test(burst):
    """The test, for a machine that has files()."""
    libraries, _ = files()
    script = SCRIPT % {"ports": " ".join(PORTS), "program": shutil.which(PROGRAM), "burst": burst,
                       "drivers": " ".join(f"-d {path}" for path in libraries), "allow": " ".join(f"-a {port}" for port in PORTS)}
    return vm.Test(f"testpmd, batch={burst}", ["sh", "-c", script], SECONDS)


def instructions(output):
    """For each packet forwarded, of what testpmd printed."""
    rates = [int(number) for number in re.findall(r"Rx-pps:\s+(\d+)", output)]
    if len(rates) != 2 * len(PORTS) or not all(rates[len(PORTS):]):
        raise ValueError(f"testpmd forwards nothing: {output}")
    return 1e9 / sum(rates[len(PORTS):])
