#!/usr/bin/env python3
# SPDX-License-Identifier: MIT
"""A server's own tests of locks and deadlocks, with the detector inline, in a thread, and in an orbit.

  mtr.py [--server mysql] [--built DIR] [--mode MODE...] [--core] [TEST...]

Without names: all tests of its suite innodb that speak of deadlocks or lock waits and do not want a debug server.
Core is those with "lock" in their names.  A test that fails is run once more, as MariaDB's own runner does.  The exit status is 0 if
no test fails with a mode that passes with the packaged InnoDB ("vanilla" among the modes tells; of MySQL that is "inline").
"""

import argparse
import os
import re
import shutil
import signal
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
MODES = ("vanilla", "inline", "thread", "orbit")
# Their results list all variables of InnoDB, of which there are more now.
NOT_THESE = {"innodb.innodb_skip_innodb_is_tables"}


def build(script, command):
    done = subprocess.run([HERE / script, command], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return Path(done.stdout.strip())


def link(source, to):
    """Some hundred megabytes need not be there twice, if one file system has both places."""
    Path(to).unlink(missing_ok=True)        # a package's file may replace another's, and not be written into it
    try:
        os.link(source, to, follow_symlinks=False)
    except OSError:
        shutil.copy2(source, to, follow_symlinks=False)


def choose(tests, core):
    found = []
    for test in sorted((tests / "suite/innodb/t").glob("*.test")):
        text = test.read_text(errors="replace")
        if "have_debug" in text or f"innodb.{test.stem}" in NOT_THESE:
            continue
        if re.search("(?<!b)lock", test.stem) if core else re.search("deadlock|lock.wait", text + test.stem, re.I):
            found.append(f"innodb.{test.stem}")
    return found


def mariadb(options, work):
    """The runner, where it runs, and what it takes for a mode."""
    built, suite = options.built or build("build", "build"), build("build", "suite")
    # The runner finds everything from where it is itself.
    root = work / "root"
    for part in (built / "packages", suite):
        shutil.copytree(part, root, symlinks=True, dirs_exist_ok=True, copy_function=link)
    (work / "plugins").mkdir()
    shutil.copy2(built / "plugin/ha_innodb.so", work / "plugins")
    ours = [f"plugin-dir={work / 'plugins'}", "plugin-maturity=unknown", "ignore-builtin-innodb", "plugin-load-add=ha_innodb.so"]
    return "mariadb-test-run.pl", root / "usr/share/mysql/mysql-test", {}, lambda mode: [] if mode == "vanilla" else [
        *ours, f"loose-innodb-deadlock-detector={mode}"]


def mysql(options, _):
    built = options.built or build("mysql/build", "build")
    return ("mysql-test-run.pl", (built / "suite").resolve(), {"MTR_BINDIR": str((built / "objects").resolve())},
            lambda mode: [] if mode == "vanilla" else [f"loose-innodb-deadlock-detector={mode}"])


def main():
    signal.signal(signal.SIGTERM, signal.default_int_handler)   # what is there in between goes
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--server", choices=("mariadb", "mysql"), default="mariadb", help="default: %(default)s")
    parser.add_argument("--built", type=Path)
    parser.add_argument("--mode", action="append", choices=MODES)
    parser.add_argument("--core", action="store_true")
    parser.add_argument("--jobs", type=int, default=os.cpu_count())
    parser.add_argument("tests", nargs="*")
    options = parser.parse_args()
    bad = {}
    environment = {name: value for name, value in os.environ.items() if not name.startswith("MTR_")}
    work = Path(tempfile.mkdtemp(prefix="orbit-mtr-"))
    try:
        runner, tests, variables, settings = {"mariadb": mariadb, "mysql": mysql}[options.server](options, work)
        names = options.tests or choose(tests, options.core)
        for mode in options.mode or ["vanilla" if options.server == "mariadb" else "inline", "orbit"]:
            done = subprocess.run(
                ["perl", runner, "--force", "--max-test-fail=0", "--retry=1", "--nowarnings",
                 f"--parallel={options.jobs}", f"--vardir={work / f'var-{mode}'}", "--skip-rpl", "--testcase-timeout=10",
                 *(f"--mysqld=--{word}" for word in settings(mode)), *names], cwd=tests, env={**environment, **variables},
                stdout=subprocess.PIPE, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, text=True, errors="replace")
            results = dict(re.findall(r"^(?:\[ *\d+%\] )?(\w+\.\S+(?: '[^']*')?).*\[ (?:retry-)?(pass|fail|skipped|disabled) ", done.stdout, re.M))
            if not results:
                sys.exit(f"mtr: nothing has run:\n{done.stdout[-3000:]}")
            bad[mode] = {name for name, result in results.items() if result == "fail"}
            count = {result: sum(r == result for r in results.values()) for result in sorted(set(results.values()))}
            print(f"{mode}: {', '.join(f'{n} {what}' for what, n in count.items())}"
                  + (f"; failed: {', '.join(sorted(bad[mode]))}" if bad[mode] else ""), flush=True)
            if bad[mode] and mode != "vanilla":
                (Path(tempfile.gettempdir()) / f"orbit-mtr-{mode}.log").write_text(done.stdout)
    finally:
        shutil.rmtree(work, ignore_errors=True)
    return 1 if any(names - bad.get("vanilla", set()) for mode, names in bad.items() if mode != "vanilla") else 0


if __name__ == "__main__":
    sys.exit(main())
