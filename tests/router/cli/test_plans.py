"""``motley plans``: what the gateway's planner did."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from router.cli.main import run
from router.gateway.plan_history import PlanHistory, PlanRow


@pytest.fixture
def history(tmp_path: Path) -> str:
    path = tmp_path / "plans.sqlite"
    kept = PlanHistory(path, lambda: 0.0)
    inputs = {"classes": [{"class": "m/bulk", "rate_per_s": 2.5}]}
    kept.keep(PlanRow(0.0, "prices", "period", "ok", "", 0.012, 3.25, None, inputs))
    kept.keep(PlanRow(30.0, "prices", "drift", "failed", "no demand"), actual_e2e_s=3.5)
    kept.close()
    return str(path)


def test_expected_beside_actual(history: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plans", history]) == 0
    said = capsys.readouterr().out
    for word in ("01 00:00:30", "2.50", "3.25", "3.50", "drift", "no demand"):
        assert word in said


def test_as_json(history: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plans", history, "--json", "-", "--newest", "1"]) == 0
    (row,) = json.loads(capsys.readouterr().out)["plans"]
    assert (row["reason"], row["outcome"]) == ("drift", "failed")


def test_a_file_that_is_not_there(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["plans", str(tmp_path / "none")]) == 2
    assert "no history of plans" in capsys.readouterr().err
