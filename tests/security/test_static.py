"""Bandit finds nothing in the packages that is not justified where it stands (``# nosec``)."""

from __future__ import annotations

import json
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[2]
PACKAGES = ("router", "solver", "telemetry", "simulator")
MEANT = {
    "B101": "assert: for the type checker and for what cannot be, never to check input",
    "B105": "passwords: words of messages and of engines' vocabulary, taken for passwords",
    "B311": "random: draws of policies and simulations, which must follow a seed",
    "B404": "subprocess: imported to run this very interpreter",
    "B603": "subprocess: lists of arguments, never a shell (B602 and B604 stay on)",
}
"""Rules that do not fit this code, and why."""
JUSTIFIED = {
    ("router/cli/check_start.py", "B104"): "addresses are compared with it; nothing is bound",
    ("router/config/load.py", "B506"): "its loader is a SafeLoader that refuses repeated keys",
    ("router/gateway/batch/store.py", "B608"): "the table's name is one of two literals",
    ("router/gateway/plan_history.py", "B608"): "the columns are the fields of a dataclass",
    ("simulator/evaluate/inside.py", "B102"): "runs answers of models, inside its sandbox only",
    ("solver/routing.py", "B610"): "no database: a method of that name",
}
"""Findings that were looked at, and why they may stay."""


@pytest.mark.full
@pytest.mark.skipif(find_spec("bandit") is None, reason="needs bandit")
def test_bandit_is_content() -> None:
    command = [sys.executable, "-m", "bandit", "-q", "-r", "-f", "json", "-s", ",".join(MEANT)]
    ran = subprocess.run(
        [*command, *PACKAGES], cwd=ROOT, capture_output=True, text=True, check=False
    )
    found = json.loads(ran.stdout)["results"]
    told = [
        f"{r['filename']}:{r['line_number']}: {r['test_id']} {r['issue_text']}"
        for r in found
        if (r["filename"], r["test_id"]) not in JUSTIFIED
    ]
    assert told == []
    assert {(r["filename"], r["test_id"]) for r in found} == set(JUSTIFIED), "no longer needed"
