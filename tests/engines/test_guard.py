"""Engines have process groups of their own, and still go when the tests are ended from outside."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.engines.guard import guarding

ROOT = Path(__file__).resolve().parents[2]
TESTS = """
import subprocess, sys, time
from tests.engines.guard import guarding
engine = "import subprocess, sys, time; subprocess.Popen(['sleep', '60']); time.sleep(60)"
with guarding() as guard:
    process = subprocess.Popen([sys.executable, "-c", engine], process_group=0)
    guard.watch(process.pid)
    print(process.pid, flush=True)
    time.sleep(60)
"""


def alive(group: int) -> bool:
    try:
        os.killpg(group, 0)
    except ProcessLookupError:
        return False
    return True


@pytest.mark.parametrize("how", [signal.SIGTERM, signal.SIGKILL])
def test_an_engine_ends_with_the_tests_however_those_end(how: signal.Signals) -> None:
    with subprocess.Popen(
        [sys.executable, "-c", TESTS], cwd=ROOT, stdout=subprocess.PIPE, text=True
    ) as tests:
        assert tests.stdout is not None
        group = int(tests.stdout.readline())
        assert alive(group)
        tests.send_signal(how)
    deadline = time.monotonic() + 10
    while alive(group):
        assert time.monotonic() < deadline, "the engine is still there"
        time.sleep(0.02)


def test_a_guard_that_is_dismissed_kills_nobody() -> None:
    with subprocess.Popen(["sleep", "60"], process_group=0) as other:
        with guarding() as guard:
            guard.watch(other.pid)
        assert guard.process.poll() is not None
        with pytest.raises(subprocess.TimeoutExpired):
            other.wait(0.2)
        other.kill()
