# SPDX-License-Identifier: MIT
"""Run applications with their maintenance task done in one way or another.

README.md of this folder describes what an application must do to be measured.
"""

import json
import random
from pathlib import Path

import stats

HERE = Path(__file__).resolve().parent
VARIANTS = ("none", "thread", "fork", "orbit")
# Of a counted run's requests; there is one run, and its requests are no repetitions of each other.
SHARES = {"p50": 0.5, "p99": 0.99, "p99.9": 0.999}


class Malformed(ValueError):
    """An application that does not say what it must."""


def registered():
    """The applications of applications.json."""
    found = json.loads((HERE / "applications.json").read_text())
    for each in found:
        if unknown := set(each["variants"]) - set(VARIANTS):
            raise Malformed(f"{each['name']}: no such variant: {', '.join(sorted(unknown))}")
    return found


def command(build, application, variant, counted):
    way = "counted" if counted else "timed"
    return [str(build / application["program"]), f"--variant={variant}", f"--way={way}",
            *application[way]]


def parse(output, variant):
    """What an application printed: {"latency": [...], "request": [...], "begin": [...]}."""
    said, ended, found = {}, False, {"latency": [], "request": [], "begin": []}
    for line in output.splitlines():
        if not line.startswith("{"):
            continue
        try:
            event = json.loads(line)
        except ValueError as error:
            raise Malformed(f"not JSON: {line[:80]}") from error
        if ended:
            raise Malformed("something follows the end")
        if "about" in event:
            said = event["about"]
        if "latency" in event:
            found["latency"] += event["latency"]
        if "begin" in event:
            found["begin"] += event["begin"]
        if "requests" in event:
            found["request"].append(event["time"] / event["requests"])
        if "tasks" in event:
            said = {**said, **event["tasks"]}
        ended = "end" in event
    if not ended:
        raise Malformed("there is no end")
    if said.get("variant") != variant:
        raise Malformed(f"it was to be {variant}, and is {said.get('variant')}")
    if said.get("wrong", 0) or (variant != "none") != bool(said.get("done")):
        raise Malformed(f"tasks: {said.get('done', 0)} done, {said.get('wrong', 0)} wrong")
    if not found["latency"] or not found["request"]:
        raise Malformed("no request was measured")
    return {kind: values for kind, values in found.items() if values}


def names():
    return [(application, variant, f"apps/{application['name']}/{variant}")
            for application in registered() for variant in application["variants"]]


def steps(counted, repetitions):
    return [name for *_, name in names()] * (1 if counted else repetitions)


def run(build, counted, repetitions, execute, on_step):
    """Figures (counted), or samples by repetition (timed), of all applications.

    execute: runs (name, argv) pairs, and yields the name and the output of each.
    """
    if counted:
        variants = {name: variant for _, variant, name in names()}
        figures = {}
        for name, output in execute([(name, command(build, application, variant, True))
                                     for application, variant, name in names()]):
            figures.update(figures_of(name, parse(output, variants[name])))
            on_step(name)
        return figures
    samples, rng = {}, random.Random(1)
    for _ in range(repetitions):
        order = names()
        rng.shuffle(order)      # what else the machine does meanwhile hits all alike
        for application, variant, name in order:
            for _, output in execute([(name, command(build, application, variant, False))]):
                for kind, values in parse(output, variant).items():
                    samples.setdefault(f"{name}/{kind}", []).append(values)
            on_step(name)
    return samples


def figures_of(name, found):
    figures = {f"{name}/latency {share}": stats.percentile(found["latency"], part)
               for share, part in SHARES.items()}
    figures[f"{name}/latency max"] = max(found["latency"])
    figures[f"{name}/request"] = stats.median(found["request"])
    if "begin" in found:
        figures[f"{name}/begin"] = stats.median(found["begin"])
    return figures
