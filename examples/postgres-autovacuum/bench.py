#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""What statistics in an orbit cost: the server's clients, and ANALYZE itself.

  bench.py [--pairs N] [--seconds N] [--rounds N] [--json FILE] [load] [analyze] [kinds]
  bench.py --variant none|fork|orbit ...     measured by bench/, see bench/apps/README.md

load: pgbench, while autovacuum looks at all tables each second and always finds some to
analyze; the ported server with analyze_orbit = off and = autovacuum, in short runs by turns.
First as many transactions as it can do, then at half that rate, for how long each takes.

analyze: how long ANALYZE takes of a sample of 30,000 rows of ten columns: vanilla, ported with
the setting off, and in an orbit, by turns. The orbit is kept for the next table, as autovacuum's
workers do, or made anew for each, as for the first table and for ANALYZE in a session.

kinds: the same of other tables, vanilla and ported in its default settings with analyze_orbit =
always, by turns: 1,000 tiny ones, one of 1,600 columns, arrays and jsonb, an extension's type.
"""

import argparse
import json
import os
import random
import re
import statistics
import sys
import time
from pathlib import Path

HERE = Path(__file__).resolve().parent
sys.path[:0] = [str(HERE), str(HERE.parents[1] / "bench/common")]
import server as pg  # noqa: E402
import stats  # noqa: E402

WIDE = """CREATE TABLE wide AS SELECT i AS a, (i * 7919::bigint) % 1000 AS b, md5(i::text) AS c,
    md5((i % 500)::text) AS d, i / 7.0 AS e, sin(i) AS f, timestamptz '2020-01-01' + i * interval '1 minute' AS g,
    i % 2 = 0 AS h, ARRAY[i % 5, i % 11] AS k, (i % 300)::numeric AS l FROM generate_series(1, 100000) i;"""
BUSY = {"autovacuum": "on", "autovacuum_naptime": "1s", "autovacuum_analyze_threshold": "1",
        "autovacuum_analyze_scale_factor": "0", "synchronous_commit": "off"}
# bench/apps knows a variant as "fork" if a forked process does the task: here the postmaster's.
VARIANTS = {"none": {"autovacuum": "off"}, "fork": {"analyze_orbit": "off"}, "orbit": {"analyze_orbit": "autovacuum"}}
# So that the table with the ten columns changes as well.
SCRIPT = """\\set at random(1, 100000)
UPDATE wide SET l = l + 1 WHERE a = :at;
"""
SHARES = {"p50": 0.5, "p95": 0.95, "p99": 0.99, "p99.9": 0.999}
SETTLE = 1.5        # seconds: workers that were at it with the other setting have ended
WANTED_THROUGHPUT, WANTED_TIME = 0.97, 1.2
TINY = 1000
FEW = 3000          # rows of a table whose rows are long
# What there is, what is timed, and how many times vanilla's time that may take.
KINDS = {
    f"{TINY:,} tiny tables, one command": (
        f"DO $$BEGIN FOR i IN 1..{TINY} LOOP EXECUTE 'CREATE TABLE tiny' || i || ' AS SELECT i AS a, i::text AS b, "
        "ARRAY[i] AS c FROM generate_series(1, 20) i'; END LOOP; END$$;",
        "ANALYZE " + ", ".join(f"tiny{i}" for i in range(1, TINY + 1)) + ";", 1.3),
    f"{TINY:,} tiny tables, a command for each": (
        "", " ".join(f"ANALYZE tiny{i};" for i in range(1, TINY + 1)), 1.3),
    "1,600 columns": (
        "CREATE TABLE columns (" + ", ".join(f"c{i} int" for i in range(1600)) + "); INSERT INTO columns SELECT " +
        ", ".join(f"(i * {i + 7}) % {i + 100}" for i in range(1600)) + f" FROM generate_series(1, {FEW}) i;",
        "ANALYZE columns;", 1.5),
    "arrays and jsonb": (
        "CREATE TABLE structured AS SELECT ARRAY[i % 5, i % 11, i % 3] AS a, ARRAY['a' || i % 20, 'b' || i % 7] AS b, "
        "jsonb_build_object('a', i % 1000, 'b', ARRAY[i % 3, 5]) AS c, to_tsvector('simple', 'the quick fox number ' || "
        "i % 500) AS d FROM generate_series(1, 30000) i;", "ANALYZE structured;", 1.2),
    "an extension's type": (
        "CREATE EXTENSION fragile; CREATE TABLE extended AS SELECT md5((i % 9000)::text)::fragile AS a, "
        "md5(i::text)::fragile AS b FROM generate_series(1, 30000) i;", "ANALYZE extended;", 1.2),
}
# The same tables several times in one command, which keeps its orbit, as a worker of autovacuum does.
KEPT = 4
for kind, table in (("arrays and jsonb", "structured"), ("an extension's type", "extended")):
    KINDS[f"{kind}, {KEPT} tables in one command"] = (
        " ".join(f"CREATE TABLE {table}{i} AS TABLE {table};" for i in range(KEPT)),
        "ANALYZE " + ", ".join(f"{table}{i}" for i in range(KEPT)) + ";", 1.2)


class Load:
    """A server with tables, and clients of it."""

    def __init__(self, built, clients, scale, settings=None):
        self.server, self.clients = pg.Server(built, {**BUSY, **(settings or {})}, "bench"), clients
        self.script = self.server.work / "wide.sql"
        self.script.write_text(SCRIPT)
        try:
            self.server.start()
            self.server.run("pgbench", "-i", "-q", "-s", scale)
            self.server.sql(WIDE + "CREATE INDEX ON wide (a);")
        except BaseException:
            self.server.close()
            raise

    def analyzed(self):
        """How often autovacuum has analyzed a table."""
        return int(self.server.sql("SELECT sum(autoanalyze_count) FROM pg_stat_user_tables"))

    def warnings(self):
        return len(re.findall("are kept as they were|terminated by signal", self.server.messages()))

    def run(self, seconds, rate=None):
        """Transactions a second, and how many microseconds each took (with a rate: since it was due)."""
        for old in self.server.work.glob("log.*"):
            old.unlink()
        options = ["-R", str(rate)] if rate else []
        self.server.run("pgbench", "-n", "-c", self.clients, "-j", "1", "-T", seconds, "-b", "tpcb-like@4",
                        "-f", f"{self.script}@1", "-l", f"--log-prefix={self.server.work / 'log'}", *options)
        times = [int(line.split()[2]) for file in self.server.work.glob("log.*")
                 for line in file.read_text().splitlines()]
        if not times:
            raise SystemExit("bench: pgbench has done no transaction")
        return len(times) / seconds, times

    def switch(self, variant):
        self.server.configure(VARIANTS[variant])
        self.server.reload()
        time.sleep(SETTLE)


def measure_load(built, options):
    """Pairs of runs, one of each setting, whose order changes at random."""
    rng = random.Random(1)
    found = {"throughput": [], "latency": [], "analyzed": {"fork": 0, "orbit": 0}}
    load = Load(built, options.clients, options.scale)
    try:
        load.run(options.seconds)        # caches
        for kind in ("throughput", "latency"):
            rate = None
            if kind == "latency":
                rate = 0.5 * statistics.median(pair["fork"] for pair in found["throughput"])
            for number in range(options.pairs):
                pair = {}
                for variant in rng.sample(("fork", "orbit"), 2):
                    load.switch(variant)
                    before = load.analyzed()
                    tps, times = load.run(options.seconds, rate)
                    found["analyzed"][variant] += load.analyzed() - before
                    pair[variant] = tps if kind == "throughput" else \
                        {name: stats.percentile(times, share) / 1000 for name, share in SHARES.items()}
                found[kind].append(pair)
                if sys.stderr.isatty():
                    print(f"\r{kind}: pair {number + 1} of {options.pairs}\033[K", end="", file=sys.stderr)
        if load.warnings():
            raise SystemExit(f"bench: not as it should be:\n{load.server.messages()[-3000:]}")
    finally:
        load.server.close()
    if sys.stderr.isatty():
        print("\r\033[K", end="", file=sys.stderr)
    ratios = [pair["orbit"] / pair["fork"] for pair in found["throughput"]]
    ratio, (low, high) = statistics.median(ratios), stats.interval(ratios)
    found["throughput_ratio"] = {"median": ratio, "low": low, "high": high}
    off, orbit = (statistics.median(pair[v] for pair in found["throughput"]) for v in ("fork", "orbit"))
    print(f"clients: {off:.0f} transactions a second with analyze_orbit = off, {orbit:.0f} with autovacuum; "
          f"ratio of {len(ratios)} pairs {ratio:.3f} (95 %: {low:.3f} to {high:.3f}), wanted at least "
          f"{WANTED_THROUGHPUT}: {'holds' if ratio >= WANTED_THROUGHPUT else 'DOES NOT HOLD'}")
    print(f"  autovacuum has analyzed {found['analyzed']['fork']} and {found['analyzed']['orbit']} tables meanwhile")
    for name in SHARES:
        values = {v: statistics.median(pair[v][name] for pair in found["latency"]) for v in ("fork", "orbit")}
        ratio = statistics.median(pair["orbit"][name] / pair["fork"][name] for pair in found["latency"])
        print(f"  {name} at half that rate: {values['fork']:.2f} ms and {values['orbit']:.2f} ms, ratio {ratio:.2f}")
    return found


def measure_analyze(vanilla, ported, rounds):
    """Milliseconds of each ANALYZE."""
    analyze = "\\timing on\nANALYZE wide;\nANALYZE wide;\n"
    # The first of a session fills its caches. An orbit is kept as long as a transaction.
    how = {"vanilla": (vanilla, f"ANALYZE wide;\n{analyze}"),
           "off": (ported, f"SET analyze_orbit = off; ANALYZE wide;\n{analyze}"),
           "kept": (ported, f"SET analyze_orbit = always; ANALYZE wide;\nBEGIN;\nANALYZE wide;\n{analyze}"
                            "\\timing off\nCOMMIT;\n"),
           "new": (ported, f"SET analyze_orbit = always; ANALYZE wide;\n{analyze}")}
    servers, found = {}, {name: [] for name in how}
    try:
        for built in (vanilla, ported):
            servers[built] = pg.Server(built, {}, "bench")
            servers[built].start()
            servers[built].sql(WIDE)
        rng = random.Random(1)
        for _ in range(rounds):
            for name in rng.sample(list(how), len(how)):
                built, script = how[name]
                times = re.findall(r"^Time: ([\d.]+) ms", servers[built].sql(script), re.M)
                if len(times) != 2:
                    raise SystemExit(f"bench: {len(times)} times for {name}")
                found[name] += [float(ms) for ms in times]
    finally:
        for each in servers.values():
            each.close()
    medians = {name: statistics.median(times) for name, times in found.items()}
    ratios = {name: {"medians": medians[name] / medians["vanilla"],
                     "shortest": min(found[name]) / min(found["vanilla"])} for name in ("kept", "new")}
    print(f"ANALYZE of 30,000 rows of ten columns, medians of {len(found['vanilla'])}: vanilla "
          f"{medians['vanilla']:.0f} ms, off {medians['off']:.0f} ms")
    for name, what in (("kept", "in an orbit that is kept, as autovacuum does"), ("new", "in a new orbit")):
        ratio = ratios[name]["medians"]
        print(f"  {what}: {medians[name]:.0f} ms, {ratio:.2f} times vanilla (of the shortest "
              f"{ratios[name]['shortest']:.2f}), wanted at most {WANTED_TIME}: "
              f"{'holds' if ratio <= WANTED_TIME else 'DOES NOT HOLD'}")
    return {"ms": found, "ratios": ratios}


def measure_kinds(vanilla, ported, rounds):
    """Milliseconds of each ANALYZE of each kind of table."""
    servers, found = {}, {kind: {"vanilla": [], "ported": []} for kind in KINDS}
    rng = random.Random(1)
    try:
        for name, built in (("vanilla", vanilla), ("ported", ported)):
            servers[name] = pg.Server(built, {"analyze_orbit": "always"} if name == "ported" else {}, "bench")
            servers[name].start()
            for setup, _, _ in KINDS.values():
                servers[name].sql(setup)
            servers[name].sql("CHECKPOINT")
        for _ in range(rounds):
            for kind, (_, statement, _) in KINDS.items():
                for name in rng.sample(list(servers), 2):
                    # The first fills the session's caches.
                    said = servers[name].sql(f"{statement}\n\\timing on\n{statement}\n", timeout=1200)
                    found[kind][name].append(sum(map(float, re.findall(r"^Time: ([\d.]+) ms", said, re.M))))
    finally:
        for each in servers.values():
            each.close()
    for kind, (_, _, wanted) in KINDS.items():
        times = found[kind]
        ratio = statistics.median(times["ported"]) / statistics.median(times["vanilla"])
        shortest = min(times["ported"]) / min(times["vanilla"])
        found[kind]["ratio"] = {"medians": ratio, "shortest": shortest}
        print(f"{kind}: vanilla {statistics.median(times['vanilla']):.0f} ms, ported "
              f"{statistics.median(times['ported']):.0f} ms, {ratio:.2f} times vanilla (of the shortest {shortest:.2f}), "
              f"wanted at most {wanted}: {'holds' if ratio <= wanted else 'DOES NOT HOLD'}")
    return found


def run_variant(built, options):
    """As bench/apps/README.md wants it."""
    load = Load(built, options.clients, options.scale, VARIANTS[options.variant])
    try:
        load.run(1)
        before = load.analyzed()
        tps, _ = load.run(options.seconds)
        _, times = load.run(options.seconds, options.rate)
        done, wrong = load.analyzed() - before, load.warnings()
    finally:
        load.server.close()
    count = round(tps * options.seconds)
    for line in ({"about": {"application": "postgres", "variant": options.variant}},
                 {"requests": count, "time": options.seconds * 10**9},
                 {"latency": [us * 1000 for us in times]},
                 {"tasks": {"done": done, "wrong": wrong, "skipped": 0}}, {"end": True}):
        print(json.dumps(line))


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("what", nargs="*", help="load, analyze, kinds (default: all)")
    parser.add_argument("--vanilla", type=Path)
    parser.add_argument("--ported", type=Path)
    parser.add_argument("--pairs", type=int, default=25)
    parser.add_argument("--seconds", type=int, default=6, help="for each run of pgbench (default: 6)")
    parser.add_argument("--clients", type=int, default=4)
    parser.add_argument("--scale", type=int, default=2, help="of pgbench's tables")
    parser.add_argument("--rounds", type=int, default=15, help="of ANALYZE, two runs each")
    parser.add_argument("--rate", type=int, default=300, help="with --variant: transactions a second")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--variant", choices=VARIANTS)
    parser.add_argument("--way", choices=["timed"])
    options = parser.parse_args()
    if unknown := set(options.what) - {"load", "analyze", "kinds"}:
        parser.error(f"what is {unknown.pop()}?")
    ported = options.ported or pg.build("ported")[0]
    if options.variant:
        run_variant(ported, options)
        return
    found = {}
    if "analyze" in options.what or not options.what:
        found["analyze"] = measure_analyze(options.vanilla or pg.build("vanilla")[0], ported, options.rounds)
    if "kinds" in options.what or not options.what:
        found["kinds"] = measure_kinds(options.vanilla or pg.build("vanilla")[0], ported, options.rounds)
    if "load" in options.what or not options.what:
        found["load"] = measure_load(ported, options)
    if options.json:
        found |= {"cpus": os.cpu_count(), "load_average": os.getloadavg(), "seconds": options.seconds}
        options.json.write_text(json.dumps(found, indent=1) + "\n")


if __name__ == "__main__":
    main()
