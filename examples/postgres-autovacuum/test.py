#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Tests of the ported server: what a statistics function may do, and that results are the same.

  test.py [--built DIR] [--vanilla DIR] [NAME...]   run all tests, or those with these names

Each line that it prints is of unittest; the exit status is 0 if all have passed.
"""

import argparse
import os
import re
import struct
import subprocess
import sys
import threading
import time
import unittest
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import server as pg  # noqa: E402
import types_table  # noqa: E402

BUILT = VANILLA = None
QUICK = "SET analyze_orbit_timeout = '2s'; SET analyze_orbit_memory_limit = '300MB';"
# What the log says of each fault that would end a server.
DEADLY = {
    "segfault": r"killed by signal 11 \(SIGSEGV\) at address 0x0",
    "abort": r"killed by signal 6 \(SIGABRT\)",
    "loop": "time limit",
    # Ended by the limit; or malloc() was refused first, and the function follows what that returned.
    "memory": r"used more memory than its limit|address 0x0\b(.|\n)*HINT:.*malloc\(\)",
    "heap": "killed by signal",
    "wild": "killed by signal|time limit|not to be believed|exit status",
    "stack": r"killed by signal 11",
    "exit": "exit status 3",
    "signal": r"killed by signal 9",
}
LIES = {
    "lie_counts": "numbers and .* values",
    "lie_numbers": "numbers out of bounds",
    "lie_type": "values of type 1016",
    "lie_operator": "operator 96",
    "lie_value": "not from the sample",
    "lie_length": "not from the sample|killed by signal",
    "lie_kind": "a slot of kind 7",
    "lie_width": "out of bounds",
    "lie_nan": "out of bounds",
    "lie_collation": "collation 12345678",
}
STATISTICS = """SELECT starelid::regclass, staattnum, stainherit, stanullfrac, stawidth, stadistinct,
    stakind1, stakind2, stakind3, stakind4, stakind5, staop1, staop2, staop3, staop4, staop5,
    stacoll1, stacoll2, stacoll3, stacoll4, stacoll5,
    stanumbers1, stanumbers2, stanumbers3, stanumbers4, stanumbers5,
    stavalues1, stavalues2, stavalues3, stavalues4, stavalues5
    FROM pg_statistic WHERE starelid >= 16384 AND starelid::regclass::text ~ '{}' ORDER BY 1, 2, 3;"""


class Ported(unittest.TestCase):
    """One server for all tests of a class."""

    # Small tables too, for most that is tested here does not need large ones.
    settings = {"analyze_orbit": "always", "analyze_orbit_builtin_rows": "0"}

    @classmethod
    def setUpClass(cls):
        cls.server = pg.Server(BUILT, cls.settings)
        cls.addClassCleanup(cls.server.close)
        cls.server.start()
        cls.server.sql("""CREATE EXTENSION fragile;
            CREATE TABLE brittle (id int, f fragile, after int);
            INSERT INTO brittle SELECT i, ('word ' || i % 50)::text::fragile, i % 7
                FROM generate_series(1, 3000) i;
            CREATE TABLE next (id int, word text);
            INSERT INTO next SELECT i, 'w' || i % 20 FROM generate_series(1, 1000) i;
            SET fragile.fault = none; ANALYZE brittle;""")
        cls.started = cls.server.sql("SELECT pg_postmaster_start_time()")

    def statistics(self, pattern="^brittle$"):
        return self.server.sql(STATISTICS.format(pattern))

    def column(self):
        """The statistics of the column with the faults."""
        return [line for line in self.statistics().splitlines() if line.startswith("brittle|2|")]

    def analyze(self, before="", table="brittle"):
        """ANALYZE a table; what it had to say."""
        # On a busy machine most things take long, and only a loop is to.
        patient = "" if "loop" in before or "wild" in before else "SET analyze_orbit_timeout = '30s';"
        self.server.sql(f"{QUICK} {patient} {before} ANALYZE {table};")
        return self.server.notices

    def assert_unharmed(self):
        self.assertNotIn("terminating any other active server processes", self.server.messages())
        self.assertEqual(self.server.sql("SELECT count(*) FROM brittle"), "3000")


class Crashes(Ported):
    """What would end all connections costs a warning."""

    def check(self, fault, expected):
        before = self.column()
        self.assertTrue(before)
        # Other rows, so that it can be seen which columns have new statistics.
        self.server.sql("UPDATE brittle SET after = after + 1")
        after = self.server.sql("SELECT histogram_bounds, most_common_vals FROM pg_stats "
                                "WHERE tablename = 'brittle' AND attname = 'after'")
        said = self.analyze(f"SET fragile.fault = {fault};")
        self.assertRegex(said, 'statistics of column "f" of relation "public.brittle" are kept')
        self.assertRegex(said, expected)
        self.assertEqual(before, self.column())
        self.assertNotEqual(after, self.server.sql("SELECT histogram_bounds, most_common_vals FROM pg_stats "
                                                   "WHERE tablename = 'brittle' AND attname = 'after'"))
        self.assert_unharmed()

    def test_the_process_survives_it(self):
        # Connected all the time.
        command = [self.server.home / "bin/psql", "-X", "-q", "-A", "-t"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True,
                              env=self.server.environment, cwd=self.server.work, **pg.user()) as client:
            client.stdin.write("SELECT pg_backend_pid();\n")
            client.stdin.flush()
            pid = client.stdout.readline()
            for fault, expected in DEADLY.items():
                with self.subTest(fault):
                    self.check(fault, expected)
            client.stdin.write("SELECT pg_backend_pid();\n")
            client.stdin.close()
            self.assertEqual(client.stdout.readline(), pid)

    def test_the_next_table_is_analyzed(self):
        said = self.analyze("SET fragile.fault = segfault;", "brittle, next")
        self.assertRegex(said, "signal 11")
        self.assertEqual(self.server.sql("SELECT count(*) FROM pg_stats WHERE tablename = 'next'"), "2")

    def test_results_are_refused(self):
        for lie, expected in LIES.items():
            with self.subTest(lie):
                before = self.column()
                said = self.analyze(f"SET fragile.fault = {lie};")
                self.assertRegex(said, "are kept")
                self.assertRegex(said, expected)
                self.assertEqual(before, self.column())
                # The planner reads what there is.
                self.server.sql("EXPLAIN SELECT * FROM brittle WHERE f = 'word 3' AND f < 'word 4'")

    def test_a_sound_function_after_all_that(self):
        before = self.column()
        said = self.analyze("SET fragile.fault = segfault; ANALYZE brittle; SET fragile.fault = none;")
        self.assertIn("signal 11", said)
        self.assertEqual(len(re.findall("are kept", said)), 1)
        self.assertEqual(before, self.column())


class Behaviour(Ported):
    """As an administrator expects it."""

    def test_an_error_is_the_commands_error(self):
        with self.assertRaises(pg.Failed) as caught:
            self.analyze("\\set VERBOSITY verbose\nSET fragile.fault = error;")
        self.assertRegex(str(caught.exception), "ERROR:  22000: this column is too fragile")
        self.assertRegex(str(caught.exception), "HINT:  Be careful.")

    def test_no_memory_is_the_orbits_alone(self):
        self.assertRegex(self.analyze("SET fragile.fault = oom;"), "are kept[^$]*out of memory")

    def test_what_needs_the_server_is_computed_by_the_worker(self):
        self.analyze("SET fragile.fault = none;")
        sound = self.column()
        for fault, what in (("relation", "a lock"), ("catalog", "a catalog of relations")):
            with self.subTest(fault):
                self.server.sql("UPDATE pg_statistic SET stawidth = 4711 WHERE starelid = 'brittle'::regclass")
                said = self.analyze(f"SET fragile.fault = {fault}; SET client_min_messages = debug1;")
                self.assertIn(f"without an orbit: an orbit cannot use {what}", said)
                self.assertEqual(sound, self.column())

    def test_or_not(self):
        sound = self.column()
        said = self.analyze("SET fragile.fault = relation; SET analyze_orbit_unanalyzable = keep;")
        self.assertRegex(said, "are kept[^$]*cannot be computed in an orbit: an orbit cannot use a lock")
        self.assertEqual(sound, self.column())

    def test_messages_go_to_the_log(self):
        self.analyze("SET fragile.fault = notice;")
        self.assertIn("fragile: computing", self.server.messages())

    def in_the_background(self, statements):
        """A session that analyzes a column that takes for ever; the thread and what it will have said."""
        said = []

        def run():
            try:
                self.server.sql(statements)
                said.append("")
            except pg.Failed as failed:
                said.append(str(failed))
        thread = threading.Thread(target=run)
        thread.start()
        self.addCleanup(thread.join)
        for _ in range(200):
            pid = self.server.sql("SELECT pid FROM pg_stat_activity WHERE wait_event = 'AnalyzeOrbit' AND "
                                  "wait_event_type = 'IPC' AND query ~ 'ANALYZE'")
            if pid:
                return thread, said, pid
            time.sleep(0.05)
        self.fail("nobody waits for an orbit")

    def check_ended(self, how, expected):
        thread, said, pid = self.in_the_background("SET fragile.fault = loop; ANALYZE brittle;")
        self.assertTrue(self.server.orbits())
        begin = time.monotonic()
        how(pid)
        thread.join(20)
        self.assertLess(time.monotonic() - begin, 10)
        self.assertRegex(said[0], expected)
        self.assert_no_orbits()
        self.assert_unharmed()

    def assert_no_orbits(self):
        for _ in range(100):
            if not self.server.orbits():
                return
            time.sleep(0.05)
        self.fail(f"orbits are left: {self.server.orbits()}")

    def test_cancel(self):
        self.check_ended(lambda pid: self.server.sql(f"SELECT pg_cancel_backend({pid})"),
                         "canceling statement due to user request")

    def test_terminate(self):
        self.check_ended(lambda pid: self.server.sql(f"SELECT pg_terminate_backend({pid})"),
                         "terminating connection due to administrator command|closed the connection")

    def test_statement_timeout(self):
        with self.assertRaises(pg.Failed) as caught:
            self.server.sql("SET fragile.fault = loop; SET statement_timeout = '1s'; ANALYZE brittle;")
        self.assertRegex(str(caught.exception), "canceling statement due to statement timeout")
        self.assert_no_orbits()

    def test_stopping_the_server(self):
        other = pg.Server(BUILT, {**self.settings, "fragile.fault": "loop"}, "stopping")
        self.addCleanup(other.close)
        other.start()
        other.sql("CREATE EXTENSION fragile; CREATE TABLE t (f fragile); "
                  "INSERT INTO t SELECT i::text::fragile FROM generate_series(1, 300) i;")

        def analyze():
            try:
                other.sql("ANALYZE t")
            except pg.Failed:
                pass
        for mode in ("fast", "immediate"):
            thread = threading.Thread(target=analyze)
            thread.start()
            for _ in range(200):
                if other.orbits():
                    break
                time.sleep(0.05)
            self.assertTrue(other.orbits())
            other.stop(mode)
            thread.join(20)
            # What is left of it must not keep the server from starting.
            other.start()
        self.assertEqual(other.sql("SELECT count(*) FROM t"), "300")

    def test_settings(self):
        for name, value in (("analyze_orbit", "always"), ("analyze_orbit_timeout", "1min"),
                            ("analyze_orbit_memory_limit", "1GB"), ("analyze_orbit_unanalyzable", "worker"),
                            ("analyze_orbit_unavailable", "worker"), ("analyze_orbit_sample_limit", "128MB"),
                            ("analyze_orbit_backoff", "1min"), ("analyze_orbit_core", "off")):
            self.assertEqual(self.server.sql(f"SHOW {name}"), value)
        self.server.sql("CREATE ROLE somebody LOGIN")
        with self.assertRaises(pg.Failed):
            self.server.sql("SET ROLE somebody; SET analyze_orbit = off;")

    def test_off_and_autovacuum_make_no_orbit(self):
        for mode in ("off", "autovacuum"):
            self.server.sql(f"BEGIN; SET analyze_orbit = {mode}; ANALYZE brittle; "
                            "SELECT pg_sleep(0.1); COMMIT;")
            self.assertEqual(self.server.orbits(), [])

    def test_a_session_keeps_none(self):
        with self.subTest("between transactions"):
            self.server.sql("ANALYZE brittle; SELECT 1;")
            self.assert_no_orbits()

    def test_an_orbit_serves_until_it_is_out_of_date(self):
        def made(statements):
            self.server.sql(f"SET client_min_messages = debug1; ANALYZE next, brittle; BEGIN; {statements} COMMIT;")
            said = self.server.notices.split("an orbit was made")
            return len(said) - 1, self.server.notices
        first = made("")[0]
        self.assertEqual(made("ANALYZE next; ANALYZE next; ANALYZE next;")[0], first + 1)
        # A setting that has changed is seen.
        count, said = made("ANALYZE brittle; SET LOCAL fragile.fault = segfault; ANALYZE brittle; "
                           "SET LOCAL fragile.fault = none; ANALYZE brittle;")
        # Three, and another for the column after the crash.
        self.assertEqual(count - first, 4)
        self.assertEqual(said.count("are kept as they were"), 1)

    def test_a_table_needs_one_orbit(self):
        """Even in a session that has looked up none of its types before."""
        self.server.sql("""CREATE TABLE many AS SELECT i AS a, i / 7.0 AS b, i::text AS c, i % 2 = 0 AS d,
            now() + i * interval '1 s' AS e, ARRAY[i] AS f, i::float8 AS g, int4range(i, i + 3) AS h
            FROM generate_series(1, 100) i;""")
        self.server.sql("SET client_min_messages = debug1; ANALYZE many;")
        self.assertEqual(self.server.notices.count("an orbit was made"), 1, self.server.notices)

    def test_backends_without_orbits_are_not_refused_anything(self):
        self.server.sql("CREATE TABLE created AS SELECT 1 AS a; ANALYZE created; DROP TABLE created;")


class Autovacuum(Ported):
    """Workers analyze in orbits, and a crash there ends none of them."""

    settings = {"analyze_orbit": "autovacuum", "analyze_orbit_builtin_rows": "0", "autovacuum": "on", "autovacuum_naptime": "1s",
                "fragile.fault": "segfault", "autovacuum_analyze_threshold": "10",
                "autovacuum_analyze_scale_factor": "0", "log_autovacuum_min_duration": "0"}

    def wait_for(self, query, expected, seconds=60):
        end = time.monotonic() + seconds
        while time.monotonic() < end:
            if self.server.sql(query) == expected:
                return
            time.sleep(0.2)
        self.fail(f"{query} does not become {expected}:\n{self.server.messages()[-3000:]}")

    def test_a_crash_and_the_tables_after_it(self):
        tables = [f"t{i}" for i in range(5)]
        before = self.column()
        self.server.sql("".join(f"CREATE TABLE {t} (a int, f fragile, b text); INSERT INTO {t} "
                                "SELECT i, i::text::fragile, i FROM generate_series(1, 500) i;"
                                for t in tables) + "UPDATE brittle SET id = id + 1;")
        for table in tables:
            self.wait_for(f"SELECT attname FROM pg_stats WHERE tablename = '{table}' ORDER BY 1", "a\nb")
        self.wait_for("SELECT count(*) FROM pg_stat_user_tables WHERE autoanalyze_count > 0 AND "
                      "(relname = 'brittle' OR relname ~ '^t[0-4]$')", "6")
        self.assertEqual(before, self.column())
        self.assertGreaterEqual(len(re.findall("are kept as they were", self.server.messages())), 6)
        self.assertEqual(self.server.sql("SELECT pg_postmaster_start_time()"), self.started)
        self.assert_unharmed()


    def test_a_column_that_fails_is_let_be_for_a_while(self):
        """One warning, however often the table changes; its other columns go on."""
        def warnings():
            return re.findall('statistics of column "f" of relation "public.busy" are kept.*\n.*\n.*',
                              self.server.messages())

        def analyzed():
            return int(self.server.sql("SELECT autoanalyze_count FROM pg_stat_user_tables WHERE relname = 'busy'"))
        self.server.sql("CREATE TABLE busy (a int, f fragile); "
                        "INSERT INTO busy SELECT i, i::text::fragile FROM generate_series(1, 400) i;")
        for count in range(4):
            end = time.monotonic() + 30
            while analyzed() <= count and time.monotonic() < end:
                time.sleep(0.2)
            self.assertGreater(analyzed(), count)
            self.server.sql(f"UPDATE busy SET a = {count}")
        self.wait_for("SELECT most_common_vals FROM pg_stats WHERE tablename = 'busy' AND attname = 'a'", "{3}")
        self.assertEqual(len(warnings()), 1)
        self.assertIn("Autovacuum does not compute them again before", warnings()[0])

    def test_a_table_that_fails_is_let_be_for_a_while(self):
        """An error is one of the whole table, which does not count as analyzed then."""
        self.server.sql("CREATE FUNCTION raising(int) RETURNS int IMMUTABLE LANGUAGE plpgsql AS "
                        "$$BEGIN IF current_setting('fragile.fault') <> 'none' THEN RAISE EXCEPTION 'no such luck'; "
                        "END IF; RETURN $1; END$$; LOAD 'fragile'; SET fragile.fault = none; "
                        "CREATE TABLE unlucky (a int); CREATE INDEX ON unlucky (raising(a)); "
                        "INSERT INTO unlucky SELECT i FROM generate_series(1, 400) i;"
                        "CREATE TABLE afterwards AS SELECT i AS a FROM generate_series(1, 400) i;")
        self.wait_for("SELECT count(*) FROM pg_stats WHERE tablename = 'afterwards'", "1")
        time.sleep(4)
        said = re.findall("ERROR:  no such luck(?:.*\n)+?.*automatic analyze of table.*\n.*\n", self.server.messages())
        self.assertEqual(len(said), 1, said)
        self.assertIn("autovacuum does not analyze it again before", said[0])

    def test_the_log_tells_what_an_orbit_took(self):
        self.server.sql("CREATE TABLE large AS SELECT i AS a FROM generate_series(1, 20000) i")
        self.wait_for("SELECT count(*) FROM pg_stats WHERE tablename = 'large'", "1")
        self.assertRegex(self.server.messages(), r"orbit usage: CPU: \d+\.\d\d s")


class WideValues(Ported):
    """What vanilla analyzes is analyzed, however wide its values are."""

    settings = {"analyze_orbit": "always"}

    def setUp(self):
        self.server.sql("DROP TABLE IF EXISTS wide; CREATE TABLE wide (id int, f fragile); "
                        "ALTER TABLE wide ALTER f SET STORAGE EXTERNAL; INSERT INTO wide SELECT i, "
                        "(repeat(md5((i % 5)::text), 200) || i)::text::fragile FROM generate_series(1, 1000) i;")

    def analyze_wide(self, fault, before=""):
        """Analyze it; what was told, and the width that the column has afterwards."""
        said = self.analyze(f"SET client_min_messages = log; SET fragile.fault = {fault}; {before}", "wide")
        return said, self.server.sql("SELECT avg_width FROM pg_stats WHERE tablename = 'wide' AND attname = 'f'")

    def test_index_expressions(self):
        self.server.sql("CREATE TABLE docs AS SELECT i AS id, md5(i::text) AS x FROM generate_series(1, 30000) i; "
                        "CREATE INDEX ON docs USING hash ((repeat(x, 400)));")
        found = {}
        for mode in ("off", "always"):
            self.server.sql(f"SET analyze_orbit = {mode}; SET client_min_messages = log; DELETE FROM pg_statistic; "
                            "ANALYZE docs;")
            self.assertEqual(self.server.notices, "")
            found[mode] = self.server.sql(STATISTICS.format("docs"))
        self.assertEqual(found["off"], found["always"])
        self.assertIn("docs_repeat_idx", found["off"])

    def test_arrays_past_the_limit(self):
        self.server.sql("CREATE TABLE arrays AS SELECT ARRAY(SELECT (i * g) % 1009 FROM generate_series(1, 300) g) "
                        "AS a FROM generate_series(1, 4000) i;")
        found = {}
        for mode in ("off", "always"):
            # The first orbit of the transaction inherits the sample, and for the second table the column is copied.
            self.server.sql(f"SET analyze_orbit = {mode}; SET analyze_orbit_sample_limit = '1MB'; SET analyze_orbit_builtin_rows = 0; "
                            "SET client_min_messages = log; ANALYZE arrays; DELETE FROM pg_statistic; BEGIN; ANALYZE next; "
                            "ANALYZE arrays; COMMIT;")
            said = self.server.notices
            found[mode] = self.server.sql(STATISTICS.format("arrays"))
        self.assertRegex(said, 'LOG:  column "a" .*is analyzed without an orbit: .*larger than analyze_orbit_sample_limit')
        self.assertEqual(found["off"], found["always"])

    def test_out_of_line_they_are_there(self):
        for storage in ("EXTERNAL", "EXTENDED"):
            # Not compressible to less than what is put out of line.
            self.server.sql(f"ALTER TABLE wide ALTER f SET STORAGE {storage}; TRUNCATE wide; "
                            "INSERT INTO wide SELECT i, (SELECT string_agg(md5((i * 1000 + g)::text), '') || "
                            "repeat('x', 6000) FROM generate_series(1, 250) g)::text::fragile "
                            "FROM generate_series(1, 300) i;")
            for fault in ("whole", "slice"):
                with self.subTest(f"{storage} {fault}"):
                    self.server.sql("DELETE FROM pg_statistic")
                    said, width = self.analyze_wide(fault)
                    self.assertEqual(said, "")
                    self.assertEqual(width, "18")

    def test_past_the_limit_their_beginnings_are(self):
        said, width = self.analyze_wide("slice", "SET analyze_orbit_sample_limit = '3MB';")
        self.assertEqual((said, width), ("", "18"))

    def test_past_the_limit_the_worker_is_told_of(self):
        said, width = self.analyze_wide("whole", "SET analyze_orbit_sample_limit = '3MB';")
        self.assertRegex(said, 'LOG:  column "f" of relation "public.wide" is analyzed without an orbit: .*'
                               'than analyze_orbit_sample_limit allows')
        self.assertIn("type fragile, analyzed by fragile_analyze(internal)", said)
        self.assertEqual(width, "18")
        # Where nobody is connected, it is in the log.
        self.assertIn("is analyzed without an orbit", self.server.messages())

    def test_past_the_limit_it_may_be_an_error(self):
        with self.assertRaises(pg.Failed) as caught:
            self.analyze_wide("whole", "SET analyze_orbit_sample_limit = '3MB'; SET analyze_orbit_unanalyzable = error;")
        self.assertRegex(str(caught.exception), 'ERROR:  statistics of column "f" .* cannot be computed in an orbit')

    def test_a_slot_that_only_its_extension_knows(self):
        said, _ = self.analyze_wide("own_slot", "DELETE FROM wide; INSERT INTO wide SELECT i, (i % 5)::text::fragile "
                                               "FROM generate_series(1, 100) i;")
        self.assertRegex(said, "analyzed without an orbit: values of a type that is not the column's")
        self.assertEqual(self.server.sql("SELECT stakind5, stavalues5 FROM pg_statistic WHERE staattnum = 2 AND "
                                         "starelid = 'wide'::regclass"), "4711|{4711}")


class WhatGoesToAnOrbit(Ported):
    """What is small and PostgreSQL's own does not."""

    settings = {"analyze_orbit": "always"}

    def made(self, statements):
        self.server.sql(f"SET client_min_messages = debug1; {statements}")
        return self.server.notices.count("an orbit was made")

    def test_small_tables_of_builtin_types_do_not(self):
        self.server.sql("CREATE TABLE small AS SELECT i AS a, ARRAY[i] AS b, i::text AS c FROM generate_series(1, 500) i")
        self.assertEqual(self.made("ANALYZE small;"), 0)
        self.assertEqual(self.made("SET analyze_orbit_builtin_rows = 500; ANALYZE small;"), 1)
        self.assertEqual(self.made("SET analyze_orbit_builtin_rows = 501; ANALYZE small;"), 0)
        self.assertEqual(self.made("SET analyze_orbit_builtin_rows = 0; ANALYZE small;"), 1)
        self.assertEqual(self.made("SET analyze_orbit_builtin_rows = -1; ANALYZE small;"), 0)

    def test_what_an_extension_has_a_hand_in_does(self):
        for name, type, value in (("ext", "fragile", "'x'"), ("ext_array", "fragile[]", "'{x}'"),
                                  ("ext_domain", "breakable", "'x'"), ("ext_composite", "mixed", "'(1,x)'")):
            with self.subTest(type):
                if name == "ext_domain":
                    self.server.sql("CREATE DOMAIN breakable AS fragile; CREATE TYPE mixed AS (a int, b fragile);")
                self.server.sql(f"CREATE TABLE {name} AS SELECT {value}::{type} AS a FROM generate_series(1, 50) i")
                self.assertEqual(self.made(f"SET analyze_orbit_builtin_rows = -1; ANALYZE {name};"), 1)

    def test_a_table_may_be_left_out(self):
        self.assertEqual(self.made("ALTER TABLE brittle SET (analyze_orbit = off); ANALYZE brittle;"), 0)
        self.assertEqual(self.made("ALTER TABLE brittle RESET (analyze_orbit); ANALYZE brittle;"), 1)

    def test_one_orbit_serves_a_command_for_many_tables(self):
        self.server.sql("".join(f"CREATE TABLE many{i} AS SELECT i::text::fragile AS f FROM generate_series(1, 50) i;"
                                for i in range(10)))
        self.assertEqual(self.made("ANALYZE " + ", ".join(f"many{i}" for i in range(10)) + ";"), 1)
        self.assertEqual(self.server.orbits(), [])

    def test_a_damaged_value_of_a_builtin_type(self):
        """Four bytes of a table's file: the length of an array."""
        self.server.sql("CREATE TABLE damaged (id int, a int[]); INSERT INTO damaged SELECT i, "
                        "ARRAY[305419896, i] FROM generate_series(1, 200) i; VACUUM (ANALYZE, FREEZE) damaged; CHECKPOINT;")
        path = self.server.data / self.server.sql("SELECT pg_relation_filepath('damaged')")
        self.server.stop()
        self.addCleanup(lambda: self.server.sql("DROP TABLE IF EXISTS damaged"))
        data = bytearray(path.read_bytes())
        # Number of dimensions, no nulls, type, length of the dimension, lower bound, first element.
        at = data.index(struct.pack("<iiiii", 1, 0, 23, 2, 1) + struct.pack("<i", 305419896))
        data[at + 12:at + 16] = struct.pack("<i", 100000000)
        path.write_bytes(data)
        self.server.start()
        started = self.server.sql("SELECT pg_postmaster_start_time()")
        said = self.analyze("SET analyze_orbit_builtin_rows = 0;", "damaged")
        self.assertRegex(said, 'statistics of column "a" of relation "public.damaged" are kept')
        self.assertEqual(started, self.server.sql("SELECT pg_postmaster_start_time()"))
        self.assert_unharmed()


class NoOrbit(Ported):
    """Where none can be made, ANALYZE does what it does without, and says so once."""

    def session(self, limit, before, tables="brittle"):
        """A session whose process has a limit; what ANALYZE says in it."""
        command = [self.server.home / "bin/psql", "-X", "-q", "-A", "-t"]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                              text=True, env=self.server.environment, cwd=self.server.work, **pg.user()) as client:
            client.stdin.write(f"SET fragile.fault = none; {before} SELECT count(*) FROM pg_stats; "
                               "SELECT pg_backend_pid();\n")
            client.stdin.flush()
            client.stdout.readline()
            pid = int(client.stdout.readline())
            # By the same user, who may do that without any right.
            name, value = limit(pid)
            subprocess.run(["prlimit", f"--pid={pid}", f"--{name}={value}"], check=True, **pg.user())
            client.stdin.write(f"ANALYZE {tables};\nANALYZE next;\nSELECT 'done';\n")
            client.stdin.close()
            return client.stdout.read()

    @staticmethod
    def address_space(pid):
        size = int(re.search(r"VmSize:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024
        return "as", size + (8 << 20)

    LIMITS = {
        "processes": (lambda pid: ("nproc", 1), "no further process is allowed"),
        "descriptors": (lambda pid: ("nofile", len(os.listdir(f"/proc/{pid}/fd")) + 3),
                        "no further file descriptor is allowed"),
        "address space": (lambda pid: NoOrbit.address_space(pid), "no memory or address space is left"),
    }

    def test_the_worker_computes(self):
        for what, (limit, cause) in self.LIMITS.items():
            with self.subTest(what):
                self.server.sql("DELETE FROM pg_statistic WHERE starelid >= 16384")
                said = self.session(limit, "")
                self.assertRegex(said, f"(?s)WARNING:.*could not be made for ANALYZE: {cause}")
                self.assertEqual(said.count("WARNING"), 1, said)
                self.assertTrue(said.endswith("done\n"), said)
                self.assertEqual(self.server.sql("SELECT count(*) FROM pg_stats WHERE tablename IN ('brittle', 'next')"),
                                 "5")

    def test_or_the_statistics_are_kept(self):
        self.server.sql("DELETE FROM pg_statistic WHERE starelid >= 16384")
        said = self.session(self.LIMITS["descriptors"][0], "SET analyze_orbit_unavailable = keep;")
        self.assertIn("Columns keep their statistics", said)
        self.assertEqual(self.server.sql("SELECT count(*) FROM pg_stats WHERE tablename IN ('brittle', 'next')"), "0")

    def test_or_it_is_an_error(self):
        said = self.session(self.LIMITS["descriptors"][0], "SET analyze_orbit_unavailable = error;")
        self.assertRegex(said, "ERROR:  .*could not be made for ANALYZE: no further file descriptor")

    def test_a_limit_on_the_size_of_files(self):
        """A pool counts as a file. The limit must leave room for the log of transactions: 16 MiB, as the first pools."""
        self.server.sql("CREATE TABLE bulky AS SELECT md5(i::text) AS x FROM generate_series(1, 30000) i; "
                        "CREATE INDEX ON bulky USING hash ((repeat(x, 28))); CHECKPOINT; "
                        "DELETE FROM pg_statistic WHERE starelid >= 16384")
        said = self.session(lambda pid: ("fsize", 17 << 20), "", "brittle, bulky")
        self.assertIn("files may not be that large", said)
        self.assertTrue(said.endswith("done\n"), said)
        self.assertEqual(self.server.sql("SELECT count(*) FROM pg_stats WHERE tablename ~ '^(brittle|bulky)'"), "5", said)

    def test_a_server_starts_where_orbits_do_not_work(self):
        other = pg.Server(BUILT, self.settings, "none", {"ORBIT_BACKEND": "kernel"})
        self.addCleanup(other.close)
        other.start()
        other.sql("CREATE TABLE t AS SELECT i AS a FROM generate_series(1, 100) i; ANALYZE t;")
        if not other.notices:
            self.skipTest("this kernel has orbits")
        self.assertRegex(other.notices, "WARNING:.*could not be made for ANALYZE")
        self.assertEqual(other.sql("SELECT count(*) FROM pg_stats WHERE tablename = 't'"), "1")
        with self.assertRaises(pg.Failed) as caught:
            other.sql("SET analyze_orbit = autovacuum")
        self.assertIn("orbits do not work here", str(caught.exception))


class SameStatistics(unittest.TestCase):
    """Value for value the same as without an orbit, for every class of types."""

    def test_off_and_always(self):
        server = pg.Server(BUILT, {}, "same")
        self.addCleanup(server.close)
        server.start()
        server.sql(types_table.CREATE)
        found = {}
        for mode in ("off", "always"):
            server.sql(f"SET analyze_orbit = {mode}; SET analyze_orbit_builtin_rows = 0; SET client_min_messages = debug1; "
                       "SET analyze_orbit_unanalyzable = keep; DELETE FROM pg_statistic; ANALYZE every_type;")
            self.assertNotIn("WARNING", server.notices)
            found[mode] = server.sql("SET extra_float_digits = 3;" + STATISTICS.format("every_type"))
        for off, always in zip(found["off"].splitlines(), found["always"].splitlines(), strict=True):
            with self.subTest(" ".join(off.split("|")[:2])):
                self.assertEqual(off, always)
        columns = int(server.sql("SELECT count(*) FROM pg_attribute WHERE attrelid = 'every_type'::regclass "
                                 "AND attnum > 0"))
        self.assertGreaterEqual(len(found["off"].splitlines()), columns)
        kinds = set()
        for line in found["off"].splitlines():
            kinds |= set(line.split("|")[6:11])
        self.assertLessEqual({"1", "2", "3", "4", "5", "6", "7"}, kinds)
        with self.subTest("in an orbit that is kept"):
            # Only the first inherits the sample.
            server.sql("SET analyze_orbit = always; SET analyze_orbit_builtin_rows = 0; SET client_min_messages = debug1; "
                       "SET analyze_orbit_unanalyzable = keep; ANALYZE every_type; DELETE FROM pg_statistic; BEGIN; "
                       "ANALYZE every_type; ANALYZE every_type; COMMIT;")
            self.assertNotIn("WARNING", server.notices)
            self.assertEqual(server.notices.count("an orbit was made"), 2)
            self.assertEqual(found["off"], server.sql("SET extra_float_digits = 3;" + STATISTICS.format("every_type")))

    def test_columns_that_are_too_much_for_one_call(self):
        """All together from the beginning; and some whose width, or first null, is only seen near the end."""
        server = pg.Server(BUILT, {}, "same")
        self.addCleanup(server.close)
        server.start()
        wide, late = "repeat(md5((i % 700)::text), 12)", "repeat(md5(i::text), CASE WHEN i < 29000 THEN 1 ELSE 29 END)"
        server.sql("CREATE TABLE too_much AS SELECT i AS a, " + ", ".join(f"{wide} || {n} AS b{n}" for n in range(4)) +
                   ", i % 300 AS c, " + ", ".join(f"{late} || {n} AS d{n}" for n in range(6)) +
                   ", NULLIF(i, 29990) AS e, NULLIF(i % 2, 1) = 0 AS f, i::numeric AS g FROM generate_series(1, 30000) i; "
                   "CREATE TABLE small AS SELECT i AS a FROM generate_series(1, 100) i;")
        found = {}
        # An orbit that was made for another table has not inherited the sample: columns are copied.
        for mode, statements in (("off", "SET analyze_orbit = off; ANALYZE too_much;"), ("always", "ANALYZE too_much;"),
                                 ("kept", "ANALYZE too_much, small; BEGIN; ANALYZE small; ANALYZE too_much; COMMIT;")):
            server.sql("SET analyze_orbit = always; SET analyze_orbit_builtin_rows = 0; SET client_min_messages = debug1; "
                       f"SET analyze_orbit_unanalyzable = error; DELETE FROM pg_statistic; {statements}")
            self.assertNotIn("WARNING", server.notices)
            # After a large table, whose sample it would keep, none is kept.
            self.assertEqual(server.notices.count("an orbit was made"), {"off": 0, "always": 1, "kept": 3}[mode])
            found[mode] = server.sql("SET extra_float_digits = 3;" + STATISTICS.format("too_much"))
        self.assertEqual(len(found["off"].splitlines()), 15)
        self.assertEqual(found["off"], found["always"])
        self.assertEqual(found["off"], found["kept"])

    def of_seed(self, server, seed, settings):
        """What comes out with a seed: as soon as that has come out twice.

        Whoever waits for a spin lock takes a random number of the same state (PostgreSQL's s_lock.c), which gives another sample.
        That is seldom, and hardly ever the same one twice.
        """
        seen = []
        for _ in range(10):
            server.sql(f"{settings} DELETE FROM pg_statistic; SELECT fragile_seed({seed}); ANALYZE VERBOSE every_type;")
            self.assertRegex(server.notices, "; 3000 rows in sample, 32000 estimated")
            found = server.sql("SET extra_float_digits = 3;" + STATISTICS.format("every_type"))
            if found in seen:
                return found
            seen.append(found)
        self.fail(f"{len(seen)} times another sample, with one seed")

    def test_of_a_part_of_a_table(self):
        """The sample is the same if its seed is: vanilla, and with the feature off and on."""
        found = {}
        for name, built, modes in (("vanilla", VANILLA or pg.build("vanilla")[0], ("",)),
                                   ("ported", BUILT, ("off", "always"))):
            server = pg.Server(built, {"default_statistics_target": "10"}, "same")
            self.addCleanup(server.close)
            server.start()
            server.sql("CREATE EXTENSION fragile;" + types_table.CREATE +
                       "INSERT INTO every_type SELECT * FROM every_type;" * 3)
            for mode in modes:
                found[name + mode] = self.of_seed(
                    server, 42, f"SET analyze_orbit = {mode}; SET analyze_orbit_builtin_rows = 0;" if mode else "")
            if name == "ported":
                other = self.of_seed(server, 43, "SET analyze_orbit_builtin_rows = 0;")
                self.assertNotEqual(found["portedoff"], other, "the seed makes no difference")
        self.assertEqual(found["vanilla"], found["portedoff"])
        self.assertEqual(found["vanilla"], found["portedalways"])


def main():
    global BUILT, VANILLA
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--built", type=Path, help="the ported server (default: as ./build makes it)")
    parser.add_argument("--vanilla", type=Path, help="the server without the patches")
    parser.add_argument("names", nargs="*")
    options = parser.parse_args()
    BUILT, VANILLA = options.built or pg.build("ported")[0], options.vanilla
    suite = unittest.TestLoader().loadTestsFromModule(sys.modules[__name__])
    if options.names:
        suite = unittest.TestSuite(test for group in suite for test in group
                                   if any(name in test.id() for name in options.names))
    result = unittest.TextTestRunner(verbosity=2).run(suite)
    sys.exit(not result.wasSuccessful() or result.testsRun == 0)


if __name__ == "__main__":
    main()
