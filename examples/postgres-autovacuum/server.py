# SPDX-License-Identifier: MIT
"""A PostgreSQL server of its own for a test: made in a directory that is gone afterwards.

PostgreSQL does not run as root.  If we are root, it is run by "nobody", whom every system
has, with a copy of what was built, for that user may not be able to read the cache.
"""

import atexit
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
from watched import Watched  # noqa: E402

HERE = Path(__file__).resolve().parent
# No checkpoint, no flush: what a test leaves behind is nobody's data.
SETTINGS = {"listen_addresses": "''", "fsync": "off", "shared_buffers": "32MB", "max_connections": "40",
            "log_line_prefix": "'%m [%p] %b '", "log_statement_stats": "off", "autovacuum": "off",
            "shared_preload_libraries": "''", "max_wal_size": "1GB"}


# Whoever ends a test that takes too long: servers end with it (see Server), as after Ctrl-C.
signal.signal(signal.SIGTERM, signal.default_int_handler)


class Failed(Exception):
    """A statement or a program of the server's has failed; what it said."""


def user():
    """Who runs the server, as arguments for subprocess."""
    return {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}


def build(*flavours):
    """The directories of built servers; builds them if need be."""
    done = subprocess.run([HERE / "build", *flavours], stdout=subprocess.PIPE, text=True)
    if done.returncode:
        raise SystemExit(done.returncode)
    return [Path(line) for line in done.stdout.split()]


class Server(Watched):
    """A server, running from `start` to `stop`."""

    ORBITS = "analyze"

    def __init__(self, built, settings=None, name="server", environment=None):
        self.work = Path(tempfile.mkdtemp(prefix=f"orbit-pg-{name}-"))
        self.home = self.work / "home"
        self.data, self.log = self.work / "data", self.work / "log"
        atexit.register(self.close)
        shutil.copytree(built, self.home, symlinks=True)
        if user():
            shutil.chown(self.work, "nobody", "nogroup")
        self.environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", "HOME": str(self.work),
                            "PGHOST": str(self.work), "PGDATABASE": "postgres", "PGUSER": "postgres",
                            "PGAPPNAME": "", **(environment or {})}
        self.environment.pop("PGPORT", None)
        self.run("initdb", "-D", self.data, "-U", "postgres", "-A", "trust", "-N", "-E", "UTF8")
        self.configure({**SETTINGS, "unix_socket_directories": f"'{self.work}'", **(settings or {})})

    def configure(self, settings):
        """Add settings; a server that runs has to be told (`reload`)."""
        with (self.data / "postgresql.conf").open("a") as file:
            file.writelines(f"{name} = {value}\n" for name, value in settings.items())

    def run(self, program, *arguments, **options):
        """Run one of its programs; what it has printed."""
        done = subprocess.run([self.home / "bin" / program, *map(str, arguments)], stdout=subprocess.PIPE,
                              stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL, env=self.environment,
                              cwd=self.work, text=True, errors="replace", **user(), **options)
        if done.returncode:
            raise Failed(f"{program} has ended with {done.returncode}:\n{done.stdout}")
        return done.stdout

    def start(self):
        self.run("pg_ctl", "-D", self.data, "-l", self.log, "-w", "-t", "120", "start")
        return self

    def reload(self):
        self.run("pg_ctl", "-D", self.data, "reload")

    def stop(self, mode="fast"):
        self.run("pg_ctl", "-D", self.data, "-w", "-t", "120", "-m", mode, "stop")

    def sql(self, text, timeout=300, database="postgres"):
        """Run statements; the rows of the last that has any, as lines."""
        done = subprocess.run([self.home / "bin/psql", "-X", "-q", "-A", "-t", "-v", "ON_ERROR_STOP=1",
                               "-d", database, "-f", "-"], input=text, stdout=subprocess.PIPE,
                              stderr=subprocess.PIPE, env=self.environment, cwd=self.work, text=True,
                              timeout=timeout, **user())
        if done.returncode:
            raise Failed(done.stderr)
        self.notices = done.stderr
        return done.stdout.strip()

    def postmaster(self):
        """Its process id; None if it does not run."""
        try:
            pid = int((self.data / "postmaster.pid").read_text().split()[0])
            os.kill(pid, 0)
            return pid
        except (OSError, ValueError, IndexError):
            return None

    def wait_ready(self, seconds=120):
        """Wait until it takes connections; how long that took."""
        begin = time.monotonic()
        while time.monotonic() - begin < seconds:
            with contextlib.suppress(Failed, subprocess.TimeoutExpired):
                self.sql("SELECT 1", timeout=10)
                return time.monotonic() - begin
            time.sleep(0.05)
        raise Failed("it takes no connections")

    def close(self):
        """End it, however it is, and remove all of it."""
        pid = self.postmaster()
        if pid:
            with contextlib.suppress(Failed):
                self.stop("immediate")
            with contextlib.suppress(OSError):
                os.kill(pid, signal.SIGKILL)
        shutil.rmtree(self.work, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()
