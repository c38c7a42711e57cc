# SPDX-License-Identifier: MIT
"""The programs of bench/ in guests that count instructions, and the fast part of the gate."""

import json
import subprocess
import sys
from pathlib import Path

import gate

sys.path.insert(1, str(Path(__file__).resolve().parents[2] / "tests/vm"))
import run as vm  # noqa: E402

# Each with what its table compares with, taken in the same run.
REFERENCES = {"call": "call/pipe", "fault": "fault/fork", "scale": "scale/pool=1M/total",
              "modes": "modes/cow/adjacent/every=1/total", "memory": None,
              "apps": "apps/kv/none/request", "portable": "portable/pool=none",
              "domains": "domains/pipe"}
QUESTIONS = list(REFERENCES)
# A pool of 4 GiB; one of 1 GiB, and a copy of it; elsewhere there are pools of up to 1 GiB.
MEMORY = {"scale": "6G", "portable": "4G"}
USUAL_MEMORY = "3G"
SECONDS = 1800          # for one program, before scaling
QUICK_SECONDS = 300
CPU = "max"             # QEMU's model
# The same without ERMS: with it, each byte of a page that the kernel copies for fork() counts.
NO_ERMS = "max,-erms"
NO_ERMS_CASES = {"call": "call/(pipe|fork_copies|sync/pool=16M/(adjacent|unread|adaptive))",
                 "fault": "fault/(fork|snapshot|snapshot/task runs)$"}
QUICK = "quick"         # the fast part's place in the baseline


class Failed(Exception):
    """A program or a guest that did not do what it should."""


def program(build, question):
    return build / "bench" / question / question


def list_cases(build, question, *options):
    done = subprocess.run([program(build, question), "--list", *options], stdout=subprocess.PIPE,
                          text=True, check=True)
    return done.stdout.split("\n")[:-1]


def make_machine(kernel, question="", cpu=CPU):
    return vm.Machine(kernel, icount=True, memory=MEMORY.get(question, USUAL_MEMORY), cpu=cpu)


def run(machine, tests, on_output=None):
    """Run programs in one guest; returns the cases, which have all passed."""
    report = machine.run(tests, live=on_output)
    bad = [case for case in report.cases if case.outcome == "fail"]
    if bad:
        raise Failed("\n".join(f"{case.title}: {case.output}" for case in bad))
    return report.cases


def output(cases):
    return "\n".join(case.output for case in cases)


# --- the fast part ---------------------------------------------------------------------

def quick_tests(build):
    """What it runs, all in one guest."""
    return [vm.Test(f"bench {question}", [str(program(build, question)), "--way=counted", "--quick"],
                    QUICK_SECONDS)
            for question in QUESTIONS if question != "apps"
            and list_cases(build, question, "--way=counted", "--quick")]


def judge_quick(cases, baseline=None):
    """Each figure against the fast part's own baseline, as test cases.

    (A case costs a little more or less after others have run, so this part has its own.)
    """
    baseline = json.loads(gate.BASELINE.read_text())[QUICK] if baseline is None else baseline
    return [vm.Case("bench gate", each.name, "pass" if each.passes else "fail", str(each))
            for each in gate.compare(gate.read_figures(output(cases)), baseline)] or [
                vm.Case("bench gate", "", "fail", "nothing was counted")]


def count_quick(build, kernel):
    """The figures of the fast part."""
    return gate.read_figures(output(run(make_machine(kernel), quick_tests(build))))
