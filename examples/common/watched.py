# SPDX-License-Identifier: MIT
"""What tests of a database server want to know of it."""

import contextlib
import os
from pathlib import Path


class Watched:
    """A server with a directory `work` that its programs lie in, and a `log`."""

    ORBITS = ""     # what the names of its orbits begin with

    def messages(self):
        """All that the server has logged."""
        return self.log.read_text(errors="replace") if self.log.exists() else ""

    def orbits(self):
        """The processes of orbits whose main program is one of this server's."""
        found = []
        for process in Path("/proc").glob("[0-9]*"):
            with contextlib.suppress(OSError):
                if (process / "comm").read_text().startswith(f"orbit:{self.ORBITS}") and \
                        str(self.work) in os.readlink(process / "exe"):
                    found.append(int(process.name))
        return found
