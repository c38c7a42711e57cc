#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""Compare memory from pools with malloc() and with Boost's allocator alone, in one run.

  run.py PROGRAM [--json FILE] [--seconds S] [--limit RATIO]

Prints the medians and their ratios to malloc()'s.  With --json the raw results of Google
Benchmark go there.  Exit status 1 if a pattern of `replace` takes more than RATIO times what
it takes with malloc().
"""

import argparse
import json
import subprocess
import sys
import tempfile

SOURCES = ["malloc", "pool", "boost"]


def medians(results):
    """{pattern: {source: nanoseconds of CPU time}}"""
    table = {}
    for row in results["benchmarks"]:
        if row.get("aggregate_name") == "median":
            pattern, source, *argument = row["run_name"].split("/")
            table.setdefault("/".join([pattern, *argument]), {})[source] = row["cpu_time"]
    return table


def main():
    parser = argparse.ArgumentParser(description=__doc__,
                                     formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("program")
    parser.add_argument("--json", help="where to keep the raw results")
    parser.add_argument("--seconds", type=float, default=0.2, help="for each of 9 repetitions")
    parser.add_argument("--limit", type=float, default=2.0)
    options = parser.parse_args()

    with tempfile.NamedTemporaryFile("r") as out:
        # Interleaved: what else the machine does meanwhile hits all alike.
        subprocess.run([options.program, f"--benchmark_out={out.name}", "--benchmark_repetitions=9",
                        f"--benchmark_min_time={options.seconds}",
                        "--benchmark_enable_random_interleaving=true",
                        "--benchmark_report_aggregates_only=true"],
                       stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, check=True)
        results = json.load(out)
    for private in ("host_name", "executable"):
        results["context"].pop(private, None)
    if options.json:
        with open(options.json, "w") as file:
            json.dump(results, file, indent=1)
            file.write("\n")

    table = medians(results)
    print(f"{'pattern':<16}" + "".join(f"{source + ', ns':>12}" for source in SOURCES)
          + f"{'pool/malloc':>13}{'boost/malloc':>14}")
    for pattern, times in sorted(table.items()):
        print(f"{pattern:<16}" + "".join(f"{times[source]:12.1f}" for source in SOURCES)
              + f"{times['pool'] / times['malloc']:13.2f}{times['boost'] / times['malloc']:14.2f}")
    slow = [pattern for pattern, times in table.items() if pattern.startswith("replace")
            and times["pool"] > options.limit * times["malloc"]]
    if not any(pattern.startswith("replace") for pattern in table):
        sys.exit("run.py: nothing was measured")
    if slow:
        sys.exit(f"run.py: more than {options.limit} times malloc(): {', '.join(slow)}")


if __name__ == "__main__":
    main()
