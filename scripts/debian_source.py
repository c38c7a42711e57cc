# SPDX-License-Identifier: MIT
"""For scripts that build something of Debian's: source packages and packages, fetched with apt into a cache.

apt gets lists and archives of its own, of the Debian archives that the machine's apt knows: nothing of the machine's is changed,
and nothing is installed.  What linux-patches/build does with caches and patches is here as `common`; whoever uses this sets
common.CACHE to a directory of its own.
"""

import importlib.machinery
import importlib.util
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

PROJECT = Path(__file__).resolve().parents[1]


def load(path, name):
    """A script of the project that is no module by its name; nothing is written beside it."""
    loader = importlib.machinery.SourceFileLoader(name, str(PROJECT / path))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader(loader.name, loader))
    written, sys.dont_write_bytecode = sys.dont_write_bytecode, True
    loader.exec_module(module)
    sys.dont_write_bytecode = written
    return module


common = load("linux-patches/build", "kernel_build")
fail, say = common.fail, common.say


def no_room():
    return f"no room left on the disk of {common.CACHE}: make room, or set ORBIT_CACHE"


def run(what, command, log, may_fail=False, **options):
    """Run a command, its output to a log; whether it succeeded.  Stops if it has failed and may not.

    what: what failed then, and maybe what to do about it in parentheses.
    """
    with log.open("a") as log_file:
        log_file.write(f"+ {' '.join(map(str, command))}\n")
        log_file.flush()
        done = subprocess.run(command, stdout=log_file, stderr=subprocess.STDOUT, stdin=subprocess.DEVNULL,
                              **options)
    if done.returncode and not may_fail:
        # Of all that a compiler or apt says, the first complaint tells what is wrong.
        wrong = [line for line in log.read_text(errors="replace").splitlines()
                 if re.search(r"error: |^E: |undefined|No space|FAILED", line, re.I) and line[0] not in "+-"]
        if any(re.search("No space left|enough free space", line) for line in wrong):
            fail(no_room())
        what, _, advice = what.partition(" (")
        fail(f"{what} failed{f' ({advice}' if advice else ''}: "
             f"{wrong[0].removeprefix('E: ') if wrong else f'status {done.returncode}'}; the whole log is {log}")
    return done.returncode == 0


def write(path, text):
    """Write a file of which make or ninja knows by its time whether it has changed."""
    if not path.exists() or path.read_text() != text:
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text)


def copy_headers(directory, to):
    """So that what is compiled with them does not depend on where this project is; a copy's time is that of a change."""
    for header in sorted(directory.glob("*.h")):
        write(to / header.name, header.read_text())


class Apt:
    """apt for as long as the directory `work` is there."""

    def __init__(self, work, log, kinds=("deb-src",), advice="is there a network?", otherwise="", suite=None):
        """advice, otherwise: what to do if nothing can be fetched, or if apt knows no Debian archive.

        suite: another one of the Debian archive that the machine's apt knows.
        """
        self.log, self.advice = log, advice
        for name in ("lists/partial", "archives/partial"):
            (work / name).mkdir(parents=True)
        own = ["-o", f"Dir::State::Lists={work / 'lists'}", "-o", f"Dir::Cache={work}", "-o", "APT::Sandbox::User=",
               "-o", "Acquire::Languages=none", "-o", "APT::Update::Error-Mode=any", "-o", "Acquire::Retries=3"]
        lines = self.archives([])
        if not lines:       # the machine's lists may have been deleted, as containers' are
            self.get("asking apt", [*own, "update"], work)
            lines = self.archives(own)
        if not lines:
            fail(f"apt knows no Debian archive{otherwise}")
        if suite:       # security and updates are archives and suites of their own
            lines = sorted({" ".join([*words, suite, component]) for *words, release, component in map(str.split, lines)
                            if "-" not in release})
        (work / "sources.list").write_text("".join(f"{kind} {line}\n" for line in lines for kind in kinds))
        self.options = [*own, "-o", f"Dir::Etc::SourceList={work / 'sources.list'}", "-o", "Dir::Etc::SourceParts=/dev/null"]
        self.get("asking apt", ["update"], work)

    options = ()

    @staticmethod
    def archives(options):
        """Where apt gets Debian's packages from; empty if it has no lists."""
        form = "$(ORIGIN)|$(REPO_URI)|$(RELEASE)|$(COMPONENT)"
        found = subprocess.run(["apt-get", *options, "indextargets", "--format", form, "Created-By: Packages"],
                               stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, text=True).stdout
        keyring = Path("/usr/share/keyrings/debian-archive-keyring.gpg")
        signed = f"[signed-by={keyring}] " if keyring.exists() else ""
        return sorted({signed + line.split("|", 1)[1].replace("|", " ")
                       for line in found.splitlines() if line.startswith("Debian|")})

    def versions(self, package, source=False):
        """All that there are of a package."""
        words = ["showsrc", "--only-source"] if source else ["show"]
        known = subprocess.run(["apt-cache", *self.options, *words, package], stdout=subprocess.PIPE,
                               stderr=subprocess.DEVNULL, text=True).stdout
        return set(re.findall(r"^Version: (\S+)$", known, re.M))

    def get(self, what, command, where, may_fail=False):
        """apt-get; whether it succeeded."""
        return run(f"{what} ({self.advice})", ["apt-get", "-q", *self.options, *command], self.log, may_fail, cwd=where)


def newest_first(versions):
    return sorted(versions, key=lambda version: [int(n) for n in re.findall(r"\d+", version)], reverse=True)


def fetch_source(package, cache, variable, suite=None):
    """One of Debian's source packages in a directory of a cache; the path of its .dsc.

    variable: the environment's variable that tells where it is already.  suite: where it is, if not in the machine's.
    """
    given = os.environ.get(variable)
    where = Path(given).absolute() if given else cache / "source"
    if found := sorted(where.glob(f"{package}_*.dsc")):
        return found[-1]
    if given:
        fail(f"{variable}: {where} holds no {package}_*.dsc")
    if not shutil.which("apt-get"):
        fail(f"no apt-get here: set {variable} to a directory with Debian's source package {package}")
    common.check_space()
    log = cache / "fetch.log"
    log.unlink(missing_ok=True)
    say(f"fetching the source of {package}")
    with common.temporary(cache) as work:
        (work / "source").mkdir(parents=True)
        apt = Apt(work, log, advice=f"is there a network? else set {variable}",
                  otherwise=f": set {variable} to a directory with Debian's source package {package}", suite=suite)
        versions = newest_first(apt.versions(package, source=True))
        if not versions:
            fail(f"the Debian archive that apt knows has no source of {package}: it is in {suite or 'Debian 12'}")
        # A mirror may tell of a version before it has it, or after.
        for version in versions:
            if apt.get(f"fetching the source of {package}", ["--download-only", "source", f"{package}={version}"],
                       work / "source", may_fail=version != versions[-1]):
                break
            say(f"the archive tells of {package} {version} and does not have its source: taking an older one, into which "
                "extensions that were compiled for it may not load")
        common.replace(work / "source", where)
    return sorted(where.glob(f"{package}_*.dsc"))[-1]
