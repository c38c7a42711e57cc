# SPDX-License-Identifier: MIT
"""Results: what programs print, where they ran, and how both are kept as JSON."""

import datetime
import hashlib
import json
import re
import subprocess
from pathlib import Path

import gate
import stats

ROOT = Path(__file__).resolve().parents[2]
MITIGATIONS = Path("/sys/devices/system/cpu/vulnerabilities")
WAYS = {"counted": "instructions", "timed": "ns"}


def series_id():
    """A sum over the kernel patches, in their order."""
    directory, digest = ROOT / "linux-patches", hashlib.sha256()
    for line in (directory / "series").read_text().splitlines():
        if name := line.split("#")[0].strip():
            digest.update(name.encode() + b"\n" + (directory / name).read_bytes())
    return digest.hexdigest()[:16]


def project_id():
    """The commit, and whether anything differs from it."""
    done = subprocess.run(["git", "-C", ROOT, "describe", "--always", "--dirty"],
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True)
    return done.stdout.strip() or "unknown"


def context(way, accelerator, cpu_model=""):
    """What there is to know before a program has run; programs tell the rest."""
    return {"way": way, "unit": WAYS[way], "accelerator": accelerator, "cpu_model": cpu_model,
            "series": series_id(), "project": project_id(),
            "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds")}


class Reader:
    """Reads a program's lines as they come."""

    def __init__(self, on_case=lambda name: None):
        self.on_case = on_case
        self.context, self.figures, self.samples = {}, {}, {}
        self._rest = b""

    def feed(self, data):
        *lines, self._rest = (self._rest + data).split(b"\n")
        for line in lines:
            self.line(line.decode(errors="replace").strip())

    def line(self, line):
        kind, _, rest = line.partition(" ")
        if kind == "context":
            key, _, value = rest.partition(" ")
            if key == "mitigation":
                name, _, state = value.partition(" ")
                self.context.setdefault("mitigations", {})[name] = state
            else:
                self.context[key] = value.strip()
        elif kind == "figure":
            self.figures.update(gate.read_figures(line))
        elif kind == "samples":
            # Names may have spaces, numbers follow the last word of them.
            match = re.fullmatch(r"(.+?)((?: -?\d[\d.e+-]*)+)", rest)
            if match:
                self.samples.setdefault(match[1], []).append([float(n) for n in match[2].split()])
        elif kind == "case":
            self.on_case(rest)


def add_totals(values, add):
    """NAME/total where there are NAME/write and NAME/call."""
    for name in [name.removesuffix("/write") for name in values if name.endswith("/write")]:
        if f"{name}/call" in values:
            values[f"{name}/total"] = add(values[f"{name}/write"], values[f"{name}/call"])


def add_repetitions(writes, calls):
    return [[a + b for a, b in zip(*pair)] for pair in zip(writes, calls)]


def summaries(samples, references):
    """{name: summary} of {name: repetitions}; with the ratio to the question's reference."""
    samples, found = dict(samples), {}
    add_totals(samples, add_repetitions)
    for name, repetitions in sorted(samples.items()):
        found[name] = stats.summarize(repetitions)
        reference = references.get(name.split("/")[0])
        if reference in samples:
            found[name]["ratio"] = {"to": reference, **stats.ratio(repetitions, samples[reference])}
    return found


def natural(name):
    """To sort names by: numbers in them in the order of their values."""
    units = {"": 1, "K": 2**10, "M": 2**20, "G": 2**30}
    return [(0, int(number) * units[unit], "") if number else (1, 0, text)
            for number, unit, text in re.findall(r"(\d+)([KMG]?)\b|([^\d]+|\d+)", name)]


class Data:
    """Results as tables and plots want them: one number for each name."""

    def __init__(self, results):
        self.context = results["context"]
        self.unit = self.context["unit"]
        self.summaries = results.get("timings", {})
        self.values = dict(results.get("figures", {}))
        if self.summaries:
            self.values.update({name: each["median"] for name, each in self.summaries.items()})
        else:
            add_totals(self.values, lambda a, b: a + b)

    def __contains__(self, name):
        return name in self.values

    def __getitem__(self, name):
        return self.values[name]

    def error(self, name):
        """How far the confidence interval goes below and above."""
        summary = self.summaries.get(name)
        return (summary["median"] - summary["low"],
                summary["high"] - summary["median"]) if summary else (0, 0)

    def series(self, template, keys):
        """(keys, values, errors) of those names that there are; {} in the template is the key."""
        found = [key for key in keys if template.format(key) in self]
        return (found, [self[template.format(key)] for key in found],
                [self.error(template.format(key)) for key in found])


def save(path, results):
    """Long lists of samples on a line each, so that a person can find the way around."""
    path.parent.mkdir(parents=True, exist_ok=True)
    text = json.dumps(results, indent=1)
    text = re.sub(r"\[\s+(-?[\d.e+-]+(?:,\s+-?[\d.e+-]+)*)\s+\]",
                  lambda match: "[" + re.sub(r"\s+", " ", match[1]) + "]", text)
    path.write_text(text + "\n")


def load(path):
    return json.loads(Path(path).read_text())
