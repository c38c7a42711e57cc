#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""All tests: on this host, and on the patched kernel in virtual machines; or those on the kernel with
all checkers.

Normally run by `make test` and `make test-debug`, which build what this needs.  The last line tells
how many tests passed and failed; BUILD/results/ keeps what each machine said.
"""

import argparse
import concurrent.futures
import dataclasses
import multiprocessing
import os
import re
import shutil
import subprocess
import sys
import time
import unittest
from pathlib import Path

HERE = Path(__file__).resolve().parent
POSTGRES = HERE.parent / "examples/postgres-autovacuum"
MYSQL = HERE.parent / "examples/mysql-deadlock"
sys.path.insert(0, str(HERE / "vm"))
sys.path.append(str(HERE.parent / "bench/common"))
import guests as bench  # noqa: E402
import examples  # noqa: E402
import run as vm  # noqa: E402
import stress  # noqa: E402

HOST_SECONDS = 300      # for one program on this host
GUEST_SECONDS = 120     # for one program in a guest, before scaling
LONG_SECONDS = {"inject_test": 300, "modes_test": 200, "refusals": 400,     # a run for each allocation,
                "allocators": 200}                          # or each system call, and more
COUNTED_SECONDS = 300
DEBUGGER_SECONDS = 300
SERVER_BUILD_SECONDS = 1800     # for one of the examples' servers, beside all else
SERVER_SECONDS = 300            # for one of their tests
FUZZ_SECONDS = 5        # for each libFuzzer program; `make fuzz-decoder` and `make fuzz-domains` take longer
STRESS_SECONDS = 20     # of stress, and again of fuzz; `make stress` takes longer
CENSUS_ROUNDS = 200
TOLERANCE = 0.001       # of counted instructions, between two kernels
# These take minutes each on the debug kernel: ORBIT_TEST_ALL=1 runs them there. All but the last four
# have been seen to pass, of access_test all but two of its 65; the patience of those is too short for it.
NOT_ON_DEBUG = {"modes_test", "access_test", "abi_test", "queue_test", "cancel_test", "edges_test", "limits_test", "inject_test",
                "p8_limits", "inherit", "refusals", "allocators", "fork_handlers", "out_of_memory"}
SANITIZERS = ("asan", "tsan")   # the builds in which the unit tests run once more
# And the promises, on the portable backend: the build, and how it finds changed pages.
# Tasks do there what sanitizers are there to stop (the stack, the heap, a null pointer), have less
# memory than a sanitizer needs, or get all variables, the sanitizer's included; and where main adopts
# orphans, two processes share what ThreadSanitizer knows of one thread.
NOT_SANITIZED = {"asan": ("p1_isolation", "p8_limits", "out_of_memory", "inherit"),
                 "tsan": ("p1_isolation", "p8_limits", "out_of_memory", "inherit", "adoption", "commit")}
# An orbit that inherits the minimum takes over variables from the first byte of a segment to the last,
# and AddressSanitizer has marked what lies between them.
NOT_BY_ASAN = ("Containers.InAnOrbitThatInheritsTheMinimum", "P9_Lifetime.NorIfOrbitsInheritTheMinimum",
               "PortableOrbitctl.OrbitsThatInheritTheMinimum",
               # In a forked child its allocator has the locks that other threads held at the fork.
               "Check.AForkedChildMayMakeOrbitsOfItsOwn",
               # The same, and threads of main end there while a domain is started again.
               "Via/Objects.*")
# In a forked child of a program with threads ThreadSanitizer allows no new ones, and maps memory of its
# own where a pool was.
NOT_BY_TSAN = ("P5_Updates.NobodyToReceiveThem", "P10_Access.AForkedChildFindsNoPoolMemory",
               "P10_Access.DestructionInAForkedChildLeavesTheParents",
               "Containers.ThreadsOfATaskShareItsView", "Tasks.ThreadsDoNotOutliveThem",
               "Tasks.MayStartThreadsAndJoinThem", "Tasks.MayKeepThreadsThatAreAskedFor",
               "Scan.OnlyTheTasksThreadCanScan",
               "Check.AForkedChildMayMakeOrbitsOfItsOwn", "DomainsOverRings.EachServiceHasAThreadOfItsOwn",
               "DomainsOverRings.EachObjectOfAServiceHasAThreadOfItsOwn", "DomainsOverRings.ARestartBringsAllObjectsOfAService",
               "D2_OneOwner.OrbitctlShowsWhatDomainsDoAndHave",
               "Via/Objects.*",
               # Minimal inheritance is refused with a sanitizer; and a race for descriptors is wanted there.
               "P9_Lifetime.NorIfOrbitsInheritTheMinimum", "Containers.InAnOrbitThatInheritsTheMinimum",
               "PortableOrbitctl.OrbitsThatInheritTheMinimum", "Refusals.DescriptorsThatTheApplicationHasClosed",
               # It puts signals off, and has a handler of its own between.
               "Tracked.TheApplicationsHandlerIsCalledAsTheKernelWould",
               "SignalHandlers.ThatInterruptTheLibraryAndCallItAreRefusedAndNothingHangs",
               "SignalHandlers.WhatTheyDestroyIsDestroyedWhenTheThreadLeavesTheLibrary",
               "SignalHandlers.ThatInterruptASendDoNotSendIntoIt",
               # Its memory is at none of the addresses that TSan lets programs have.
               "P11_Others.Lesson09_AreNotConcernedByPoolsAtTheirAddresses")
NOT_BY = {"asan": NOT_BY_ASAN, "tsan": NOT_BY_TSAN}
# Tasks crash there on purpose: the signal is wanted, and not the sanitizer's report of it.
LET_CRASH = {"ASAN_OPTIONS": "handle_segv=0:handle_sigbus=0:handle_abort=0",
             "TSAN_OPTIONS": "handle_segv=0:handle_sigbus=0:handle_abort=0:die_after_fork=0"}
PORTABLE = (("", "auto"), ("", "mprotect"), ("asan", "auto"), ("tsan", "auto"))


def executables(directory):
    """The executables in a directory; none if it is not there."""
    return sorted(path for path in directory.glob("*")
                  if path.is_file() and os.access(path, os.X_OK))


def programs(build, kind):
    """What make builds of the sources in tests/KIND.

    One that is missing there fails when it is run; what is there of a source that is gone
    is not run.
    """
    return [build / "tests" / kind / source.stem
            for source in sorted((HERE / kind).glob("*")) if source.suffix in (".c", ".cc")]


def expect(cases, what, found):
    """What was found; to find nothing is a failed test, for nothing else would tell."""
    if not found:
        cases.append(vm.Case(what, "", "fail", "there are none"))
    return found


def run_here(name, command, seconds=HOST_SECONDS, **environment):
    """Run a program on this host, and judge it as one in a guest is judged."""
    try:
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              stdin=subprocess.DEVNULL, timeout=seconds,
                              env={**os.environ, **environment})
        status = done.returncode if done.returncode >= 0 else 128 - done.returncode
        return vm.judge_output(name, status, done.stdout.decode(errors="replace"))
    except subprocess.TimeoutExpired as late:
        return vm.judge_output(name, None, (late.stdout or b"").decode(errors="replace"),
                               "its deadline passed")
    except OSError as error:
        return vm.judge_output(name, None, "", str(error))


def run_example(test, tracker, check):
    """Run an example on this host, by the portable backend. What ORBIT_CHECK tells is a difference:
    examples have no pointers out of their pools."""
    cases = examples.judge(run_here(test.name, test.argv, ORBIT_BACKEND="portable", ORBIT_TRACKER=tracker,
                                    ORBIT_CHECK=check))
    for case in cases:
        case.program = f"portable, {tracker}{', checked' if check == '1' else ''}: {case.program}"
    return cases


def has_libfuzzer():
    if not shutil.which("clang++"):
        return False
    directory = subprocess.run(["clang++", "-print-runtime-dir"], stdout=subprocess.PIPE, text=True,
                               stdin=subprocess.DEVNULL).stdout.strip()
    return any(Path(directory).glob("libclang_rt.fuzzer-*"))


def run_fuzzer(program, results):
    """Run a libFuzzer program for a moment, each time from the same seed; what it finds is kept in the results."""
    name = f"{program.parent.name} {program.name}"
    if not has_libfuzzer():     # then make has not built it
        return [vm.Case(name, "", "skip", "clang or its libFuzzer is not there")]
    results.mkdir(parents=True, exist_ok=True)
    return run_here(name, [program, f"-max_total_time={FUZZ_SECONDS}", "-seed=1", "-max_len=2000", "-verbosity=0",
                           f"-artifact_prefix={results}/fuzz-{program.name}-"])


def server(example, target, build, seconds):
    """make TARGET of an example with a ported server; at its deadline all that it has started ends, too."""
    return ["timeout", "--kill-after=30", str(seconds), "make", "-s", "--no-print-directory", "-C", str(example), target,
            f"BUILD={build.resolve()}"]


def built_server(example, build, *words):
    """Where an example's server is."""
    # What is not there has failed on the host; here a directory that does not exist will fail, too.
    return subprocess.run([example / "build", "path", *words], stdout=subprocess.PIPE, text=True,
                          env={**os.environ, "LIBORBIT": str(build.resolve() / "liborbit/liborbit.a")}
                          ).stdout.strip() or "/none"


def postgres_in_guest(build):
    """A statistics function that crashes, in a server on the patched kernel."""
    return vm.Test("postgres: a crash", [sys.executable, str(POSTGRES / "test.py"), "--built",
                                         built_server(POSTGRES, build, "ported"), "Crashes.test_the_next_table"], SERVER_SECONDS)


def run_unittests(directory):
    """Run the test_*.py of a directory in this process."""
    def leaves(suite):
        for test in suite:
            yield from leaves(test) if isinstance(test, unittest.TestSuite) else [test]

    cases = []
    for test in leaves(unittest.TestLoader().discover(str(directory), top_level_dir=str(directory))):
        result = unittest.TestResult()
        test.run(result)
        wrong = "\n".join(text for _, text in result.failures + result.errors)
        outcome = "fail" if wrong else "skip" if result.skipped else "pass"
        cases.append(vm.Case(directory.name, test.id(), outcome, wrong))
    return cases or [vm.Case(directory.name, "", "fail", "it has no test case")]


def guest_tests(cases, build, kernel):
    """What runs on a kernel: its own selftests, and the promises' tests."""
    found = (expect(cases, f"selftests in {kernel}", executables(kernel / "selftests"))
             + expect(cases, "programs of tests/conformance", programs(build, "conformance"))
             + expect(cases, "programs of tests/compat", programs(build, "compat")))
    tests = [vm.Test(path.name, [str(path)], LONG_SECONDS.get(path.name, GUEST_SECONDS))
             for path in found]
    config = kernel / ".config"
    if config.exists() and "\nCONFIG_ORBIT_KUNIT_TEST=y\n" in config.read_text():
        # They have run while the kernel booted.
        tests.insert(0, vm.Test("kunit", ["cat", "/sys/kernel/debug/kunit/orbit-snapshot/results"]))
    return tests


def counted_figures(cases):
    """The lines "figure NAME NUMBER" that counted tests print."""
    found = re.findall(r"^figure (.+) (\d+\.\d+)$", "\n".join(case.output for case in cases), re.M)
    return {name: float(number) for name, number in found}


def compare_counted(with_orbits, without):
    """P11: what a process without orbits costs on the two kernels; the cases of it."""
    a, b = counted_figures(with_orbits), counted_figures(without)
    cases = []
    for name in sorted({*a, *b}):
        text = f"with CONFIG_ORBIT {a.get(name)}, without {b.get(name)} instructions"
        same = name in a and name in b and abs(a[name] - b[name]) <= TOLERANCE * b[name]
        cases.append(vm.Case("P11: the same without orbits", name, "pass" if same else "fail", text))
    return cases or [vm.Case("P11: the same without orbits", "", "fail", "nothing was counted")]


# What tests/conformance/allocators looks for.
ALLOCATORS = ("libjemalloc.so.2", "libmimalloc.so.2", "libtcmalloc_minimal.so.4")


def allocator_files():
    """Those that are installed here, for a guest to have them at the same place."""
    return {str(path).lstrip("/"): str(path) for name in ALLOCATORS for path in Path("/usr/lib").glob(f"*/{name}")}


# For the kernel's command line, and so for the environment of everything in the guest: that no test passes there by
# the portable backend, and that the memory may go offline or break, for it is the guest's own.
ENVIRONMENT = "ORBIT_BACKEND=kernel ORBIT_TEST_MAY_BREAK_MEMORY=1"


def run_guest(title, machine, tests, results, environment=ENVIRONMENT):
    """Boot one guest for these tests, and keep what it said."""
    if not tests:
        return []
    machine = dataclasses.replace(machine, append=f"{machine.append} {environment}",
                                  files={**machine.files, **allocator_files()})
    print(f"{title} ({machine.accel}, {len(tests)} programs)", flush=True)
    report = machine.run(tests, progress=lambda test, cases, seconds: vm.print_progress(
        test, examples.judge(cases), seconds))
    results.mkdir(parents=True, exist_ok=True)
    vm.write_json(results / f"{title.split()[0]}.json", report)
    for case in report.cases:
        case.program = f"{title.split()[0]}: {case.program}"
    print(f"  {vm.summary(report.cases)}, {report.seconds:.0f} s")
    return report.cases


class Beside:
    """One more process, which judges one thing after the other beside this one, and gives way to it: what
    compiles and boots runs there, and programs whose time matters run here."""

    def __init__(self, progress):
        self.progress = progress
        self.process = concurrent.futures.ProcessPoolExecutor(1, multiprocessing.get_context("spawn"), os.nice, (10,))
        self.running = []

    @staticmethod
    def timed(judge, arguments):
        begin = time.monotonic()
        return judge(*arguments), time.monotonic() - begin

    def run(self, name, judge, *arguments):
        future = self.process.submit(self.timed, judge, arguments)
        future.add_done_callback(lambda done: self.progress(name, *done.result()))
        self.running.append(future)

    def cases(self):
        """All of them, once they have ended."""
        found = [case for future in self.running for case in future.result()[0]]
        self.process.shutdown()
        return found


def print_host(name, new, seconds):
    vm.print_progress(vm.Test(name, []), new, seconds)


def run_server(name, example, targets, build):
    """What a server's example has its tests in; the cases."""
    cases = []
    for target in targets:
        title = f"{name}: {target}"
        new, seconds = Beside.timed(run_here, (title, server(example, target, build, SERVER_SECONDS), SERVER_SECONDS + 60))
        cases += new
        print_host(title, new, seconds)
    return cases


def run_host(build, kernel, results):
    """What needs no machine of its own; the cases, and what goes on beside the virtual machines."""
    print("host", flush=True)
    cases = []

    def host(name, judge, *arguments):
        new, seconds = Beside.timed(judge, arguments)
        cases.extend(new)
        print_host(name, new, seconds)

    # The runner's own tests boot guests too, if they know a kernel.
    os.environ["ORBIT_TEST_KERNEL"] = str(kernel)
    os.environ["ORBIT_TEST_BUILD"] = str(build)
    def compile_server(process, name, example, target):
        # With an empty cache this fetches the sources first.
        process.run(name, run_here, name, server(example, target, build, SERVER_BUILD_SECONDS), SERVER_BUILD_SECONDS + 60)

    servers = Beside(print_host)
    for target in ("vanilla", "ported"):
        compile_server(servers, f"postgres: {target}", POSTGRES, target)
    beside = Beside(print_host)
    for directory in sorted({file.parent for file in HERE.glob("**/test_*.py")}):
        beside.run(directory.name, run_unittests, directory)
    beside.run("liborbit check", run_here, "liborbit check", [
        "make", "-s", "-C", str(HERE.parent / "liborbit"), "check", f"BUILD={(build / 'liborbit').resolve()}"])

    host("examples", examples.judge_sources)
    for directory in (build, *(build / sanitizer for sanitizer in SANITIZERS)):
        for program in (expect(cases, "programs of tests/unit", programs(directory, "unit")) +
                        expect(cases, "programs of tests/isolation", programs(directory, "isolation"))):
            prefix = f"{directory.name}: " if directory != build else ""
            host(prefix + program.name, run_here, prefix + program.name, [program])

    for kind in ("fuzz-decoder", "fuzz-domains"):
        for program in expect(cases, f"programs of tests/{kind}", programs(build, kind)):
            host(f"{kind} {program.name}", run_fuzzer, program, results)
    # The promises once more, by the portable backend, which works on this host's kernel.
    for sanitizer, tracker in PORTABLE:
        directory = build / sanitizer if sanitizer else build
        kinds = ("conformance", "portable") + (() if sanitizer else ("compat",))
        for program in (program for kind in kinds
                        for program in expect(cases, f"programs of tests/{kind} for the portable backend",
                                              programs(directory, kind))):
            if program.name in NOT_SANITIZED.get(sanitizer, ()):
                continue
            name = f"portable, {sanitizer + ', ' if sanitizer else ''}{tracker}: {program.name}"
            host(name, lambda *arguments: run_here(*arguments, ORBIT_BACKEND="portable",
                                                   ORBIT_TRACKER=tracker, **LET_CRASH), name,
                 [program] + (["--gtest_filter=-" + ":".join(NOT_BY[sanitizer])] if sanitizer in NOT_BY else []))

    # What examples print is the same on either backend; the demo judges itself.
    demo = vm.Test("demo", [str(build / "examples/system-map-audit"), str(kernel / "System.map")])
    for _, tracker in (each for each in PORTABLE if not each[0]):
        for test in examples.tests(build) + [demo]:
            host(f"portable, {tracker}: {test.name}", run_example, test, tracker, "0")
            if test is not demo:
                host(f"portable, {tracker}, checked: {test.name}", run_example, test, tracker, "1")

    cases += servers.cases() + beside.cases()
    # InnoDB is wanted by no virtual machine, and these leave a processor half idle. Of MySQL only what the patch touches.
    late = Beside(print_host)
    compile_server(late, "mysql: built", MYSQL, "built")
    compile_server(late, "mysql: MySQL 9.x compiles", MYSQL, "short-mysql")
    return cases + run_server("postgres", POSTGRES, ("short-test", "short-regress", "short-demo"), build), late


def run_on_kernel(build, kernel, off_kernel, results):
    """What runs in virtual machines on the patched kernel; the cases."""
    cases = []
    machine = stress.make_machine(kernel)
    cases += run_guest("vm", machine, guest_tests(cases, build, kernel) + long_tests(build, machine)
                       + examples.tests(build), results)
    counted = [vm.Test(path.name, [str(path)], COUNTED_SECONDS)
               for path in expect(cases, "programs of tests/counted", programs(build, "counted"))]
    machine = vm.Machine(kernel, icount=True, memory="2G")
    with_orbits = run_guest("counted instructions", machine, counted, results)
    cases += with_orbits
    quick = run_guest("bench gate, counted instructions", bench.make_machine(kernel), bench.quick_tests(build),
                      results)
    cases += quick + bench.judge_quick(quick)
    # There gdb finds its own files, and the servers all that they need.
    machine = vm.Machine(kernel, root="host", memory="2G")
    cases += run_guest("debugger", machine, [
        vm.Test("debugger", [sys.executable, str(HERE / "debugger/check.py"),
                             str((build / "tests/debugger/debugged").resolve())],
                DEBUGGER_SECONDS),
        postgres_in_guest(build)], results)
    if off_kernel:
        without = run_guest("off kernel, counted instructions", vm.Machine(off_kernel, icount=True),
                            [test for test in counted if test.name.startswith("p11")], results)
        cases += without + compare_counted(with_orbits, without)
    return cases


def run_on_debug_kernel(build, kernel, results):
    """What runs on the kernel with all checkers; the cases."""
    cases = []
    machine = stress.make_machine(kernel)
    tests = guest_tests(cases, build, kernel)
    if os.environ.get("ORBIT_TEST_ALL"):
        tests += long_tests(build, machine)
    else:
        tests = [test for test in tests if test.name not in NOT_ON_DEBUG]
    return cases + run_guest("debug kernel", machine, tests, results)


def long_tests(build, machine):
    """A short form of what `make stress` runs; each time with another seed."""
    return stress.long_tests(build, machine, STRESS_SECONDS, CENSUS_ROUNDS, int(time.time()))


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--build", type=Path, required=True, help="where make built the tests")
    kernels = parser.add_mutually_exclusive_group(required=True)
    kernels.add_argument("--kernel", type=Path, help="run all but what belongs on the debug kernel")
    kernels.add_argument("--debug-kernel", type=Path, help="run what belongs there, and nothing else")
    parser.add_argument("--off-kernel", type=Path,
                        help="one without CONFIG_ORBIT; without it, nothing is compared with it")
    options = parser.parse_args()
    results = options.build / "results"

    if options.debug_kernel:
        cases = run_on_debug_kernel(options.build, options.debug_kernel, results)
    else:
        cases, late = run_host(options.build, options.kernel, results)
        cases += run_on_kernel(options.build, options.kernel, options.off_kernel, results)
        cases += late.cases() + run_server("mysql", MYSQL, ("short-test", "short-demo"), options.build)
    print()
    return vm.conclude(cases)


if __name__ == "__main__":
    vm.run_main(main, FileNotFoundError, ValueError)
