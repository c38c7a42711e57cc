#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""How long ANALYZE takes in an orbit, against the same server without: a sample of 30,000 rows of
ten columns, runs in turn.

  bench.py [--built DIR] [--rounds N] [--json FILE]
"""

import argparse
import json
import os
import re
import statistics
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import server as pg  # noqa: E402

TABLE = """CREATE TABLE wide AS SELECT i AS a, (i * 7919::bigint) % 1000 AS b, md5(i::text) AS c,
    md5((i % 500)::text) AS d, i / 7.0 AS e, sin(i) AS f, timestamptz '2020-01-01' + i * interval '1 minute' AS g,
    i % 2 = 0 AS h, ARRAY[i % 5, i % 11] AS k, (i % 300)::numeric AS l FROM generate_series(1, 100000) i;"""


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--built", type=Path)
    parser.add_argument("--rounds", type=int, default=15)
    parser.add_argument("--json", type=Path)
    options = parser.parse_args()
    server = pg.Server(options.built or pg.build("ported")[0], {}, "bench")
    try:
        server.start()
        server.sql(TABLE)
        # An orbit is made for each: the session's worst case.
        said = server.sql("\\timing on\n" + "SET analyze_orbit = off;\nANALYZE wide;\nSET analyze_orbit = always;\n"
                          "ANALYZE wide;\n" * (options.rounds + 1), timeout=1200)
    finally:
        server.close()
    times = [float(ms) for ms in re.findall(r"^Time: ([\d.]+) ms", said, re.M)]
    off, always = times[1::4][1:], times[3::4][1:]      # the first round fills caches
    ratio = statistics.median(always) / statistics.median(off)
    print(f"ANALYZE, off: median {statistics.median(off):.0f} ms; in an orbit: {statistics.median(always):.0f} ms; "
          f"ratio {ratio:.2f} of {len(off)} runs each ({min(always) / min(off):.2f} of the shortest)")
    if options.json:
        options.json.write_text(json.dumps({"off_ms": off, "always_ms": always, "ratio": ratio,
                                            "cpus": os.cpu_count(), "load": os.getloadavg()}, indent=1))


if __name__ == "__main__":
    main()
