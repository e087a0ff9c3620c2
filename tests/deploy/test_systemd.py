"""The systemd units: accepted by systemd itself, confined, and patient enough to drain."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest

from router.config.schema import ReliabilitySection
from tests.deploy.monitoring import DEPLOY
from tests.deploy.programs import ran

UNITS = sorted((DEPLOY / "systemd").glob("*.service"))
EXPOSURE_BELOW = {"motley.service": 20, "motley-engine@.service": 60}
"""Tenths of what ``systemd-analyze security`` reports; 100 is an ordinary service. The engine
needs its cards, and compiles kernels at run time."""


def installed(unit: Path, folder: Path) -> Path:
    """The unit, its programs replaced by one that exists here."""
    text = re.sub(
        r"(?m)^(ExecStart(?:Pre)?=)/opt/\S+", rf"\1{shutil.which('true')}", unit.read_text()
    )
    name = unit.name.replace("@.", "@vllm.")
    (folder / name).write_text(text)
    return folder / name


@pytest.mark.parametrize("unit", UNITS, ids=lambda unit: unit.name)
def test_systemd_accepts_it_and_finds_it_confined(unit: Path, tmp_path: Path) -> None:
    if shutil.which("systemd-analyze") is None:
        pytest.skip("no systemd-analyze on this machine")
    path = installed(unit, tmp_path)
    status, said = ran("systemd-analyze", "verify", "--man=no", str(path))
    assert (status, said) == (0, "")
    limit = str(EXPOSURE_BELOW[unit.name])
    check = ("--offline=true", "--no-pager", f"--threshold={limit}", str(path))
    status, said = ran("systemd-analyze", "security", *check)
    assert status == 0, said


def test_streams_may_finish_before_it_is_killed() -> None:
    text = (DEPLOY / "systemd" / "motley.service").read_text("utf-8")
    wait_s = int(re.findall(r"^TimeoutStopSec=(\d+)$", text, re.MULTILINE)[0])
    longest = ReliabilitySection()
    assert wait_s > longest.drain_delay_s + longest.drain_timeout_s + 60
    assert "ExecReload=/bin/kill -HUP" in text
    assert re.search(r"^ExecStartPre=\S+/motley check (\S+)$", text, re.MULTILINE)
