#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Clients that run into deadlocks, while the deadlock detector goes wrong: vanilla, in a thread, in an orbit.

  demo.py [--server mysql] [--seconds N] [--clients N] [--built DIR] [FAULT...]
"""

import argparse
import contextlib
import random
import resource
import sys
import threading
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import server as servers  # noqa: E402

FAULTS = {"none": "works", "segfault": "follows a null pointer", "abort": "calls abort()", "loop": "loops for ever",
          "memory": "eats memory", "scribble": "writes over memory", "random": "names anybody who waits",
          "nobody": "finds nothing"}
COLUMNS = {"vanilla": None, "thread": "faulty", "orbit": "faulty"}
# What a server may allocate: one whose detector eats memory is not to take the machine's.
MEMORY = 3 << 30


class Client(threading.Thread):
    """Transactions of four updates in any order; begins anew after a deadlock, and connects again if it has to."""

    def __init__(self, server, seed, stop):
        super().__init__()
        self.server, self.random, self.stop = server, random.Random(seed), stop
        self.done = self.deadlocks = self.lost = self.other = 0
        self.longest = 0.0

    def run(self):
        connection = None
        while not self.stop.is_set():
            begin = time.monotonic()
            try:
                connection = connection or self.server.connect(timeout=60)
                connection.sql("BEGIN")
                for row in self.random.sample(range(20), 4):
                    begin = time.monotonic()
                    connection.sql(f"UPDATE test.t SET v = v + 1 WHERE id = {row}")
                connection.sql("COMMIT")
                self.done += 1
            except servers.Error as error:
                if error.code == servers.DEADLOCK:
                    self.deadlocks += 1
                    self.longest = max(self.longest, time.monotonic() - begin)
                else:
                    self.other += 1
            except servers.Lost:
                if connection:
                    self.lost += 1
                connection = None
                time.sleep(0.05)


def run(kind, built, column, fault, seconds, clients):
    """One cell of the table."""
    plugin = COLUMNS[column]
    # A server that dies is to recover.
    settings = {"innodb_doublewrite": "1", "innodb_flush_log_at_trx_commit": "2"}
    if plugin:
        settings["innodb_deadlock_detector"] = column
    server = kind(built, plugin, settings, limits={resource.RLIMIT_DATA: MEMORY})
    server.start()
    server.stop()       # so that all of the new files is written
    server.start()
    with contextlib.closing(server):
        server.sql("CREATE TABLE test.t (id INT PRIMARY KEY, v INT) ENGINE=InnoDB")
        server.sql("INSERT INTO test.t VALUES " + ", ".join(f"({i}, 0)" for i in range(20)))
        stop = threading.Event()
        threads = [Client(server, seed, stop) for seed in range(clients)]
        for thread in threads:
            thread.start()
        time.sleep(seconds / 4)
        server.fault("" if fault == "none" else fault)
        end = time.monotonic() + seconds * 3 / 4
        restarts = 0
        while time.monotonic() < end:
            if not server.alive():
                restarts += 1
                server.fault()      # as after an administrator has turned it off
                server.start()
            time.sleep(0.05)
        stop.set()
        for thread in threads:
            thread.join()
        found = {}
        try:
            found = server.status()
        except servers.Lost:      # it is about to die, or has died
            restarts += 1
        return {"committed": sum(t.done for t in threads), "deadlocks": sum(t.deadlocks for t in threads),
                "longest": max(t.longest for t in threads), "lost": sum(t.lost for t in threads),
                "other": sum(t.other for t in threads), "restarts": restarts, **{
                    name: found.get(name, 0) for name in ("failures", "fallbacks", "victims", "stale")}}


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--seconds", type=float, default=12, help="for each server and fault")
    parser.add_argument("--clients", type=int, default=8)
    parser.add_argument("--server", choices=servers.SERVERS, default="mariadb", help="default: %(default)s")
    parser.add_argument("--built", type=Path)
    parser.add_argument("faults", nargs="*", metavar="FAULT", help=", ".join(FAULTS))
    options = parser.parse_args()
    if unknown := set(options.faults) - set(FAULTS):
        parser.error(f"no fault is called {unknown.pop()}")
    kind = servers.SERVERS[options.server]
    built = options.built or kind.build()
    head = (f"{'the detector':24} {'in':8} {'commits':>8} {'deadlocks':>9} {'longest':>8} {'restarts':>8} "
            f"{'lost':>5} {'failures':>8} {'by itself':>9} {'after 1 s':>9}")
    print(f"{options.clients} clients, {options.seconds:g} s each; lost: connections, with the transactions they were in\n")
    print(head)
    harmed = 0
    for fault in options.faults or FAULTS:
        for column, plugin in COLUMNS.items():
            if fault != "none" and not plugin:
                continue        # vanilla's has no such fault
            cell = run(kind, built, column, fault, options.seconds, options.clients)
            print(f"{FAULTS[fault]:24} {column:8} {cell['committed']:8} {cell['deadlocks']:9} {cell['longest']:6.2f} s "
                  f"{cell['restarts']:8} {cell['lost']:5} {cell['failures']:8} {cell['victims']:9} {cell['fallbacks']:9}",
                  flush=True)
            if column == "orbit":
                harmed += cell["restarts"] + cell["lost"] + cell["other"]
    print("\nIn the server with an orbit " + ("no connection was lost." if not harmed else "something was lost."))
    return 1 if harmed else 0


if __name__ == "__main__":
    sys.exit(main())
