"""Sees to it that no engine outlives the tests, however those end.

An engine has a process group of its own, so that tests can stop it whole; for that very reason
the signal that ends the tests (SIGTERM of a CI, SIGKILL of the OOM killer) does not reach it. The
guard is one more process: it waits for the end of a pipe that only the tests hold, which closes
when they are gone, and then kills the groups it was told of.
"""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass

_PROGRAM = """
import os, signal, sys
groups = [int(line) for line in sys.stdin]
for group in groups:
    try:
        os.killpg(group, signal.SIGKILL)
    except ProcessLookupError:
        pass
"""


@dataclass(frozen=True)
class Guard:
    """The running guard."""

    process: subprocess.Popen[str]

    def watch(self, group: int) -> None:
        """Kill this process group when the tests are gone."""
        assert self.process.stdin is not None
        self.process.stdin.write(f"{group}\n")
        self.process.stdin.flush()


@contextmanager
def guarding() -> Iterator[Guard]:
    """A guard that is dismissed at the end, when whoever started something has stopped it."""
    process = subprocess.Popen(
        [sys.executable, "-S", "-c", _PROGRAM],
        stdin=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    try:
        yield Guard(process)
    finally:
        process.kill()  # before its pipe closes: the numbers may be somebody else's by now
        process.communicate()
