#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""PostgreSQL's own regression suite on the ported server.

  regress.py [--mode off|always]... [--tests NAME...]

Without --tests all of it, in parallel, as `make check` does.
"""

import argparse
import re
import subprocess
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent))
import server as pg  # noqa: E402

# What analyzes tables and looks at what the planner makes of it, and what these need before.
CORE = ("test_setup", "create_index", "create_misc", "sanity_check", "vacuum", "rangetypes", "multirangetypes",
        "arrays", "stats_ext", "inherit", "partition_join", "tsearch", "select", "join")


def run(built, mode, tests):
    """Run the suite; whether it has passed, and what pg_regress has said."""
    settings = {"max_prepared_transactions": "2", "log_line_prefix": "'%m %b[%p] %q%a '", "log_lock_waits": "on",
                "log_temp_files": "128kB", "autovacuum": "on", "shared_buffers": "128MB"}
    if mode:
        settings["analyze_orbit"] = mode
    server = pg.Server(built, settings, "regress")
    try:
        server.start()
        suite = server.home / "regress"
        output = server.work / "output"
        output.mkdir()
        if pg.user():
            subprocess.run(["chown", "-R", "nobody:nogroup", output, suite], check=True)
        command = [suite / "pg_regress", f"--inputdir={suite}", f"--outputdir={output}", f"--bindir={server.home / 'bin'}",
                   f"--dlpath={suite}", f"--host={server.work}", "--user=postgres", "--max-concurrent-tests=20",
                   *(tests or [f"--schedule={suite / 'parallel_schedule'}"])]
        done = subprocess.run(command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, cwd=output,
                              env=server.environment, **pg.user())
        said = done.stdout
        if done.returncode:
            for name in ("regression.diffs",):
                if (output / name).exists():
                    said += (output / name).read_text(errors="replace")
        crashed = "terminating any other active server processes" in server.messages()
        kept = re.findall(r"WARNING:  statistics of column.*\n.*", server.messages())
        return done.returncode == 0 and not crashed and not kept, said + "\n".join(kept)
    finally:
        server.close()


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--built", type=Path)
    parser.add_argument("--mode", action="append", choices=("off", "autovacuum", "always"))
    parser.add_argument("--core", action="store_true", help="only the tests that have to do with ANALYZE")
    parser.add_argument("--tests", nargs="*", default=[])
    options = parser.parse_args()
    built = options.built or pg.build("ported")[0]
    failed = []
    for mode in options.mode or ("off", "always"):
        passed, said = run(built, mode, options.tests or (CORE if options.core else ()))
        count = len(re.findall(r"^(?:test |     )\S.*\bok\b", said, re.M))
        print(f"analyze_orbit = {mode}: {'passed' if passed else 'FAILED'}, {count} tests ok")
        if not passed:
            failed.append(mode)
            print(*re.findall(r"^.*FAILED.*$", said, re.M), said[-8000:], sep="\n")
    sys.exit(bool(failed))


if __name__ == "__main__":
    main()
