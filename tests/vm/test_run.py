# SPDX-License-Identifier: MIT
"""Tests of the virtual machine runner: above all, that nothing counts as passed by accident.

Most need no machine.  Those in Guests boot the kernel in $ORBIT_TEST_KERNEL, if it is set.
"""

import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import run  # noqa: E402

GTEST = """\
Running main() from gtest_main.cc
[==========] Running 3 tests from 1 test suite.
[----------] Global test environment set-up.
[ RUN      ] Pool.Maps
[       OK ] Pool.Maps (3 ms)
[ RUN      ] Pool.Grows
pool.cc:7: Skipped
[  SKIPPED ] Pool.Grows (0 ms)
[ RUN      ] Sizes/Pool.Holds/1
a line without an end[       OK ] Sizes/Pool.Holds/1 (12 ms)
[----------] Global test environment tear-down
[==========] 3 tests from 1 test suite ran. (15 ms total)
[  PASSED  ] 2 tests.
[  SKIPPED ] 1 test, listed below:
[  SKIPPED ] Pool.Grows
"""

TAP = """\
TAP version 13
1..3
# Starting 3 tests from 1 test cases.
#  RUN           global.query ...
#            OK  global.query
ok 1 global.query
#  RUN           global.huge ...
#      SKIP      no huge pages
ok 2 global.huge # SKIP no huge pages
#  RUN           global.pool ...
# pool.c:9:pool:Expected 1 (1) == 2 (2)
#          FAIL  global.pool
not ok 3 global.pool
# FAILED: 2 / 3 tests passed.
# Totals: pass:1 fail:1 xfail:0 xpass:0 skip:1 error:0
"""


def outcomes(cases):
    return [(case.name, case.outcome) for case in cases]


def failures(cases):
    return [case for case in cases if case.outcome == "fail"]


class Judge(unittest.TestCase):
    def only_failure(self, cases):
        wrong = failures(cases)
        self.assertEqual(len(wrong), 1, cases)
        return wrong[0].output.splitlines()[0]

    def test_gtest(self):
        self.assertEqual(outcomes(run.judge_output("p", 0, GTEST)), [
            ("Pool.Maps", "pass"), ("Pool.Grows", "skip"), ("Sizes/Pool.Holds/1", "pass")])

    def test_gtest_failure_keeps_its_output(self):
        text = GTEST.replace("[       OK ] Pool.Maps (3 ms)",
                             "pool.cc:3: Failure\n[  FAILED  ] Pool.Maps (3 ms)")
        wrong = failures(run.judge_output("p", 1, text))
        self.assertEqual(outcomes(wrong), [("Pool.Maps", "fail")])
        self.assertEqual(wrong[0].output, "pool.cc:3: Failure")

    def test_gtest_failure_with_parameter(self):
        text = GTEST.replace("[       OK ] Sizes/Pool.Holds/1 (12 ms)",
                             "\n[  FAILED  ] Sizes/Pool.Holds/1, where GetParam() = 4 (12 ms)")
        self.assertEqual(outcomes(failures(run.judge_output("p", 1, text))),
                         [("Sizes/Pool.Holds/1", "fail")])

    def test_gtest_that_was_cut_short_fails_wherever_it_is_cut(self):
        end = GTEST.index("[       OK ] Sizes")
        for length in range(GTEST.index("[==========]") + 30, end):
            with self.subTest(length=length):
                self.assertTrue(failures(run.judge_output("p", 0, GTEST[:length])))

    def test_gtest_that_ran_a_test_twice_fails(self):
        again = "[ RUN      ] Pool.Maps\n[       OK ] Pool.Maps (3 ms)\n"
        text = GTEST.replace("[----------] Global test environment tear", again + "[----------] ")
        self.assertIn("announced 3 tests, and 4", self.only_failure(run.judge_output("p", 0, text)))

    def test_gtest_without_a_test_fails(self):
        text = "[==========] Running 0 tests from 0 test suites.\n"
        self.assertIn("no test", self.only_failure(run.judge_output("p", 0, text)))

    def test_good_output_and_bad_status_fails(self):
        for status, why in ((1, "exit status 1"), (139, "signal 11"), (None, "no exit status")):
            with self.subTest(status=status):
                self.assertIn(why, self.only_failure(run.judge_output("p", status, GTEST)))

    def test_tap(self):
        cases = run.judge_output("p", 1, TAP)
        self.assertEqual(outcomes(cases), [
            ("global.query", "pass"), ("global.huge", "skip"), ("global.pool", "fail")])
        self.assertIn("Expected 1 (1) == 2 (2)", cases[2].output)
        self.assertNotIn("global.huge", cases[2].output)

    def test_tap_that_was_cut_short_fails(self):
        lines = TAP.splitlines(keepends=True)
        for count in range(1, len(lines) - 3):
            with self.subTest(lines=count):
                self.assertTrue(failures(run.judge_output("p", 0, "".join(lines[:count]))))

    def test_tap_without_plan_fails(self):
        text = "TAP version 13\nok 1 a\nok 2 b\n"
        self.assertIn("no plan", self.only_failure(run.judge_output("p", 0, text)))

    def test_tap_skipped_whole(self):
        cases = run.judge_output("p", 0, "TAP version 13\n1..0 # SKIP not on this kernel\n")
        self.assertEqual([case.outcome for case in cases], ["skip"])

    def test_tap_subtests_do_not_count(self):
        text = "TAP version 13\n1..1\n    1..2\n    ok 1 a\n    not ok 2 b\nok 1 all\n"
        self.assertEqual(outcomes(run.judge_output("p", 0, text)), [("all", "pass")])

    def test_plain_program(self):
        self.assertEqual(outcomes(run.judge_output("p", 0, "hello\n")), [("", "pass")])
        self.assertIn("exit status 2", self.only_failure(run.judge_output("p", 2, "hello\n")))
        self.assertIn("signal 6", self.only_failure(run.judge_output("p", 134, "hello\n")))
        self.assertIn("deadline", self.only_failure(run.judge_output("p", 137, "", "its deadline passed")))


class Log(unittest.TestCase):
    def test_complaints(self):
        for line in ("BUG: KASAN: slab-use-after-free in orbit_call+0x1/0x2",
                     "WARNING: CPU: 1 PID: 7 at mm/memory.c:3 do_x+0x1/0x2",
                     "WARNING: possible circular locking dependency detected",
                     "Oops: general protection fault, probably for non-canonical address 0x1",
                     "BUG: kernel NULL pointer dereference, address: 0000000000000008",
                     "INFO: task orbit:12 blocked for more than 122 seconds.",
                     "INFO: trying to register non-static key.",
                     "rcu: INFO: rcu_preempt self-detected stall on CPU",
                     "BUG: Bad rss-counter state mm:00000000 type:MM_SHMEMPAGES val:1",
                     "BUG: Bad page state in process x  pfn:1",
                     "kmemleak: 3 new suspected memory leaks (see /sys/kernel/debug/kmemleak)",
                     "watchdog: BUG: soft lockup - CPU#0 stuck for 26s!",
                     "Kernel panic - not syncing: Fatal exception"):
            with self.subTest(line=line):
                self.assertEqual(len(run.scan_log(f"[    1.0] fine\n[    2.0] {line}\n")), 1)

    def test_what_is_none(self):
        for line in ("Linux version 6.12.1 (gcc (Debian 12.2.0)) #1 SMP PREEMPT_DYNAMIC",
                     "prog[12]: segfault at 0 ip 00401b sp 7ffc error 6 in prog[401000+1000]",
                     "traps: prog[12] general protection fault ip:401b sp:7ffc error:0 in prog[401000+1000]",
                     "kasan: KernelAddressSanitizer initialized",
                     "kmemleak: Kernel memory leak detector initialized (mem pool available: 39000)",
                     "Lock dependency validator: Copyright (c) 2006 Red Hat, Inc., Ingo Molnar",
                     "Out of memory: Killed process 7 (hog) total-vm:1kB",
                     "DEBUG: nothing", "Freeing unused kernel image (initmem) memory: 1008K"):
            with self.subTest(line=line):
                self.assertEqual(run.scan_log(f"[    1.0] {line}\n"), [])

    def test_context_and_count(self):
        lines = [f"line {n}" for n in range(200)]
        lines[50] = "BUG: one"
        lines[52] = "WARNING: of the same"
        lines[150] = "WARNING: another"
        found = run.scan_log("\n".join(lines))
        self.assertEqual(len(found), 2)
        self.assertIn("line 48", found[0])
        self.assertIn("line 70", found[0])

    RACE = """\
[    1.0] ==================================================================
[    1.0] BUG: KCSAN: data-race in {} / {}
[    1.0] 
[    1.0] write to 0xffff888003dd9b30 of 4 bytes by task 70 on cpu 1:
[    1.0]  {}+0x10d/0x230
[    1.0]  {}+0x1f3/0x2a0
[    1.0]  do_syscall_64+0x7f/0x150
[    1.0] 
[    1.0] read to 0xffff888003dd9b30 of 4 bytes by task 71 on cpu 0:
[    1.0]  {}+0x5d/0xb0
[    1.0]  do_syscall_64+0x7f/0x150
[    1.0] 
[    1.0] Reported by Kernel Concurrency Sanitizer on:
[    1.0] CPU: 0 UID: 0 PID: 71 Comm: x Not tainted 6.12.0 #1
[    1.0] ==================================================================
[    1.0] the next line
"""

    def race(self, writer, caller, reader):
        return self.RACE.format(writer, reader, writer, caller, reader)

    def test_a_race_of_ours_is_a_complaint(self):
        for names in (("orbit_task_wait", "x", "y"), ("x", "y", "orbit_end"), ("x", "orbit_serve", "y"),
                      ("x", "y", "__x64_sys_orbit_call")):
            with self.subTest(names=names):
                found, others = run.read_log(self.race(*names))
                self.assertEqual((len(found), others), (1, []))
                self.assertNotIn("the next line", found[0])

    def test_a_race_of_others_is_kept_and_none(self):
        text = self.race("tick_nohz_stop_tick", "do_idle", "update_process_times")
        found, others = run.read_log(text + text)
        self.assertEqual((found, len(others)), ([], 2))
        self.assertIn("do_idle", others[0])
        # An orbit's system call further up in a stack is nobody's race.
        self.assertEqual(run.scan_log(self.race("x", "__x64_sys_orbit_call", "y")), [])

    def test_a_race_in_an_interrupt_is_not_that_of_what_it_broke_into(self):
        broken = "asm_sysvec_apic_timer_interrupt+0x1b/0x20\n[    1.0]  orbit_pool_create"
        self.assertEqual(run.scan_log(self.race("tick", broken, "y")), [])
        # The other stack of the same report is looked at.
        self.assertEqual(len(run.scan_log(self.race("tick", broken, "y+0x1/0x2\n[    1.0]  orbit_end"))), 1)
        # And so is what the interrupt itself does.
        self.assertEqual(len(run.scan_log(self.race("x", "orbit_timer+0x1/0x2\n[    1.0]  " + broken, "y"))), 1)

    def test_the_cred_of_a_file_that_we_make_is_none_of_ours(self):
        made = "alloc_empty_file+0x94/0x1c0\n[    1.0]  orbit_pool_create"
        self.assertEqual(run.scan_log(self.race("init_file", made, "init_file")), [])
        # What we do with it afterwards is.
        self.assertEqual(len(run.scan_log(self.race("init_file", made, "orbit_end"))), 1)
        self.assertEqual(len(run.scan_log(self.race("orbit_pool_open", made, "y"))), 1)

    def test_a_marked_access_of_ours_is_none_of_ours(self):
        for other, number in (("y", 0), ("orbit_end", 1)):
            text = self.race("orbit_protect_pool", "x", other)
            for kind in ("write (marked) to", "read-write (marked, reordered) to"):
                with self.subTest(other=other, kind=kind):
                    self.assertEqual(len(run.scan_log(text.replace("write to", kind))), number)
        text = self.race("orbit_protect_pool", "x", "y").replace("write to", "write (reordered) to")
        self.assertEqual(len(run.scan_log(text)), 1)

    def test_a_race_hides_no_other_complaint(self):
        text = self.race("x", "y", "z")
        self.assertEqual(len(run.scan_log(text + "[    1.1] BUG: one\n")), 1)
        half = text[:text.index("[    1.0] Reported")]
        self.assertEqual(len(run.scan_log(half + "[    1.1] Oops: 0002 [#1]\n")), 1)
        self.assertEqual(len(run.read_log(half)[1]), 1)


class StreamTest(unittest.TestCase):
    DATA = (b"\n@@n begin a b\nhello\n@@other\nno end\n@@n end 0 a b\n\n@@n plan 1\n")
    WANTED = [("begin", "a b"), ("output", b"hello\n@@other\nno end"), ("end", "0 a b"),
              ("plan", "1")]

    def events(self, pieces):
        stream, joined = run.Stream("n"), []
        for piece in pieces:
            for kind, value in stream.feed(piece):
                if kind == "output" and joined and joined[-1][0] == "output":
                    joined[-1] = (kind, joined[-1][1] + value)
                else:
                    joined.append((kind, value))
        return joined

    def test_whole_and_in_pieces(self):
        for size in (1, 2, 3, 7, len(self.DATA)):
            pieces = [self.DATA[at:at + size] for at in range(0, len(self.DATA), size)]
            self.assertEqual(self.events(pieces), self.WANTED)

    def test_output_is_not_held_back(self):
        self.assertEqual(run.Stream("n").feed(b"a prompt: "), [("output", b"a prompt: ")])


class InitramfsTest(unittest.TestCase):
    @unittest.skipUnless(shutil.which("busybox"), "needs busybox")
    def test_unpacks(self):
        image = run.Initramfs()
        image.add("a/b/odd", b"12345")
        image.add("a/empty")
        image.add("script", b"#!/bin/sh\n", mode=0o640)
        with tempfile.TemporaryDirectory() as work:
            subprocess.run(["busybox", "cpio", "-idm"], cwd=work, input=bytes(image), check=True,
                           capture_output=True)
            self.assertEqual(Path(work, "a/b/odd").read_bytes(), b"12345")
            self.assertEqual(Path(work, "a/empty").read_bytes(), b"")
            self.assertEqual(Path(work, "script").stat().st_mode & 0o7777, 0o640)

    def test_same_content_same_bytes(self):
        def image():
            made = run.Initramfs()
            made.add("x/y", b"1")
            return bytes(made)
        self.assertEqual(image(), image())

    def test_shared_libraries(self):
        found = run.shared_libraries(sys.executable)
        self.assertTrue(any("libc.so" in path for path in found), found)
        self.assertTrue(any("ld-linux" in path for path in found), found)
        self.assertTrue(all(os.path.exists(path) for path in found), found)

    @unittest.skipUnless(shutil.which("busybox"), "needs busybox")
    def test_a_static_program_needs_none(self):
        self.assertEqual(run.shared_libraries(shutil.which("busybox")), [])


class FakeMachine(unittest.TestCase):
    """A shell script in QEMU's place: what if the machine itself misbehaves?"""

    def boot(self, script, tests=("one", "two"), deadline=None):
        with tempfile.TemporaryDirectory() as work:
            fake = Path(work, "qemu")
            fake.write_text("#!/bin/sh\n"
                            "for word; do case $word in\n"
                            "    file:*) console=${word#file:} ;;\n"
                            "    file,id=results,*) results=${word##*path=} ;;\n"
                            "    /*initrd) nonce=$(tr '\\0' '\\n' <$word | sed -n s/^nonce=//p) ;;\n"
                            "esac; done\n"
                            "mark() { printf '\\n@@%s %s\\n' $nonce \"$*\" >>$results; }\n"
                            "pass() { mark begin $1; mark end 0 $1; }\n"
                            "echo '[ 0.0] Linux version 6.12' >$console\n" + script)
            fake.chmod(0o755)
            Path(work, "bzImage").touch()
            old, run.QEMU = run.QEMU, str(fake)
            try:
                machine = run.Machine(work, accel="kvm")
                return machine.run([run.Test(name, ["true"]) for name in tests],
                                   deadline=deadline).cases
            finally:
                run.QEMU = old

    def test_all_well(self):
        self.assertEqual(failures(self.boot("pass one; pass two; mark plan 2")), [])

    def test_no_plan(self):
        self.assertTrue(failures(self.boot("pass one; pass two")))

    def test_plan_of_fewer(self):
        self.assertTrue(failures(self.boot("pass one; mark plan 1")))

    def test_no_exit_status(self):
        wrong = failures(self.boot("pass one; mark begin two"))
        self.assertIn("two", [case.program for case in wrong])
        self.assertNotIn("one", [case.program for case in wrong])

    def test_killed_and_killed_by_the_watch(self):
        killed, late = failures(self.boot("mark begin one; mark end 137 one\n"
                                          "mark begin two; mark late two; mark end 137 two; mark plan 2"))
        self.assertIn("signal 9", killed.output)
        self.assertNotIn("deadline", killed.output)
        self.assertIn("deadline", late.output)

    def test_test_not_run(self):
        wrong = failures(self.boot("pass one"))
        self.assertIn("two", [case.program for case in wrong])

    def test_machine_fails(self):
        wrong = failures(self.boot("pass one; pass two; mark plan 2; echo no >&2; exit 1"))
        self.assertIn("qemu ended with status 1: no", wrong[0].output)

    def test_machine_hangs(self):
        wrong = failures(self.boot("pass one; mark begin two; exec sleep 100", deadline=0.5))
        self.assertTrue(any("deadline" in case.output for case in wrong))

    def test_runner_is_killed(self):
        """A guest that nobody waits for would take a processor for ever."""
        with tempfile.TemporaryDirectory() as work:
            told = Path(work, "told")
            runner = os.fork()
            if not runner:
                try:
                    self.boot(f"echo $$ >{told}.new; mv {told}.new {told}; exec sleep 100")
                finally:
                    os._exit(1)
            deadline = time.monotonic() + 20
            while not told.exists() and time.monotonic() < deadline:
                time.sleep(0.02)
            os.kill(runner, signal.SIGKILL)
            os.waitpid(runner, 0)
            command = Path("/proc", told.read_text().strip(), "cmdline")
            while time.monotonic() < deadline:
                try:
                    if not command.read_bytes():    # it is a zombie that awaits its new parent
                        break
                except OSError:
                    break
                time.sleep(0.02)
            else:
                self.fail("the machine lives on")

    def test_kernel_complains(self):
        wrong = failures(self.boot("pass one; pass two; echo 'BUG: it' >>$console; mark plan 2"))
        self.assertEqual([case.program for case in wrong], ["kernel log"])

    def test_no_console(self):
        self.assertTrue(failures(self.boot("pass one; pass two; : >$console; mark plan 2")))

    def test_marker_of_someone_else(self):
        self.assertTrue(failures(self.boot("pass one; nonce=x; pass two; mark plan 2")))


@unittest.skipUnless(os.environ.get("ORBIT_TEST_KERNEL"), "ORBIT_TEST_KERNEL names no kernel")
class Guests(unittest.TestCase):
    """The same on a real guest."""

    def boot(self, *commands, **options):
        machine = run.Machine(os.environ["ORBIT_TEST_KERNEL"], **options)
        return machine.run([run.Test(f"test {number}", ["sh", "-c", command], 1)
                            for number, command in enumerate(commands, 1)])

    def test_pass_fail_crash_hang(self):
        report = self.boot("echo fine", "exit 3", "kill -SEGV $$", "sleep 1000", "true")
        self.assertEqual([(case.program, case.outcome) for case in report.cases], [
            ("test 1", "pass"), ("test 2", "fail"), ("test 3", "fail"), ("test 4", "fail"),
            ("test 5", "pass")])
        self.assertIn("signal 11", report.cases[2].output)
        self.assertIn("deadline", report.cases[3].output)

    def test_panic(self):
        report = self.boot("true", "echo c >/proc/sysrq-trigger", "true")
        wrong = {case.program: case.output for case in failures(report.cases)}
        self.assertEqual(set(wrong), {"test 2", "test 3", "kernel log", "machine"})
        self.assertIn("sysrq triggered crash", wrong["kernel log"])

    def test_power_off(self):
        report = self.boot("poweroff -f", "true")
        self.assertEqual({case.program for case in failures(report.cases)},
                         {"test 1", "test 2", "machine"})

    def test_counted_time_is_the_same_every_time(self):
        command = "i=0; while [ $i -lt 1000 ]; do i=$((i + 1)); done; cat /proc/timer_list | head -n 3"
        first, second = (self.boot(command, icount=True).cases[0] for _ in range(2))
        self.assertIn("now at", first.output)
        self.assertEqual(first.output, second.output)


if __name__ == "__main__":
    unittest.main()
