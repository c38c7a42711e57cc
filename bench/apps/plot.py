# SPDX-License-Identifier: MIT
"""What does a maintenance task cost those who wait for answers?"""

import applications

from drawing import FORK, ORBIT, OTHER, THREAD, bars, finish, panels

COLORS = {"none": OTHER, "thread": THREAD, "fork": FORK, "orbit": ORBIT}
LABELS = {"none": "no task", "thread": "thread, under the lock", "fork": "fork() each time", "orbit": "orbit"}
SHARES = ("p50", "p99", "p99.9", "max")


def draw(data):
    known = [each for each in applications.registered() if any(name.startswith(f"apps/{each['name']}/")
                                                               for name in data.values)]
    figure, axes = panels(data, "What does the task cost those who wait?", 3 * len(known), 4.2, 3.6)
    for at, application in enumerate(known):
        rate, latency, begin = axes[3 * at:3 * at + 3]
        name = f"apps/{application['name']}"
        variants = application["variants"]
        labels = LABELS | application.get("labels", {})
        bars(rate, data, [(labels[each], f"{name}/{each}/request", COLORS[each]) for each in variants])
        rate.set_title(f"{application['name']}: time of a request, on average")
        for number, each in enumerate(variants):
            values = latencies(data, f"{name}/{each}")
            if values:
                latency.plot(SHARES, values, marker="o", color=COLORS[each], label=labels[each])
        latency.set(yscale="log", title="Time until the answer")
        finish(latency, "share of the requests", data.unit)
        bars(begin, data, [(labels[each], f"{name}/{each}/begin", COLORS[each]) for each in variants])
        begin.set_title("To begin the task")
    return figure


def latencies(data, name):
    if summary := data.summaries.get(f"{name}/latency"):
        return [summary[share] for share in SHARES]
    if f"{name}/latency p50" in data:
        return [data[f"{name}/latency {share}"] for share in SHARES]
    return []
