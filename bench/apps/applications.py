# SPDX-License-Identifier: MIT
"""Run applications with their maintenance task done in one way or another.

README.md of this folder describes what an application must do to be measured.
"""

import functools
import json
import random
import subprocess
from pathlib import Path

import stats

HERE = Path(__file__).resolve().parent
PROJECT = HERE.parents[1]
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


def way_of(counted):
    return "counted" if counted else "timed"


def command(build, application, variant, counted):
    way = way_of(counted)
    program = PROJECT / application["script"] if "script" in application else build / application["program"]
    return [str(program), f"--variant={variant}", f"--way={way}",
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


@functools.cache
def succeeds(program, *arguments):
    return subprocess.run([PROJECT / program, *arguments], stdout=subprocess.DEVNULL,
                          stderr=subprocess.DEVNULL).returncode == 0


def is_ready(application):
    """Whether what an application is made of has been built, if that takes more than a compiler."""
    return "needs" not in application or succeeds(*application["needs"])


def names(counted=False):
    """(application, variant, name) of all that can be measured in this way, and are ready to be."""
    return [(application, variant, f"apps/{application['name']}/{variant}")
            for application in registered() if way_of(counted) in application
            and is_ready(application) for variant in application["variants"]]


def steps(counted, repetitions):
    return [name for *_, name in names(counted)] * (1 if counted else repetitions)


def run(build, counted, repetitions, execute, on_step):
    """Figures (counted), or samples by repetition (timed), of all applications.

    execute: runs (name, argv) pairs, and yields the name and the output of each.
    """
    if counted:
        variants = {name: variant for _, variant, name in names(counted)}
        figures = {}
        for name, output in execute([(name, command(build, application, variant, True))
                                     for application, variant, name in names(counted)]):
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
