# SPDX-License-Identifier: MIT
"""What does a call between domains cost?"""

from drawing import FORK, ORBIT, OTHER, THREAD, bars, finish, line, panels

BYTES = {"8": 8, "4K": 4096, "64K": 65536}


def draw(data):
    figure, (left, right) = panels(data, "What does a call between domains cost?", 2, 5.2, 3.8)
    bars(left, data, [
        (label, name, color) for label, name, color in (
            ("virtual call", "domains/virtual", OTHER),
            ("direct", "domains/direct/nothing", ORBIT),
            ("ring, other core, one of 32", "domains/ring/other core/batch=32", ORBIT),
            ("ring, other core", "domains/ring/other core/nothing", ORBIT),
            ("ring, same core", "domains/ring/same core/nothing", ORBIT),
            ("iceoryx, other core", "domains/iceoryx/other core/bytes=8", OTHER),
            ("iceoryx, same core", "domains/iceoryx/same core/bytes=8", OTHER),
            ("orbit call", "domains/call", FORK),
            ("futex, two processes", "domains/futex", OTHER),
            ("pipe, two processes", "domains/pipe", OTHER),
            ("Unix socket, two processes", "domains/socket", OTHER))
        if name in data.values])
    left.set_title("A call")
    for transport, label, color in (("direct", "direct", ORBIT), ("ring/other core", "ring, other core", THREAD),
                                    ("ring/same core", "ring, same core", FORK)):
        if f"domains/{transport}/pass/bytes=8" in data.values:
            line(right, data, f"domains/{transport}/pass/bytes={{}}", BYTES, label, color=color)
    for transport in ("other core", "same core"):
        if f"domains/iceoryx/{transport}/bytes=8" in data.values:
            line(right, data, f"domains/iceoryx/{transport}/bytes={{}}", BYTES, f"iceoryx, {transport}", color=OTHER)
    right.set(xscale="log", yscale="log", title="A buffer is moved there and back")
    finish(right, "bytes", data.unit)
    return figure
