# SPDX-License-Identifier: MIT
"""Tests of the gate, of the checks, and of how results are read."""

import json
import sys
import tempfile
import unittest
from pathlib import Path

BENCH = Path(__file__).resolve().parents[2] / "bench"
sys.path[1:1] = [str(BENCH / "common"), str(BENCH / "apps")]
import applications  # noqa: E402
import checks  # noqa: E402
import gate  # noqa: E402
import guests  # noqa: E402
import progress  # noqa: E402
import results  # noqa: E402


class Gate(unittest.TestCase):
    def verdicts(self, found, baseline, **options):
        return {each.name: each.verdict for each in gate.compare(found, baseline, **options)}

    def test_two_per_cent(self):
        baseline = {"a": 10000.0, "b": 10000.0, "c": 10000.0, "d": 10000.0}
        self.assertEqual(self.verdicts({"a": 10200, "b": 10201, "c": 9800, "d": 9799}, baseline),
                         {"a": "same", "b": "worse", "c": "same", "d": "better"})

    def test_better_passes_worse_does_not(self):
        passes = [each.passes for each in gate.compare({"a": 50.0, "b": 500.0}, {"a": 500.0, "b": 50.0})]
        self.assertEqual(passes, [True, False])

    def test_a_figure_that_is_missing_fails(self):
        (missing,) = gate.compare({}, {"a": 1.0})
        self.assertEqual((missing.verdict, missing.passes), ("missing", False))

    def test_a_figure_without_a_baseline_fails(self):
        (new,) = gate.compare({"a": 1.0}, {})
        self.assertEqual((new.verdict, new.passes), ("new", False))

    def test_a_part_does_not_miss_the_rest(self):
        self.assertEqual(self.verdicts({"a": 100.0}, {"a": 100.0, "b": 1.0}, all_of_it=False),
                         {"a": "same"})

    def test_small_figures_have_some_room(self):
        self.assertEqual(self.verdicts({"a": 15, "b": 16}, {"a": 5.0, "b": 5.0}),
                         {"a": "same", "b": "worse"})

    def test_memory_has_more_room(self):
        baseline = {"x/memory each, KiB": 1000.0, "y/memory each, KiB": 1000.0}
        self.assertEqual(self.verdicts({"x/memory each, KiB": 1050, "y/memory each, KiB": 1051}, baseline),
                         {"x/memory each, KiB": "same", "y/memory each, KiB": "worse"})

    def test_what_processes_carry_has_more_room(self):
        self.assertEqual(self.verdicts({"portable/a": 1100, "portable/b": 1101}, {"portable/a": 1000.0, "portable/b": 1000.0}),
                         {"portable/a": "same", "portable/b": "worse"})

    def test_what_the_scheduler_decides_is_free_but_must_be_there(self):
        baseline = {"scale/queue=16/call": 1000.0, "call/async/batch=1/pages=0": 1000.0}
        self.assertEqual(self.verdicts({"scale/queue=16/call": 3000.0}, baseline),
                         {"scale/queue=16/call": "free", "call/async/batch=1/pages=0": "missing"})
        (free,) = gate.compare({"scale/queue=16/call": 3000.0}, {"scale/queue=16/call": 1000.0})
        self.assertTrue(free.passes)

    def test_figures_are_read_from_what_programs_print(self):
        text = "context x y\nfigure call/a b, KiB -3.0\nnot a figure\nfigure call/c 12.5\ncase call/c\n"
        self.assertEqual(gate.read_figures(text), {"call/a b, KiB": -3.0, "call/c": 12.5})

    def test_the_fast_part_with_nothing_counted_fails(self):
        self.assertEqual([case.outcome for case in guests.judge_quick([], {})], ["fail"])

    def test_the_fast_part_as_cases(self):
        case = guests.vm.Case("bench call", "", "pass", "figure a 100.0\nfigure b 200.0\n")
        outcomes = {each.name: each.outcome
                    for each in guests.judge_quick([case], {"a": 100.0, "b": 100.0, "c": 1.0})}
        self.assertEqual(outcomes, {"a": "pass", "b": "fail", "c": "fail"})

    def test_the_committed_baseline_knows_every_question(self):
        baseline = json.loads(gate.BASELINE.read_text())
        known = {name.removeprefix("noerms/").split("/")[0] for name in baseline["figures"]}
        self.assertEqual(known, set(guests.QUESTIONS))
        self.assertTrue(baseline[guests.QUICK])
        self.assertEqual(baseline["context"]["way"], "counted")


class Checks(unittest.TestCase):
    def figures(self):
        """Such that each holds."""
        figures = {"call/pipe": 1000.0, "call/fork/heap=16M": 200000.0,
                   "scale/orbits=1000/memory each, KiB": 150.0, "scale/forks=1000/memory each, KiB": 100.0,
                   "fault/snapshot/task runs": 300.0, "fault/fork": 300.0,
                   "fault/snapshot": 100.0, "fault/snapshot/scanned": 105.0}
        for name in ("idle", "waiting=0", "waiting=1", "waiting=16", "waiting=256"):
            figures[f"call/queue/{name}"] = 500.0
        for prefix in ("", "noerms/"):
            for pages in (16, 256):
                figures[f"{prefix}call/fork_copies/pages={pages}/write"] = 1000.0 + 300 * pages
        for pool in ("1M", "16M", "256M", "1G"):
            for where in ("adjacent", "scattered", "unread", "adaptive", "adaptive/unread"):
                for pages in (0, 1, 16, 256, 4096):
                    for prefix in ("", "noerms/"):
                        name = f"{prefix}call/sync/pool={pool}/{where}/pages={pages}"
                        figures[f"{name}/write"] = 50.0 * pages
                        figures[f"{name}/call"] = 800.0 + 50 * pages
        for mode, call in ("cow", 900.0), ("copy", 500.0), ("adaptive", 540.0):
            for spread in ("adjacent/every=1", "scattered/mixed"):
                figures[f"modes/{mode}/{spread}/write"] = 10.0
                figures[f"modes/{mode}/{spread}/call"] = call
        for pool in ("64M", "256M", "512M", "1G"):
            figures[f"portable/fork/heap={pool}"] = 100000.0
            for spread, call in ("runs/pages=500", 2000.0), ("scattered/pages=16", 900.0), ("scattered/pages=1024", 4000.0):
                figures[f"portable/pool={pool}/{spread}/call"] = call
        figures["portable/pool=256M/scattered/pages=1024/write"] = 600.0
        figures["portable/fork_copies/heap=256M/pages=1024/write"] = 1000.0
        figures["portable/first/pool=256M/call"] = figures["portable/first/pool=256M/memcpy"] = 5000.0
        return figures

    def test_all_hold(self):
        for check in checks.judge(self.figures()):
            self.assertIs(check.holds, True, check)

    def test_what_does_not_hold_is_told(self):
        figures = self.figures()
        figures["call/pipe"] = 700.0
        figures["call/queue/waiting=256"] = 530.0
        figures["fault/snapshot/scanned"] = 106.0
        figures["modes/adaptive/scattered/mixed/call"] = 560.0
        figures["portable/fork/heap=1G"] = 50000.0
        wrong = [check.what for check in checks.judge(figures) if check.holds is False]
        # One page in two modes, nothing changed, adaptive, the queue, a scan; portable: 16 pages and 1024.
        self.assertEqual(len(wrong), 8, wrong)
        text = "\n".join(checks.table(checks.judge(figures)))
        self.assertEqual(text.count(" NO"), 8)

    def test_what_was_not_measured_neither_holds_nor_not(self):
        found = checks.judge({})
        self.assertEqual({check.holds for check in found}, {None})
        self.assertIn("not measured: call/", "\n".join(checks.table(found)))


class Results(unittest.TestCase):
    def test_lines_as_they_come(self):
        done = []
        reader = results.Reader(done.append)
        for piece in (b"context kernel 6.12\ncontext mitigation meltdown Not aff", b"ected\nfigure a/b 1.5\n",
                      b"samples a c/write 1 2.5 1e+06\nsamples a c/write 3 4 5\ncase a c\n"):
            reader.feed(piece)
        self.assertEqual(reader.context, {"kernel": "6.12", "mitigations": {"meltdown": "Not affected"}})
        self.assertEqual(reader.figures, {"a/b": 1.5})
        self.assertEqual(reader.samples, {"a c/write": [[1, 2.5, 1e6], [3, 4, 5]]})
        self.assertEqual(done, ["a c"])

    def test_write_and_call_are_added_sample_by_sample(self):
        found = results.summaries({"x/write": [[1.0, 100.0, 1.0]], "x/call": [[100.0, 1.0, 2.0]],
                                   "x/pipe": [[50.5]], "y/other": [[1.0]]}, {"x": "x/pipe"})
        self.assertEqual(found["x/total"]["median"], 101)
        self.assertEqual(found["x/total"]["ratio"], {"to": "x/pipe", "median": 2, "low": 2, "high": 2})
        self.assertNotIn("ratio", found["y/other"])
        self.assertEqual(found["x/write"]["median"], 1)

    def test_the_two_ways_have_units_of_their_own(self):
        context = {key: value for key, value in results.context("counted", "tcg, icount").items()}
        for key in ("unit", "series", "accelerator", "date"):
            self.assertTrue(context[key], key)
        self.assertEqual(context["unit"], "instructions")
        self.assertEqual(results.context("timed", "none")["unit"], "ns")

    def test_saved_and_loaded(self):
        with tempfile.TemporaryDirectory() as work:
            path = Path(work, "deep/results.json")
            kept = {"context": {"unit": "ns"}, "samples": {"a": [[1.0, 2.5], [-3e-05]]}}
            results.save(path, kept)
            self.assertEqual(results.load(path), kept)

    def test_numbers_in_names_sort_by_value(self):
        names = ["a/pool=1G", "a/pool=16M", "a/pool=4K", "a/n=1024, KiB", "a/n=16, KiB", "a/p50", "a/p99.9"]
        self.assertEqual(sorted(names, key=results.natural),
                         ["a/n=16, KiB", "a/n=1024, KiB", "a/p50", "a/p99.9", "a/pool=4K", "a/pool=16M",
                          "a/pool=1G"])


class ProgressBar(unittest.TestCase):
    def test_time_left_is_what_the_steps_took_before(self):
        class Out:
            text = ""

            def isatty(self):
                return False

            def write(self, text):
                self.text += text

            def flush(self):
                pass

        with tempfile.TemporaryDirectory() as work:
            memory = Path(work, "durations.json")
            memory.write_text(json.dumps({"a": 10, "b": 20}))
            out = Out()
            bar = progress.Progress(["a", "b", "b", "c"], memory, out)
            self.assertEqual(bar.remaining(), 10 + 20 + 20 + 15)
            bar.step("a")
            self.assertGreaterEqual(bar.remaining(), 40)
            self.assertIn("25%", out.text)
            bar.end()
            self.assertEqual(json.loads(memory.read_text())["b"], 20)


class Applications(unittest.TestCase):
    GOOD = ('{"about": {"application": "kv", "variant": "orbit"}}\nsomething else\n'
            '{"latency": [1, 2]}\n{"latency": [3]}\n{"begin": [9]}\n{"requests": 4, "time": 100}\n'
            '{"tasks": {"done": 2, "wrong": 0}}\n{"end": true}\n')

    def test_what_an_application_says(self):
        self.assertEqual(applications.parse(self.GOOD, "orbit"),
                         {"latency": [1, 2, 3], "request": [25], "begin": [9]})

    def test_what_it_must_not_say(self):
        for what, old, new in (("no end", '{"end": true}\n', ""),
                               ("a task with a wrong result", '"wrong": 0', '"wrong": 1'),
                               ("no task", '"done": 2', '"done": 0'),
                               ("no latency", "latency", "other"),
                               ("another variant", '"orbit"', '"fork"'),
                               ("broken JSON", "[1, 2]}", "[1, 2"),
                               ("more after the end", "true}\n", 'true}\n{"latency": [1]}\n')):
            with self.subTest(what), self.assertRaises(applications.Malformed):
                applications.parse(self.GOOD.replace(old, new), "orbit")

    def test_no_task_has_no_tasks(self):
        text = self.GOOD.replace('"orbit"', '"none"')
        with self.assertRaises(applications.Malformed):
            applications.parse(text, "none")
        self.assertTrue(applications.parse(text.replace('"done": 2', '"done": 0'), "none"))

    def test_the_registered_ones(self):
        for each in applications.registered():
            source = BENCH.parent / (each.get("script") or f"{each['program']}.cc")
            self.assertTrue(source.exists(), source)
            self.assertIn("none", each["variants"])

    def test_every_variant_in_every_repetition(self):
        ran = []

        def execute(pairs):
            for name, argv in pairs:
                ran.append(name)
                variant = name.rsplit("/", 1)[1]
                text = self.GOOD.replace('"orbit"', f'"{variant}"')
                yield name, text.replace('"done": 2', '"done": 0') if variant == "none" else text

        samples = applications.run(Path("build"), False, 3, execute, lambda name: None)
        for name in {name for *_, name in applications.names()}:
            self.assertEqual(ran.count(name), 3)
            self.assertEqual(samples[f"{name}/latency"], [[1, 2, 3]] * 3)
        first = [ran[at:at + len(ran) // 3] for at in range(0, len(ran), len(ran) // 3)]
        self.assertGreater(len({tuple(order) for order in first}), 1, "the order never changes")


if __name__ == "__main__":
    unittest.main()
