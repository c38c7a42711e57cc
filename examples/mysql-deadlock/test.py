#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of InnoDB with its deadlock detector in an orbit: deadlocks end, and a detector that goes wrong costs a warning.

  test.py [--server mysql] [--built DIR] [NAME...]   run all tests, or those with these names

Each line that it prints is of unittest; the exit status is 0 if all have passed.
"""

import argparse
import contextlib
import random
import re
import resource
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import server as servers  # noqa: E402
from server import Cycle  # noqa: E402

KIND = BUILT = None
# What the log says of each fault of the detector that can be told by the orbit itself.
DEADLY = {
    "segfault": r"killed by signal 11 \(SIGSEGV\) at address 0x0",
    "abort": r"killed by signal 6 \(SIGABRT\)",
    "loop": "time limit|CPU",
    "memory": "more memory than its limit|killed by signal 6",
    "leave": "it answered nonsense",
}
# These are silent: others may be innocent, so what is told is that a deadlock was there after a second.
SILENT = ("nobody", "wild", "scribble", "desk", "random")
# For what takes moments on an idle machine.
PATIENCE = 120


class Ported(unittest.TestCase):
    """One server for all tests of a class."""

    plugin = "faulty"
    settings = {"innodb_deadlock_detector": "orbit"}
    environment = {}
    limits = {}
    only_for = tuple(servers.SERVERS.values())

    @classmethod
    def setUpClass(cls):
        if KIND not in cls.only_for:
            raise unittest.SkipTest(f"{KIND.__name__} has nothing of that")
        cls.server = KIND(BUILT, cls.plugin, cls.settings, cls.environment, cls.limits)
        cls.addClassCleanup(cls.server.close)
        cls.server.start()
        cls.control = cls.server.connect()
        cls.addClassCleanup(cls.control.close)
        cls.control.sql("USE test")
        cls.server.connect = cls.connect
        cls.control.sql("CREATE TABLE t (id INT PRIMARY KEY, v INT) ENGINE=InnoDB")
        cls.control.sql("INSERT INTO t VALUES " + ", ".join(f"({i}, 0)" for i in range(200)))

    @classmethod
    def connect(cls, timeout=120):
        connection = servers.Connection(cls.server.path, timeout)
        connection.sql("USE test")
        return connection

    def setUp(self):
        self.server.fault()
        self.renew()

    def renew(self):
        """Set once more, the detector forgets what has failed; and MariaDB's looks once, which is over at the end."""
        kind = self.settings.get("innodb_deadlock_detector")
        if not kind:
            return
        # An answer may have been on its way, which counts as that of the one before.
        self.control.sql("SET GLOBAL innodb_deadlock_detector = 'inline'")
        before = self.status()
        self.control.sql(f"SET GLOBAL innodb_deadlock_detector = '{kind}'")
        if KIND is servers.MySQL:
            return
        self.wait(lambda: self.status()["checks"] > before["checks"], "the detector looks")
        if kind == "orbit":     # what a thread takes may be less than a microsecond
            self.wait(lambda: self.status()["microseconds"] > before["microseconds"], "the detector answers")

    def status(self):
        return self.server.status()

    def wait(self, condition, what):
        deadline = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), deadline, f"not seen: {what}")
            time.sleep(0.02)

    def wait_for_waiters(self, number):
        """Wait until so many transactions wait for a row."""
        self.wait(lambda: self.control.sql("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_current_waits'")[0][1] == str(number),
                  f"{number} waiters")

    def one_deadlock(self, size=2, seed=0):
        """Make a deadlock; who was rolled back, and the time that it took."""
        cycle = Cycle(self.server, size, seed=seed)
        try:
            victims = cycle.run()
            self.assertEqual([cycle.errors[i] for i in victims], [servers.DEADLOCK])
            return victims[0], cycle.seconds[victims[0]]
        finally:
            cycle.close()


class Deadlocks(Ported):
    """They end, each with one victim."""

    def test_a_deadlock_is_resolved_by_the_orbit(self):
        before = self.status()
        made = 0
        # A busy machine may keep the orbit from some of them for a second.
        while made < 20 or made < 100 and self.status()["victims"] == before["victims"]:
            self.one_deadlock()
            made += 1
        after = self.status()
        self.assertGreater(after["victims"], before["victims"])
        self.assertEqual(after["failures"], before["failures"])
        self.assertEqual(after["deadlocks"] - before["deadlocks"], made)
        self.assertIn("WE ROLL BACK TRANSACTION", self.control.sql("SHOW ENGINE INNODB STATUS")[0][2])
        self.assertTrue(self.server.orbits())

    def test_generated_deadlocks_of_two_to_eight_have_one_victim_each(self):
        before = self.status()
        rounds, at_a_time = GENERATED // 5, 5
        for number in range(rounds):
            # Several at once, of which none has to do with another.
            cycles = [Cycle(self.server, 2 + (number + i) % 7, first_row=i * 10, seed=number * at_a_time + i)
                      for i in range(at_a_time)]
            victims = [None] * at_a_time
            threads = [threading.Thread(target=lambda i=i, cycle=cycle: victims.__setitem__(i, cycle.run()))
                       for i, cycle in enumerate(cycles)]
            for thread in threads:
                thread.start()
            for thread in threads:
                thread.join()
            for cycle, found in zip(cycles, victims):
                self.assertEqual([cycle.errors[i] for i in found], [servers.DEADLOCK])
                cycle.close()
        after = self.status()
        self.assertEqual(after["deadlocks"] - before["deadlocks"], rounds * at_a_time)
        self.assertGreater(after["victims"], before["victims"])
        # It chooses as the server does, if it has seen what the server sees. MariaDB does not count that.
        self.assertEqual(after.get("other_victims", 0), before.get("other_victims", 0))
        print(f"  {rounds * at_a_time} deadlocks: {after['victims'] - before['victims']} by the orbit, "
              f"{after['fallbacks'] - before['fallbacks']} after a second, "
              f"{after['stale'] - before['stale']} stale answers", flush=True)

    def test_who_has_changed_less_is_rolled_back(self):
        self.control.sql("CREATE TABLE IF NOT EXISTS heavy (id INT PRIMARY KEY) ENGINE=InnoDB")
        self.control.sql("CREATE TABLE IF NOT EXISTS seq (seq INT PRIMARY KEY) ENGINE=MyISAM")
        self.control.sql("INSERT IGNORE INTO seq VALUES " + ", ".join(f"({100000 + i})" for i in range(5000)))
        for light in range(3):
            self.control.sql("DELETE FROM heavy")
            weights = [40, 40, 40]
            weights[light] = 0
            cycle = Cycle(self.server, 3, rows_before=weights, seed=light)
            self.assertEqual(cycle.run(), [light])
            cycle.close()

    def test_locks_without_a_deadlock_are_not_looked_at(self):
        before = self.status()
        first, second = self.server.connect(), self.server.connect()
        first.sql("BEGIN")
        first.sql("UPDATE t SET v = v + 1 WHERE id = 1")
        second.start("UPDATE t SET v = v + 1 WHERE id = 1")
        self.wait_for_waiters(1)
        first.sql("COMMIT")
        second.finish()
        self.assertEqual(self.status()["checks"], before["checks"])
        first.close()
        second.close()

    def test_with_detection_off_the_wait_times_out(self):
        self.control.sql("SET GLOBAL innodb_deadlock_detect = OFF")
        self.control.sql("SET GLOBAL innodb_lock_wait_timeout = 2")
        try:
            cycle = Cycle(self.server, 2)
            victims = cycle.run()
            self.assertTrue(victims)
            self.assertEqual({cycle.errors[i] for i in victims}, {servers.TIMEOUT})
            cycle.close()
        finally:
            self.control.sql("SET GLOBAL innodb_deadlock_detect = ON")
            self.control.sql("SET GLOBAL innodb_lock_wait_timeout = 50")

    def test_the_detector_can_be_changed_under_load(self):
        stop, errors, done = threading.Event(), [], [0]

        def work(seed):
            rows = random.Random(seed)
            connection = self.server.connect()
            while not stop.is_set():
                try:
                    connection.sql("BEGIN")
                    for row in rows.sample(range(4), 2):
                        connection.sql(f"UPDATE t SET v = v + 1 WHERE id = {row}")
                    connection.sql("COMMIT")
                    done[0] += 1
                except servers.Error as error:
                    if error.code != servers.DEADLOCK:
                        errors.append(error)
            connection.close()

        threads = [threading.Thread(target=work, args=(i,)) for i in range(8)]
        for thread in threads:
            thread.start()
        for name in ("inline", "thread", "orbit", "inline", "orbit", "thread", "orbit"):
            self.control.sql(f"SET GLOBAL innodb_deadlock_detector = '{name}'")
            time.sleep(0.3)
        stop.set()
        for thread in threads:
            thread.join()
        self.assertEqual(errors, [])
        self.assertGreater(done[0], 0)


class Broken(Ported):
    """A detector that goes wrong costs a warning and a second."""

    def check(self, fault):
        """Make deadlocks while it goes wrong, until that is told; what the log says since."""
        before, told = self.status(), len(self.server.messages())
        expected = DEADLY.get(fault)
        self.server.fault(fault)

        def is_told():
            return re.search(f"orbit that looks for deadlocks: .*({expected})", self.server.messages()[told:])

        made = 0
        deadline = time.monotonic() + PATIENCE
        # By chance a random victim may be a right one.
        while made < 3 or expected and not is_told():
            self.assertLess(time.monotonic(), deadline, f"not told: {expected}:\n{self.server.messages()[told:]}")
            _, seconds = self.one_deadlock(size=3, seed=made)
            self.assertLess(seconds, 30)
            made += 1
            # The limits take their time; and after a failure it is left alone.
            time.sleep(0.2 if made >= 3 else 0)
        self.server.fault()
        self.assertTrue(self.server.alive())
        after = self.status()
        self.assertEqual(after["deadlocks"] - before["deadlocks"], made)
        if expected:
            self.assertGreater(after["failures"], before["failures"])

    def assert_recovers(self):
        self.renew()
        before = self.status()["victims"]
        deadline = time.monotonic() + PATIENCE
        while self.status()["victims"] == before and time.monotonic() < deadline:
            self.one_deadlock()
        self.assertGreater(self.status()["victims"], before)

    def survive(self, *faults):
        connection = self.server.connect()
        number = connection.sql("SELECT connection_id()")
        for fault in faults:
            with self.subTest(fault):
                self.check(fault)
                self.assert_recovers()
        self.assertEqual(connection.sql("SELECT connection_id()"), number)
        connection.close()

    def test_a_crash(self):
        self.survive("segfault", "abort")

    def test_an_endless_loop(self):
        self.survive("loop")

    def test_all_memory_eaten(self):
        self.survive("memory")

    def test_nonsense(self):
        self.survive("leave", *SILENT)

    def test_nobody_is_rolled_back_who_is_in_no_deadlock(self):
        for fault in ("random", "wild"):
            with self.subTest(fault):
                self.server.fault()
                self.renew()
                before = self.status()
                self.server.fault(fault)
                holders = [self.server.connect() for _ in range(22)]
                for i, holder in enumerate(holders):
                    holder.sql("BEGIN")
                    holder.sql(f"UPDATE t SET v = v + 1 WHERE id = {50 + i}")
                # A chain, longer than what MariaDB follows by itself. Only the link that is made last could have closed a cycle.
                last = len(holders) - 2
                for number, i in enumerate((last + 1, *range(1, last), last), 1):
                    holders[i].start(f"UPDATE t SET v = v + 1 WHERE id = {50 + i - 1}")
                    self.wait_for_waiters(number)
                made = 0
                while KIND is servers.MySQL and made < 100 and self.status()["stale"] == before["stale"]:
                    self.renew()
                    self.one_deadlock()     # MySQL's is not asked unless there is a cycle
                    made += 1
                self.wait(lambda: self.status()["stale"] > before["stale"], "a wrong answer")
                for i, holder in enumerate(holders):
                    if i:
                        holder.finish()
                    holder.sql("COMMIT")
                    holder.close()
                after = self.status()
                self.assertGreater(after["checks"], before["checks"])
                self.assertGreater(after["stale"], before["stale"])
                self.assertEqual(after["deadlocks"] - before["deadlocks"], made)
                if not made:
                    self.assertEqual(after["victims"], before["victims"])

    def test_lock_waits_time_out_meanwhile(self):
        self.control.sql("SET GLOBAL innodb_lock_wait_timeout = 2")
        try:
            holder, waiter = self.server.connect(), self.server.connect()
        finally:
            self.control.sql("SET GLOBAL innodb_lock_wait_timeout = 50")
        before = self.status()["checks"]
        self.server.fault("loop")
        holder.sql("BEGIN")
        holder.sql("UPDATE t SET v = v + 1 WHERE id = 150")
        while self.status()["checks"] == before:
            self.one_deadlock()
        with self.assertRaisesRegex(servers.Error, f"{servers.TIMEOUT}"):
            waiter.sql("UPDATE t SET v = v + 1 WHERE id = 150")
        holder.sql("COMMIT")
        holder.close()
        waiter.close()

    def test_shutdown_does_not_wait_for_it(self):
        with KIND(BUILT, "faulty", {"innodb_deadlock_detector": "orbit"}) as server:
            server.sql("CREATE TABLE test.t (id INT PRIMARY KEY, v INT) ENGINE=InnoDB")
            server.sql("INSERT INTO test.t VALUES (0, 0), (1, 0)")
            server.fault("loop")
            server.connect = lambda timeout=120: self.use(servers.Connection(server.path, timeout))
            before = server.status()["checks"]
            for seed in range(100):
                cycle = Cycle(server, 2, seed=seed)
                cycle.run()
                cycle.close()
                if server.status()["checks"] > before:
                    break
            orbits = server.orbits()
            self.assertLess(server.stop(), PATIENCE)
            self.assertEqual(server.process.returncode, 0)
            self.wait(lambda: not any(Path(f"/proc/{pid}").exists() for pid in orbits), "the orbit's end")

    @staticmethod
    def use(connection):
        connection.sql("USE test")
        return connection


class FewSlots(Ported):
    """More wait than the pool holds: they look themselves."""

    only_for = (servers.MariaDB,)   # MySQL's has room for as many as can wait

    settings = {"innodb_deadlock_detector": "orbit", "innodb_deadlock_detector_slots": "2"}

    def test_deadlocks_are_resolved(self):
        before = self.status()
        for seed in range(5):
            self.one_deadlock(size=6, seed=seed)
        after = self.status()
        self.assertEqual(after["deadlocks"] - before["deadlocks"], 5)
        self.assertGreater(after["inline"], before["inline"])
        self.one_deadlock(size=2)


class ManyWaits(Ported):
    """More wait than a call carries: the detector looks into the pool."""

    def test_deadlocks_are_resolved(self):
        holder = self.server.connect()
        holder.sql("BEGIN")
        holder.sql("UPDATE t SET v = v + 1 WHERE id = 199")
        waiting = [self.server.connect() for _ in range(150)]   # 128 fill 4096 bytes
        for connection in waiting:
            connection.start("UPDATE t SET v = v + 1 WHERE id = 199")
        self.wait_for_waiters(len(waiting))
        before = self.status()
        made = 0
        while made < 10 or made < 100 and self.status()["victims"] == before["victims"]:
            self.one_deadlock(size=2 + made % 4, seed=made)
            made += 1
        after = self.status()
        self.assertGreater(after["victims"], before["victims"])
        self.assertEqual(after["deadlocks"] - before["deadlocks"], made)
        self.assertEqual(after["failures"], before["failures"])
        holder.sql("COMMIT")
        for connection in waiting:
            connection.finish()
        for connection in (holder, *waiting):
            connection.close()


class Thread(Ported):
    """The same detector, in a thread."""

    settings = {"innodb_deadlock_detector": "thread"}

    def test_deadlocks_are_resolved(self):
        before = self.status()
        for seed in range(10):
            self.one_deadlock(size=2 + seed % 4, seed=seed)
        self.assertGreater(self.status()["victims"], before["victims"])
        self.assertEqual(self.server.orbits(), [])


class ThreadBroken(Ported):
    settings = {"innodb_deadlock_detector": "thread"}

    def test_with_the_same_bug_the_server_dies(self):
        self.server.fault("segfault")
        deadline = time.monotonic() + PATIENCE
        # Its own handler takes its time to write what has happened; meanwhile threads that wait look themselves.
        while self.server.alive() and time.monotonic() < deadline:
            with contextlib.suppress(servers.Lost), contextlib.closing(Cycle(self.server, 2)) as cycle:
                cycle.run()
            time.sleep(0.2)
        self.assertFalse(self.server.alive())
        self.assertNotEqual(self.server.process.returncode, 0)     # MySQL's handler ends the server by itself
        self.assertRegex(self.server.messages(), "got signal 11")


class Off(Ported):
    """What nobody has asked for is not there."""

    settings = {}

    def test_nothing_is_started_and_nothing_is_counted(self):
        self.assertEqual(self.control.sql("SELECT @@innodb_deadlock_detector"), [["inline"]])
        self.one_deadlock()
        self.assertEqual(self.server.orbits(), [])
        self.assertEqual([name for name, value in self.status().items() if value and name != "deadlocks"], [])


class NoOrbit(Ported):
    """Where there can be no orbit, the server says so and looks inline."""

    environment = {"ORBIT_BACKEND": "kernel"}
    reason = "kernel"

    @classmethod
    def setUpClass(cls):
        if Path("/sys/kernel/orbit").exists():
            raise unittest.SkipTest("this kernel has orbits")
        super().setUpClass()

    def setUp(self):
        self.server.fault()

    def test_the_server_starts_and_says_why(self):
        self.assertEqual(self.control.sql("SELECT @@innodb_deadlock_detector"), [["inline"]])
        said = re.findall(r".*innodb_deadlock_detector: .*", self.server.messages())
        self.assertEqual(len(said), 1, said)
        self.assertRegex(said[0], self.reason)
        self.one_deadlock()
        self.refuse()
        self.assertEqual(self.control.sql("SELECT @@innodb_deadlock_detector"), [["inline"]])
        self.one_deadlock()
        self.assertEqual(self.server.orbits(), [])

    def refuse(self):
        with self.assertRaisesRegex(servers.Error, f"innodb_deadlock_detector: .*{self.reason}"):
            self.control.sql("SET GLOBAL innodb_deadlock_detector = 'orbit'")


class NoPool(NoOrbit):
    """Orbits work here, and a limit leaves no room for what this one is to see."""

    only_for = (servers.MariaDB,)   # MySQL's is smaller than files that it needs

    settings = {"innodb_deadlock_detector": "orbit", "innodb_deadlock_detector_slots": "1048576"}
    environment = {"ORBIT_BACKEND": "portable"}
    limits = {resource.RLIMIT_FSIZE: 24 << 20}      # the pool has 32 MiB, and no other file so much
    reason = "File too large|RLIMIT_FSIZE"

    def refuse(self):
        # What can be told beforehand is an error, and this a warning.
        self.control.sql("SET GLOBAL innodb_deadlock_detector = 'orbit'")
        self.assertRegex(self.control.sql("SHOW WARNINGS")[0][2], f"innodb_deadlock_detector: .*({self.reason})")


def main():
    global KIND, BUILT, GENERATED
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=servers.SERVERS, default="mariadb", help="default: %(default)s")
    parser.add_argument("--built", type=Path, help="what `build` has made")
    parser.add_argument("--deadlocks", type=int, default=500, help="how many are generated (default: %(default)s)")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    KIND = servers.SERVERS[options.server]
    BUILT = options.built or KIND.build()
    GENERATED = options.deadlocks
    unittest.main(argv=[sys.argv[0], "-v", *options.names])


if __name__ == "__main__":
    main()
