#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What the detector costs: how long a deadlock takes to end, and what clients get done, by turns.

  bench.py [--built DIR] [--rounds N] [--seconds N] [LOAD...]
  bench.py --variant none|thread|fork|orbit ...     measured by bench/, see bench/apps/README.md

Loads: latency (two clients, one deadlock after the other); cycles (two to eight, whose waits begin in any order; exactly one is
to be rolled back each time, and if not, the exit status is 1); and ROWSxUPDATESxCLIENTS, as 1x1x64 or 20x4x64: so many clients
update so many of so many rows in a transaction, or with --sysbench those of Debian's sysbench do (hot.lua).  The clients run on
this machine, and those in Python take about as much of it as the server does, which makes differences smaller than they are.
Intervals are of 95 %, by resampling the rounds.
"""

import argparse
import contextlib
import functools
import json
import multiprocessing
import random
import re
import select
import shutil
import statistics
import subprocess
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import server as servers  # noqa: E402

SERVERS = {"vanilla": (None, {}), "inline": ("plugin", {}), "thread": ("plugin", {"innodb_deadlock_detector": "thread"}),
           "orbit": ("plugin", {"innodb_deadlock_detector": "orbit"}),
           "off": ("plugin", {"innodb_deadlock_detect": "OFF", "innodb_lock_wait_timeout": "1"})}
# For bench/apps: nobody looks for deadlocks; or InnoDB's own code does, in the thread that begins to wait, which is where
# other applications have fork().
VARIANTS = {"none": ("plugin", {"innodb_deadlock_detect": "OFF"}), "fork": SERVERS["inline"], "thread": SERVERS["thread"],
            "orbit": SERVERS["orbit"]}
CLIENTS, ROWS, UPDATES = 16, 20, 4


def prepare(make, name, kinds=None):
    plugin, settings = (kinds or SERVERS)[name]
    server = make(plugin, {**settings, "max_connections": 300, "back_log": 300}).start()
    server.sql("CREATE TABLE test.t (id INT PRIMARY KEY, v INT) ENGINE=InnoDB")
    server.sql("INSERT INTO test.t VALUES " + ", ".join(f"({i}, 0)" for i in range(200)))
    return server


def latency(server, count):
    """From the statement that closes the cycle until somebody hears of it, in milliseconds."""
    first, second = server.connect(), server.connect()
    found = []
    for _ in range(count):
        for connection, row in ((first, 1), (second, 2)):
            connection.sql("BEGIN")
            connection.sql(f"UPDATE test.t SET v = v + 1 WHERE id = {row}")
        first.start("UPDATE test.t SET v = v + 1 WHERE id = 2")
        time.sleep(0.003)
        begin = time.monotonic()
        second.start("UPDATE test.t SET v = v + 1 WHERE id = 1")
        ready, _, _ = select.select([first.socket, second.socket], [], [])
        found.append((time.monotonic() - begin) * 1000)
        for connection in sorted((first, second), key=lambda c: c.socket not in ready):
            with contextlib.suppress(servers.Error):
                connection.finish()
            connection.sql("ROLLBACK")
    first.close()
    second.close()
    return found


def cycles(server, count, seed):
    """From the statement that closes the cycle until somebody hears of it, in milliseconds; and how many went wrong."""
    choose = random.Random(seed)
    connections = [server.connect() for _ in range(8)]
    for connection in connections:
        connection.sql("USE test")
    found, wrong = [], 0
    before = server.status()["deadlocks"]
    for number in range(count):
        cycle = servers.Cycle(server, choose.randrange(2, 9), seed=seed * count + number, connections=connections)
        victims = [cycle.errors[i] for i in cycle.run()]
        wrong += victims != [servers.DEADLOCK]
        found.append((cycle.after_closing or 0) * 1000)
    for connection in connections:
        connection.close()
    return found, wrong + (server.status()["deadlocks"] - before != count)


def clients(path, rows, updates, count, seconds, seed, results):
    """A process with some of the clients; those that wait for an answer do not wait for each other."""
    choose = random.Random(seed)
    connections = [servers.Connection(path) for _ in range(count)]
    plans = {c.socket: [c, []] for c in connections}
    done = deadlocks = 0
    poll = select.poll()
    by_number = {}

    def step(entry):
        connection, plan = entry
        if not plan:
            plan += ["COMMIT", *(f"UPDATE test.t SET v = v + 1 WHERE id = {row}"
                                 for row in choose.sample(range(rows), updates)), "BEGIN"]
        connection.start(plan[-1])

    for entry in plans.values():
        poll.register(entry[0].socket, select.POLLIN)
        by_number[entry[0].socket.fileno()] = entry
        step(entry)
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        for number, _ in poll.poll(1000):
            entry = by_number[number]
            try:
                entry[0].finish()
                done += entry[1].pop() == "COMMIT"
            except servers.Error as error:
                deadlocks += error.code == servers.DEADLOCK
                entry[1].clear()
            step(entry)
    results.put((done, deadlocks))


def throughput(server, load, seconds, seed):
    """Transactions and deadlocks in a second."""
    rows, updates, count = (int(n) for n in load.split("x"))
    results = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=clients, args=(server.path, rows, updates, count // 4, seconds, seed + i,
                                                               results)) for i in range(4)]
    for process in processes:
        process.start()
    found = [results.get() for _ in processes]
    for process in processes:
        process.join()
    return tuple(sum(each) / seconds for each in zip(*found))


def sysbench(server, load, seconds, seed):
    """Transactions and deadlocks in a second."""
    rows, updates, count = load.split("x")
    done = subprocess.run(
        ["sysbench", Path(__file__).with_name("hot.lua"), "--db-driver=mysql", f"--mysql-socket={server.path}", "--mysql-user=root",
         "--mysql-db=test", f"--rows={rows}", f"--updates={updates}", f"--threads={count}", f"--time={max(1, round(seconds))}", "--events=0",
         f"--rand-seed={seed + 1}", "run"], stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)
    found = [re.search(rf"{what}: +\d+ +\(([\d.]+) per sec", done.stdout) for what in ("transactions", "ignored errors")]
    if done.returncode or None in found:
        sys.exit(f"sysbench: {done.stdout[-2000:]}")
    return tuple(float(each[1]) for each in found)


def interval(rates, of):
    """Between what the ratio of two sums over all rounds lies."""
    choose = random.Random(0)
    ratios = []
    for _ in range(2000):
        rounds = choose.choices(range(len(rates)), k=len(rates))
        ratios.append(sum(rates[i] for i in rounds) / (sum(of[i] for i in rounds) or 1))
    ratios.sort()
    return ratios[50], ratios[-51]


def orderly(path, count, seconds, rate, seed, results):
    """A process with some clients that update rows in ascending order: they wait in chains, and never in a circle.

    Results: how many transactions, and how many ns each took since it was due; without a rate it is due at once.
    """
    choose = random.Random(seed)
    idle, busy, times = [servers.Connection(path) for _ in range(count)], {}, []
    poll = select.poll()
    begin = time.monotonic()
    due, end = begin, begin + seconds
    while True:
        now = time.monotonic()
        while idle and due < end and (now < end if rate is None else due <= now):
            connection = idle.pop()
            busy[connection.socket.fileno()] = (connection, due if rate else now, ["COMMIT", *(
                f"UPDATE test.t SET v = v + 1 WHERE id = {row}" for row in sorted(choose.sample(range(ROWS), UPDATES), reverse=True))])
            poll.register(connection.socket, select.POLLIN)
            connection.start("BEGIN")
            due += 1 / rate if rate else 0
        if not busy and (now >= end if rate is None else due >= end):
            break
        # With a rate, until the next one is due, if there is somebody for it.
        for number, _ in poll.poll(max(0, (due - now) * 1000) if rate and idle and due < end else 1000):
            connection, since, plan = busy[number]
            connection.finish()
            if plan:
                connection.start(plan.pop())
                continue
            times.append(round((time.monotonic() - since) * 1e9))
            poll.unregister(number)
            del busy[number]
            idle.append(connection)
    results.put(times)


def run_orderly(server, seconds, rate, seed):
    results = multiprocessing.Queue()
    processes = [multiprocessing.Process(target=orderly, args=(
        server.path, CLIENTS // 4, seconds, rate and rate / 4, seed + i, results)) for i in range(4)]
    for process in processes:
        process.start()
    found = [ns for _ in processes for ns in results.get()]
    for process in processes:
        process.join()
    return found


def run_variant(make, options):
    """As bench/apps/README.md wants it."""
    with contextlib.closing(prepare(make, options.variant, VARIANTS)) as server:
        # Each wait is looked at, if only to see that it closes no cycle.
        def checks():
            return int(server.sql("SHOW GLOBAL STATUS LIKE 'Innodb_row_lock_waits'")[0][1])

        run_orderly(server, 1, None, 0)
        before = checks()
        count = len(run_orderly(server, options.seconds, None, 1))
        times = run_orderly(server, options.seconds, options.rate, 2)
        status = server.status()
        for line in ({"about": {"application": "mysql", "variant": options.variant}},
                     {"requests": count, "time": round(options.seconds * 1e9)}, {"latency": times},
                     {"tasks": {"done": 0 if options.variant == "none" else checks() - before,
                                "wrong": status["deadlocks"] + status["failures"], "skipped": 0}}, {"end": True}):
            print(json.dumps(line))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=servers.SERVERS, default="mariadb", help="default: %(default)s")
    parser.add_argument("--built", type=Path)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=5)
    parser.add_argument("--deadlocks", type=int, default=100, help="of each server in a round, for latency and cycles")
    parser.add_argument("--seed", type=int, default=0, help="of the first round's cycles; others for others")
    parser.add_argument("--variant", choices=VARIANTS)
    parser.add_argument("--way", choices=["timed"])
    parser.add_argument("--rate", type=int, default=200, help="with --variant: transactions a second")
    parser.add_argument("--servers", default="vanilla,thread,orbit", help=f"the first is what others are compared with: {', '.join(SERVERS)}")
    parser.add_argument("--sysbench", action="store_true", help="for the clients; a package of Debian's")
    parser.add_argument("loads", nargs="*", default=["latency", "1x1x16", "1x1x64", "50x1x64", "20x4x64"])
    options = parser.parse_args()
    if options.sysbench and not shutil.which("sysbench"):
        parser.error("apt-get install sysbench")
    kind = servers.SERVERS[options.server]
    make = functools.partial(kind, options.built or kind.build())
    if options.variant:
        return run_variant(make, options)
    names = options.servers.split(",")
    wrong = 0
    for load in options.loads:
        found = {name: [] for name in names}
        with contextlib.ExitStack() as stack:
            running = {name: stack.enter_context(contextlib.closing(prepare(make, name))) for name in names}
            for number in range(options.rounds):
                for name in names if number % 2 else reversed(names):
                    if load == "latency":
                        found[name] += latency(running[name], options.deadlocks)
                    elif load == "cycles":
                        times, bad = cycles(running[name], options.deadlocks, options.seed + number)
                        found[name] += times
                        wrong += bad
                    else:
                        run = sysbench if options.sysbench else throughput
                        found[name].append(run(running[name], load, options.seconds, number * 100))
            counted = {name: running[name].status() for name in names}
        for name in names:
            if load in ("latency", "cycles"):
                cuts = statistics.quantiles(found[name], n=100)
                print(f"{load:10} {name:8} p50 {cuts[49]:7.2f} ms, p99 {cuts[98]:7.2f} ms, longest {max(found[name]):.2f} ms, of "
                      f"{len(found[name])}" + "".join(f"; {counted[name][n]} {what}" for n, what in (
                          ("victims", "by the detector"), ("fallbacks", "after a second"), ("stale", "stale answers"))
                          if counted[name].get("checks")), flush=True)
                continue
            rates, first = ([done for done, _ in found[n]] for n in (name, names[0]))
            least, most = interval(rates, first)
            checks, spent = counted[name].get("checks", 0), counted[name].get("microseconds", 0)
            print(f"{load:10} {name:8} {statistics.mean(rates):9.1f} transactions/s, "
                  f"{statistics.mean(d for _, d in found[name]):7.1f} deadlocks/s, of {names[0]}'s "
                  f"{sum(rates) / (sum(first) or 1):.3f} ({least:.3f} to {most:.3f})"
                  + (f"; {checks} checks of {spent / checks:.0f} us, {counted[name]['fallbacks']} after a second"
                     if checks else ""), flush=True)
    if wrong:
        print(f"{wrong} cycles did not end with one transaction rolled back")
    return wrong > 0


if __name__ == "__main__":
    sys.exit(main())
