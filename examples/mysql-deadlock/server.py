# SPDX-License-Identifier: MIT
"""A server of its own for a test, and connections to it: in a directory that is gone afterwards.

It is Debian's packaged MariaDB, with its own InnoDB or with the one that was built here, or a MySQL that was built here.
It takes connections by a socket in that directory only, and does not ask who they are.
"""

import atexit
import contextlib
import os
import random
import resource
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "common"))
from watched import Watched  # noqa: E402

HERE = Path(__file__).resolve().parent
# Nothing is flushed: what a test leaves behind is nobody's data.
SETTINGS = {"innodb_buffer_pool_size": "32M", "innodb_flush_log_at_trx_commit": "0",
            "innodb_flush_method": "nosync", "innodb_doublewrite": "0", "innodb_stats_persistent": "0",
            "innodb_lock_wait_timeout": "50", "innodb_use_native_aio": "0", "innodb_buffer_pool_dump_at_shutdown": "0",
            "innodb_buffer_pool_load_at_startup": "0", "max_connections": "300", "performance_schema": "0"}
DEADLOCK, TIMEOUT = 1213, 1205

# Whoever ends a test that takes too long: servers end with it, as after Ctrl-C.
signal.signal(signal.SIGTERM, signal.default_int_handler)


class Error(Exception):
    """What the server has answered."""

    def __init__(self, code, text):
        super().__init__(f"{code}: {text}")
        self.code = code


class Lost(Exception):
    """The connection is gone."""


class Connection:
    """As little of the protocol as it takes: statements as text, rows as lists of text."""

    def __init__(self, path, timeout=120):
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(timeout)
        try:
            self.socket.connect(str(path))
            self.greet()
        except OSError as error:
            self.socket.close()
            raise Lost(str(error)) from None
        except (Lost, Error):
            self.socket.close()
            raise

    def greet(self):
        greeting = self.read()
        if greeting[:1] == b"\xff":
            raise Error(struct.unpack_from("<H", greeting, 1)[0], greeting[3:].decode(errors="replace"))
        # Protocol 4.1, transactions, authentication by plugins; user root, who has no password.
        self.send(struct.pack("<IIB23x", 0x200 | 0x2000 | 0x8000 | 0x80000, 1 << 24, 45)
                  + b"root\0\0mysql_native_password\0", 1)
        answer = self.read()
        if answer[:1] == b"\xfe":       # use another plugin; by none of them has nobody a password
            self.send(b"\0" if answer[1:].startswith(b"caching_sha2_password\0") else b"", self.sequence)
            answer = self.read()
        self.check(answer)

    def close(self):
        self.socket.close()

    def send(self, payload, sequence):
        try:
            self.socket.sendall(struct.pack("<I", len(payload))[:3] + bytes([sequence]) + payload)
        except OSError as error:
            raise Lost(str(error)) from None

    def exactly(self, size):
        got = b""
        while len(got) < size:
            try:
                piece = self.socket.recv(size - len(got))
            except OSError as error:
                raise Lost(str(error)) from None
            if not piece:
                raise Lost("the server has closed the connection")
            got += piece
        return got

    def read(self):
        head = self.exactly(4)
        self.sequence = head[3] + 1 & 255
        return self.exactly(int.from_bytes(head[:3], "little"))

    @staticmethod
    def check(packet):
        if packet[:1] == b"\xff":
            text = packet[9:] if packet[3:4] == b"#" else packet[3:]
            raise Error(struct.unpack_from("<H", packet, 1)[0], text.decode(errors="replace"))

    @staticmethod
    def texts(packet):
        """The fields of a row."""
        at, fields = 0, []
        while at < len(packet):
            size, at = packet[at], at + 1
            if size == 0xfb:
                fields.append(None)
                continue
            if size > 0xfb:
                width = {0xfc: 2, 0xfd: 3, 0xfe: 8}[size]
                size, at = int.from_bytes(packet[at:at + width], "little"), at + width
            fields.append(packet[at:at + size].decode(errors="replace"))
            at += size
        return fields

    def start(self, sql):
        """Send a statement; its answer is for `finish`."""
        self.send(b"\x03" + sql.encode(), 0)

    def finish(self):
        packet = self.read()
        self.check(packet)
        if packet[:1] == b"\0":
            return []
        for _ in range(packet[0] + 1):      # columns, and their end
            self.read()
        rows = []
        while True:
            packet = self.read()
            self.check(packet)
            if packet[:1] == b"\xfe" and len(packet) < 9:
                return rows
            rows.append(self.texts(packet))

    def sql(self, sql):
        self.start(sql)
        return self.finish()


class Cycle:
    """Transactions of which each waits for the next, in connections of their own to a table t of (id, v)."""

    def __init__(self, server, size, first_row=0, seed=0, rows_before=(), connections=()):
        """connections: of which it takes as many as it needs, and then makes its own."""
        self.connections = list(connections[:size])
        try:
            while len(self.connections) < size:
                self.connections.append(server.connect())
        except Lost:
            self.close()
            raise
        self.rows = [first_row + i for i in range(size)]
        self.random = random.Random(seed)
        self.errors = [None] * size         # a number, or "lost"
        self.seconds = [None] * size        # from each one's statement to its answer
        self.after_closing = None           # from the last statement to the first error
        self.rows_before = rows_before

    def run(self):
        """Close the cycle; who was rolled back, by number."""
        size = len(self.connections)
        for i, connection in enumerate(self.connections):
            connection.sql("BEGIN")
            connection.sql(f"UPDATE t SET v = v + 1 WHERE id = {self.rows[i]}")
            if i < len(self.rows_before):       # the more rows, the more it weighs
                first = 100000 + self.rows[0] * 100 + i * 1000
                connection.sql(f"INSERT INTO heavy SELECT seq FROM seq WHERE seq BETWEEN {first} AND "
                               f"{first + self.rows_before[i] - 1}")
        order = list(range(size))
        self.random.shuffle(order)
        begin, running = {}, {}
        poll = select.poll()
        for i in order:
            begin[i] = time.monotonic()
            try:
                self.connections[i].start(f"UPDATE t SET v = v + 1 WHERE id = {self.rows[(i + 1) % size]}")
            except Lost:
                self.errors[i] = "lost"
                continue
            running[self.connections[i].socket.fileno()] = i
            poll.register(self.connections[i].socket, select.POLLIN)
            if i != order[-1] and self.random.random() < 0.5:
                time.sleep(0.002)
        closed = begin[order[-1]]
        while running:
            ready = poll.poll(120000)
            if not ready:       # and so it is seen as lost
                break
            for number, _ in ready:
                i = running.pop(number)
                poll.unregister(number)
                self.end(i)
                now = time.monotonic()
                self.seconds[i] = now - begin[i]
                if self.errors[i] and self.after_closing is None:
                    self.after_closing = now - closed
        for i in running.values():
            self.errors[i] = "lost"
        return [i for i in range(size) if self.errors[i]]

    def end(self, i):
        """Take the answer to a statement, and end the transaction."""
        try:
            self.connections[i].finish()
        except Error as error:
            self.errors[i] = error.code
        except Lost:
            self.errors[i] = "lost"
            return
        try:
            self.connections[i].sql("COMMIT")
        except (Error, Lost) as error:
            self.errors[i] = self.errors[i] or str(error)

    def close(self):
        for connection in self.connections:
            connection.close()


class MariaDB(Watched):
    """A server, running from `start` to `stop`.

    plugin: "plugin", "faulty", or None for the packaged InnoDB.  limits: of its process, by RLIMIT_*.
    """

    ORBITS = "deadlocks"
    BUILD, PROGRAM, SHARE = "build", "packages/usr/sbin/mariadbd", "packages/usr/share/mysql"
    SETTINGS = {"innodb_log_file_size": "16M"}

    @classmethod
    def build(cls):
        """The directory of what was built; builds it if need be."""
        done = subprocess.run([HERE / cls.BUILD], stdout=subprocess.PIPE, text=True)
        if done.returncode:
            raise SystemExit(done.returncode)
        return Path(done.stdout.strip())

    def __init__(self, built, plugin="plugin", settings=None, environment=None, limits=None):
        self.limits = limits or {}
        self.work = Path(tempfile.mkdtemp(prefix="orbit-server-"))
        atexit.register(self.close)
        self.data, self.log, self.path = self.work / "data", self.work / "log.err", self.work / "socket"
        self.fault_file = self.work / "fault"
        self.process = None
        self.environment = {**os.environ, "LC_ALL": "C.UTF-8", "TZ": "UTC", "DEADLOCK_FAULT": str(self.fault_file),
                            **(environment or {})}
        self.fault_file.write_text("")
        # A copy of what it needs: users other than root cannot read a cache in root's home.
        self.home = self.work / "home"
        self.home.mkdir()
        shutil.copy2(built / self.PROGRAM, self.home)
        for name in ("english", "charsets"):
            shutil.copytree(built / self.SHARE / name, self.home / "share" / name)
        self.settings = {**SETTINGS, **self.SETTINGS, "datadir": self.data, "socket": self.path, "log_error": self.log,
                         "lc_messages_dir": self.home / "share",
                         "character_sets_dir": self.home / "share/charsets",
                         "pid_file": self.work / "pid", "tmpdir": self.work}
        self.install(built, plugin)
        self.settings |= settings or {}
        if os.getuid() == 0:
            for path in (self.work, self.fault_file, self.data, *self.data.rglob("*")):
                shutil.chown(path, "nobody", "nogroup")

    def install(self, built, plugin):
        """Make an empty database, and take what was built."""
        self.data.mkdir()
        (self.data / "test").mkdir()
        if plugin:
            (self.home / "plugin").mkdir()
            shutil.copy2(built / plugin / "ha_innodb.so", self.home / "plugin")
            self.settings |= {"plugin_dir": self.home / "plugin", "plugin_maturity": "unknown",
                              "ignore_builtin_innodb": "1", "plugin_load_add": "ha_innodb.so"}

    def start(self):
        options = [f"--{name.replace('_', '-')}={value}" for name, value in self.settings.items()]
        user = {"user": "nobody", "group": "nogroup", "extra_groups": []} if os.getuid() == 0 else {}
        self.process = subprocess.Popen(
            [self.home / Path(self.PROGRAM).name, "--no-defaults", "--skip-networking", "--skip-grant-tables",
             "--skip-log-bin", *options], env=self.environment, cwd=self.work, stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL, stderr=subprocess.STDOUT, preexec_fn=self.limit, **user)
        begin = time.monotonic()
        while time.monotonic() - begin < 180:
            if self.process.poll() is not None:
                raise Error(self.process.returncode, f"it has ended:\n{self.messages()[-3000:]}")
            with contextlib.suppress(Lost, Error):
                self.connect().close()
                return self
            time.sleep(0.05)
        raise Error(0, f"it takes no connections:\n{self.messages()[-3000:]}")

    def limit(self):
        for limit, value in self.limits.items():
            resource.setrlimit(limit, (value, resource.getrlimit(limit)[1]))

    def connect(self, timeout=120):
        return Connection(self.path, timeout)

    def sql(self, sql):
        connection = self.connect()
        try:
            return connection.sql(sql)
        finally:
            connection.close()

    def status(self):
        """The detector's counters."""
        rows = self.sql("SHOW GLOBAL STATUS LIKE 'Innodb_deadlock%'")
        return {name.removeprefix("Innodb_deadlock_detector_").removeprefix("Innodb_").lower(): int(value)
                for name, value in rows}

    def fault(self, word=""):
        """What the detector shall do wrong from now on."""
        self.fault_file.write_text(word)

    def alive(self):
        return self.process is not None and self.process.poll() is None

    def stop(self, seconds=120):
        """End it in good order; how long that took."""
        begin = time.monotonic()
        if self.alive():
            self.process.terminate()
            self.process.wait(seconds)
        return time.monotonic() - begin

    def close(self):
        """End it, however it is, and remove all of it."""
        if self.alive():
            self.process.kill()
            self.process.wait()
        shutil.rmtree(self.work, ignore_errors=True)
        atexit.unregister(self.close)

    def __enter__(self):
        return self.start()

    def __exit__(self, *_):
        self.close()


class MySQL(MariaDB):
    """The same of a MySQL that was built here.  Its InnoDB is always ours, and vanilla's if nothing is set."""

    BUILD, PROGRAM, SHARE = "mysql/build", "bin/mysqld", "share"
    SETTINGS = {"innodb_redo_log_capacity": "16M", "innodb_data_file_path": "ibdata1:12M:autoextend"}

    def install(self, built, plugin):
        shutil.copytree(built / "data", self.data)
        shutil.copytree(built / ("faulty" if plugin == "faulty" else "lib"), self.home / "lib")
        self.environment["LD_LIBRARY_PATH"] = str(self.home / "lib")

    def start(self):
        super().start()
        self.sql("CREATE DATABASE IF NOT EXISTS test")
        return self

    def status(self):
        deadlocks = self.sql("SELECT count FROM information_schema.innodb_metrics WHERE name = 'lock_deadlocks'")
        return {**super().status(), "deadlocks": int(deadlocks[0][0])}


SERVERS = {"mariadb": MariaDB, "mysql": MySQL}
