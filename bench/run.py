#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Measure what orbits cost, and show it.

  run.py [run] --build DIR --kernel DIR [--way counted|timed|all] [QUESTION...]
        measure; print tables; write results and plots to BUILD/bench/results
  run.py check --build DIR --kernel DIR
        counted only: compare with bench/baseline.json (2 %), and print what is to be shown
  run.py baseline --build DIR --kernel DIR
        counted only: make these figures the baseline
  run.py publish --build DIR --kernel DIR
        the last results into bench/results, and their plots into the questions' folders

Counted is in an emulated guest, where time counts instructions: the same in every run.
Timed is on this machine, with the backend that works here; and, if a guest can use KVM,
there on the patched kernel (timed-kvm).  README.md says what the figures are worth.
"""

import argparse
import json
import os
import subprocess
import sys
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE / "common"), str(HERE / "apps")]
import applications  # noqa: E402
import checks  # noqa: E402
import gate  # noqa: E402
import guests  # noqa: E402
import plots  # noqa: E402
import results  # noqa: E402
from guests import QUESTIONS, REFERENCES, Failed, list_cases, program, vm  # noqa: E402
from progress import Progress  # noqa: E402


def run_here(name, argv, on_output):
    """Run one program on this machine."""
    with subprocess.Popen(argv, stdout=subprocess.PIPE, stdin=subprocess.DEVNULL) as process:
        while data := os.read(process.stdout.fileno(), 1 << 16):
            on_output(data)
    if process.returncode:
        raise Failed(f"{name}: exit status {process.returncode}")


class Session:
    """The questions asked in one way; what came out."""

    def __init__(self, options, way, questions):
        self.options, self.way, self.questions = options, way, questions
        self.figures, self.samples, self.context = {}, {}, {}

    def jobs(self):
        """(question, prefix of names, CPU model, options) of each program to run."""
        counted = self.way == "counted"
        repeat = [] if counted else [f"--repetitions={self.options.repetitions}"]
        for question in self.questions:
            # These count memory, which takes a machine without other programs.
            if question == "apps" or (question == "memory" and self.way == "timed"):
                continue
            # Modes are all alike in the portable backend.
            if self.way != "timed" or list_cases(self.options.build, question, "--way=timed"):
                yield question, "", "", [f"--way={'counted' if counted else 'timed'}", *repeat]
            if counted and question in guests.NO_ERMS_CASES:
                yield question, checks.NO_ERMS, guests.NO_ERMS, [
                    "--way=counted", f"--filter={guests.NO_ERMS_CASES[question]}"]

    def steps(self):
        repeat = 1 if self.way == "counted" else self.options.repetitions
        for question, prefix, _, options in self.jobs():
            for name in list_cases(self.options.build, question, *options):
                yield from [f"{self.way} {prefix}{name}"] * repeat
        if "apps" in self.questions:
            yield from (f"{self.way} {name}" for name in
                        applications.steps(self.way == "counted", self.options.repetitions))

    def machine(self, question="", cpu=""):
        if self.way == "counted":
            return guests.make_machine(self.options.kernel, question, cpu or guests.CPU)
        return vm.Machine(self.options.kernel, accel="kvm",
                          memory=guests.MEMORY.get(question, guests.USUAL_MEMORY))

    def run(self):
        progress = Progress(self.steps(), self.options.build / "bench/durations.json")
        for question, prefix, cpu, options in self.jobs():
            reader = results.Reader(lambda name, p=prefix: progress.step(f"{self.way} {p}{name}"))
            argv = [program(self.options.build, question), *options]
            if self.way == "timed":
                run_here(question, argv, reader.feed)
            else:
                guests.run(self.machine(question, cpu), [vm.Test(question, [str(word) for word in argv],
                                                                 guests.SECONDS)], reader.feed)
            if not reader.figures and not reader.samples:
                raise Failed(f"{question}: it printed nothing")
            self.figures.update({prefix + name: value for name, value in reader.figures.items()})
            self.samples.update(reader.samples)
            if not prefix:
                self.context = {**reader.context, **self.context}   # the first: portable is another backend
        if "apps" in self.questions:
            self.run_apps(progress)
        progress.end()

    def run_apps(self, progress):
        def execute(argvs):
            """What each of these printed."""
            if self.way == "timed":
                for name, argv in argvs:
                    output = bytearray()
                    run_here(name, argv, output.extend)
                    yield name, output.decode()
                return
            tests = [vm.Test(name, argv, guests.SECONDS) for name, argv in argvs]
            for case in guests.run(self.machine(), tests):
                yield case.program, case.output

        counted = self.way == "counted"
        measured = applications.run(self.options.build, counted, self.options.repetitions, execute,
                                    lambda name: progress.step(f"{self.way} {name}"))
        (self.figures if counted else self.samples).update(measured)

    def results(self):
        """As they are kept: those of the timed way with all samples."""
        accelerator = {"counted": "tcg, icount", "timed": "none", "timed-kvm": "kvm"}[self.way]
        context = {**results.context("counted" if self.way == "counted" else "timed", accelerator,
                                     guests.CPU if self.way == "counted" else ""),
                   **self.context}
        if self.way == "counted":
            return {"context": context, "figures": self.figures}
        context["repetitions"] = self.options.repetitions
        # Figures are here what no clock measures.
        return {"context": context, "figures": self.figures, "timings": results.summaries(self.samples, REFERENCES),
                "samples": self.samples}


# --- for people ------------------------------------------------------------------------

def print_table(data, questions):
    """Each figure, and its ratio to what the question compares with, taken in the same run."""
    for question in questions:
        names = sorted((name for name in data.values if name.startswith(question + "/")), key=results.natural)
        if not names:
            continue
        reference = REFERENCES[question]
        scale = data.values.get(reference)
        title = (HERE / question / "README.md").read_text().split("\n")[0].lstrip("# ")
        print(f"\n{question}: {title}")
        timed = bool(data.summaries)
        print(f"  {'':<52}{data.unit:>14}" + (f"{'/ ' + reference:>34}" if scale else "")
              + (f"{'95 %':>24}{'p50':>16}{'p99':>16}{'p99.9':>16}" if timed else ""))
        for name in names:
            line = f"  {name:<52}{gate.text(data[name]):>14}"
            if scale:
                line += f"{'' if gate.is_memory(name) else f'{data[name] / scale:.3g}':>34}"
            if summary := data.summaries.get(name):
                ratio = summary.get("ratio")
                line += (f"{ratio['low']:.3g} to {ratio['high']:.3g}" if ratio else "").rjust(24)
                line += "".join(f"{gate.text(summary[share]):>16}" for share in ("p50", "p99", "p99.9"))
            print(line)


def print_checks(figures):
    print()
    for line in checks.table(checks.judge(figures)):
        print(line)


# --- what is done ----------------------------------------------------------------------

def ways(options):
    chosen = {"all": ["counted", "timed"]}.get(options.way, [options.way])
    if options.way == "all" and vm.choose_accelerator(options.kernel) == "kvm":
        chosen.append("timed-kvm")
    return chosen


def measure(options):
    for way in ways(options):
        print(f"{way}: {', '.join(options.questions)}", file=sys.stderr)
        session = Session(options, way, options.questions)
        session.run()
        measured = session.results()
        path = options.out / f"{way}.json"
        results.save(path, measured)
        data = results.Data(measured)
        print_table(data, options.questions)
        if way == "counted":
            print_checks(measured["figures"])
        print(f"\nraw results: {path}")
        print("plots:", *draw(data, options.questions, options.out / f"{way}"))
    return 0


def draw(data, questions, directory):
    """Directories for people to look into."""
    for question in questions:
        if any(name.startswith(question + "/") for name in data.values):
            try:
                plots.draw(data, question, directory)
            except ModuleNotFoundError as missing:
                return [f"none: {missing}; {sys.executable} is not the python3 of the packages?"]
    return [directory]


def publish(options):
    """The last results into bench/results, without the single samples, and their plots beside the
    questions."""
    found = [path for path in (options.out / "counted.json", options.out / "timed.json") if path.exists()]
    for path in found:
        kept = results.load(path)
        kept.pop("samples", None)
        results.save(HERE / "results" / path.name, kept)
        data = results.Data(kept)
        for question in QUESTIONS:
            draw(data, [question], HERE / question)
    return 0 if found else 1


def count_all(options):
    session = Session(options, "counted", options.questions)
    session.run()
    measured = session.results()
    results.save(options.out / "counted.json", measured)
    return measured


def check(options):
    measured = count_all(options)
    baseline = json.loads(gate.BASELINE.read_text())
    wanted = {name: value for name, value in baseline["figures"].items()
              if name.removeprefix("noerms/").split("/")[0] in options.questions}
    differences = gate.compare(measured["figures"], wanted)
    print_checks(measured["figures"])
    print()
    for each in differences:
        if each.verdict != "same":
            print(each)
    failed = [each for each in differences if not each.passes]
    print(f"{len(differences) - len(failed)} of {len(differences)} figures are as in the baseline or better "
          f"(series {baseline['context']['series']}; this is {measured['context']['series']})")
    return 1 if failed or not differences else 0


def set_baseline(options):
    measured = count_all(options)
    quick = guests.count_quick(options.build, options.kernel)
    if options.questions != QUESTIONS:
        old = json.loads(gate.BASELINE.read_text())["figures"]
        measured["figures"] = {**old, **measured["figures"]}
    results.save(gate.BASELINE, {"context": measured["context"],
                                 "figures": dict(sorted(measured["figures"].items())),
                                 guests.QUICK: dict(sorted(quick.items()))})
    print(f"{gate.BASELINE}: {len(measured['figures'])} figures, {len(quick)} of the fast part")
    return 0


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="?", default="run", choices=("run", "check", "baseline", "publish"))
    parser.add_argument("questions", nargs="*", metavar="QUESTION", help=" ".join(QUESTIONS))
    parser.add_argument("--build", type=Path, required=True, help="where make built the programs")
    parser.add_argument("--kernel", type=Path, required=True, help="a built kernel's directory")
    parser.add_argument("--way", choices=("counted", "timed", "timed-kvm", "all"), default="all")
    parser.add_argument("--repetitions", type=int, default=9, help="in the timed way")
    parser.add_argument("--out", type=Path, help="for results and plots")
    options = parser.parse_args()
    options.out = options.out or options.build / "bench/results"
    options.questions = options.questions or QUESTIONS
    if unknown := set(options.questions) - set(QUESTIONS):
        parser.error(f"no such question: {', '.join(sorted(unknown))}")
    return {"run": measure, "check": check, "baseline": set_baseline,
            "publish": publish}[options.what](options)


if __name__ == "__main__":
    try:
        sys.exit(main())
    except KeyboardInterrupt:
        sys.exit(130)
    except (Failed, FileNotFoundError, ValueError, subprocess.CalledProcessError) as error:
        sys.exit(f"bench: {error}")
