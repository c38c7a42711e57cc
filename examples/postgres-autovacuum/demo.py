#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Vanilla and ported PostgreSQL side by side, while a statistics function goes wrong.

  demo.py [--seconds N] [--clients N] [--vanilla DIR] [--ported DIR] [FAULT...]

Each case is a new server with pgbench clients. Autovacuum analyzes a table whose type's
statistics function has a fault, and a sound table after it. What comes of it is counted from the
server's log, from what the clients say, and from the catalogs.
"""

import argparse
import contextlib
import os
import re
import subprocess
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import server as pg  # noqa: E402

FAULTS = {
    "segfault": "follows a null pointer",
    "abort": "calls abort()",
    "loop": "loops for ever",
    "memory": "takes 1 GiB of memory",
    "heap": "corrupts the heap",
    "wild": "writes over random addresses",
}
SETTINGS = {"autovacuum": "on", "autovacuum_naptime": "1s", "fragile.memory_mb": "1024"}
# Only the ported server knows these.
ORBIT = {"analyze_orbit": "autovacuum", "analyze_orbit_timeout": "3s", "analyze_orbit_memory_limit": "256MB"}
SETUP = """
CREATE EXTENSION fragile;
CREATE TABLE brittle (f fragile, n int) WITH (autovacuum_enabled = off, autovacuum_analyze_threshold = 10);
INSERT INTO brittle SELECT ('word ' || i % 50)::text::fragile, 1 FROM generate_series(1, 3000) i;
ANALYZE brittle;
CREATE TABLE sound (word text) WITH (autovacuum_enabled = off, autovacuum_analyze_threshold = 10);
INSERT INTO sound SELECT 'w' || i % 20 FROM generate_series(1, 3000) i;
"""
STATISTICS = "SELECT most_common_vals, most_common_freqs FROM pg_stats WHERE tablename = 'brittle' AND attname = 'f'"
OTHER = "SELECT most_common_vals FROM pg_stats WHERE tablename = 'brittle' AND attname = 'n'"
ANALYZED = "SELECT count(*) > 0 FROM pg_stats WHERE tablename = 'sound'"


class Clients:
    """pgbench, started again whenever it has lost all its connections, as applications are."""

    def __init__(self, server, count):
        self.server, self.count = server, count
        self.lost = self.transactions = 0       # connections, and transactions begun in them
        self.said = ""
        self.down = 0.0
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()

    def loop(self):
        while not self.end.is_set():
            command = [self.server.home / "bin/pgbench", "-n", "-c", str(self.count), "-j", "2", "-T", "3600"]
            with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True,
                                  env=self.server.environment, cwd=self.server.work, **pg.user()) as self.process:
                said = self.process.communicate()[0]
            if self.end.is_set():
                said = re.sub(r".*administrator command.*|.*aborted in command.*", "", said) \
                    if "fast shutdown" in self.server.messages() else said
            self.said += said
            lost = len(re.findall(r"client \d+ aborted|connection for client|could not create connection", said))
            self.lost += min(lost, self.count)
            self.transactions += len(re.findall(r"client \d+ (?:script \d+ )?aborted in (?:command|pipeline)", said))
            if not self.end.is_set():
                with contextlib.suppress(pg.Failed):
                    self.down += self.server.wait_ready(60)

    def stop(self):
        """Count the connections that were lost until now."""
        self.end.set()
        with contextlib.suppress(OSError):
            self.process.terminate()
        self.thread.join(30)


class Watch:
    """What one of the server's processes takes in memory of its own, at most; its orbits too."""

    def __init__(self, server):
        self.server, self.most = server, 0
        self.end = threading.Event()
        self.thread = threading.Thread(target=self.loop)
        self.thread.start()

    def loop(self):
        while not self.end.wait(0.05):
            for process in Path("/proc").glob("[0-9]*"):
                with contextlib.suppress(OSError, ValueError, IndexError):
                    if os.readlink(process / "cwd").startswith(str(self.server.data)):
                        pages = (process / "statm").read_text().split()
                        self.most = max(self.most, (int(pages[1]) - int(pages[2])) * 4096)

    def stop(self):
        self.end.set()
        self.thread.join()
        return self.most


def stuck_workers(server):
    """Autovacuum workers that have been busy for longer than the whole analysis takes."""
    return int(server.sql("SELECT count(*) FROM pg_stat_activity WHERE backend_type = 'autovacuum worker' "
                          "AND now() - xact_start > interval '6 seconds'", timeout=30))


def wait_for_autovacuum(server, seconds):
    """Until both tables have been analyzed, which a vanilla server may never come to."""
    begin = time.monotonic()
    while time.monotonic() - begin < seconds:
        time.sleep(1)
        with contextlib.suppress(pg.Failed, subprocess.TimeoutExpired):
            if server.sql("SELECT count(*) FROM pg_stat_user_tables WHERE autoanalyze_count > 0 AND "
                          "relname IN ('brittle', 'sound')", timeout=10) == "2":
                break
    # What follows from it, if anything does.
    time.sleep(2)


def run_case(built, name, fault, seconds, clients):
    """Run a case on one of the servers, and say what has come of it."""
    server = pg.Server(built, {**SETTINGS, **(ORBIT if name == "ported" else {})}, f"demo-{name}")
    try:
        server.start()
        server.sql(SETUP)
        server.run("pgbench", "-i", "-q", "-s", "2")
        before = server.sql(STATISTICS)
        server.configure({"fragile.fault": fault})
        server.reload()
        watch, load = Watch(server), Clients(server, clients)
        time.sleep(2)
        server.sql("ALTER TABLE brittle SET (autovacuum_enabled = on); "
                   "UPDATE brittle SET f = 'other'::text::fragile, n = 2;")
        with contextlib.suppress(pg.Failed):
            server.sql("ALTER TABLE sound SET (autovacuum_enabled = on); UPDATE sound SET word = 'x' || word;")
        wait_for_autovacuum(server, seconds)
        load.stop()
        memory = watch.stop()
        log = server.messages()
        row = {"connections lost": load.lost, "transactions lost": load.transactions, "down": load.down,
               "restarts": log.count("all server processes terminated"), "most memory": memory,
               "log": log, "said": load.said}
        try:
            server.wait_ready(60)
            row["statistics"] = "as before" if server.sql(STATISTICS) == before else "CHANGED"
            row["other column"] = "analyzed" if server.sql(OTHER) == "{2}" else "NOT analyzed"
            row["next table"] = "analyzed" if server.sql(ANALYZED) == "t" else "NOT analyzed"
            row["stuck"] = stuck_workers(server)
        except (pg.Failed, subprocess.TimeoutExpired):
            row |= {"statistics": "NOT readable", "other column": "NOT readable", "next table": "NOT readable",
                    "stuck": 0}
        return row
    finally:
        server.close()


def print_table(rows):
    head = ("the function", "server", "connections", "restarts", "transactions", "time to", "its other",
            "next table", "workers", "most memory")
    under = ("", "", "lost", "", "lost", "recover", "column", "", "stuck", "of a process")
    lines = [head, under]
    for (fault, name), row in rows.items():
        lines.append((FAULTS[fault], name, str(row["connections lost"]), str(row["restarts"]),
                      str(row["transactions lost"]), f"{row['down']:.1f} s", row["other column"],
                      row["next table"], str(row["stuck"]), f"{row['most memory'] / 2**20:.0f} MiB"))
    widths = [max(len(line[i]) for line in lines) for i in range(len(head))]
    for number, line in enumerate(lines):
        print("  " + "  ".join(cell.ljust(width) for cell, width in zip(line, widths)).rstrip())
        if number == 1:
            print("  " + "  ".join("-" * width for width in widths))
        if number > 1 and line[1] == "ported":
            print()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=int, default=20, help="for each case, at most (default: 20)")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--vanilla", type=Path)
    parser.add_argument("--ported", type=Path)
    parser.add_argument("--logs", type=Path, help="keep the servers' logs here")
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(FAULTS))
    options = parser.parse_args()
    if unknown := [fault for fault in options.faults if fault not in FAULTS]:
        parser.error(f"there is no fault {unknown[0]}")
    built = {"vanilla": options.vanilla or pg.build("vanilla")[0], "ported": options.ported or pg.build("ported")[0]}
    print(f"""
PostgreSQL's autovacuum analyzes tables: it computes statistics of their columns. For a type that
comes with an extension the extension's code does that. Here it goes wrong, while {options.clients} clients of
pgbench work with other tables. A vanilla server is compared with the ported one, where that
code runs in an orbit. Both servers run on this machine and its kernel, as they would in production.
""", flush=True)
    rows, harmed = {}, []
    for fault in options.faults or FAULTS:
        for name in built:
            print(f"  {name}: the function {FAULTS[fault]}", file=sys.stderr, flush=True)
            row = rows[fault, name] = run_case(built[name], name, fault, options.seconds, options.clients)
            if options.logs:
                options.logs.mkdir(parents=True, exist_ok=True)
                (options.logs / f"{fault}-{name}.log").write_text(row["log"] + "\n--- pgbench\n" + row["said"])
            sound = row["statistics"] == "as before" and row["other column"] == row["next table"] == "analyzed"
            lost = row["connections lost"] or row["transactions lost"] or row["restarts"] or row["stuck"]
            if name == "ported" and (lost or not sound):
                harmed.append(fault)
    print_table(rows)
    said = re.findall(r"WARNING:  .*\n.*DETAIL: .*", "\n".join(row["log"] for row in rows.values()))
    print("What the ported server's log says of each:\n")
    for line in dict.fromkeys(re.sub(r"(?m)^\S+ \S+ \S+ \[\d+\] .*?(?=DETAIL)", "    ", text) for text in said):
        print("  " + line)
    print("\n" + (f"The ported server was harmed by: {', '.join(harmed)}" if harmed else
                  "The ported server has lost no connection in any case."))
    sys.exit(bool(harmed))


if __name__ == "__main__":
    main()
