"""Every plan is kept: what for, what came out, and what came of it."""

from __future__ import annotations

import asyncio
import sqlite3
from pathlib import Path

import pytest

from router.domain.errors import ConfigError
from router.gateway import plan_history
from router.gateway.plan_history import PlanHistory, PlanRow, read_history
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import stream


def _row(n: int, kind: str = "prices") -> PlanRow:
    return PlanRow(
        float(n), kind, "period", "ok", "", 0.01, 2.0, None, {"fleet": {"t4": n}}, {"prices": []}
    )


def test_what_came_of_a_plan_is_written_into_its_row(tmp_path: Path) -> None:
    path = tmp_path / "plans.sqlite"
    history = PlanHistory(path, lambda: 0.0)
    history.keep(_row(1))
    history.keep(_row(2, "placement"))
    history.keep(_row(3), actual_e2e_s=2.5)
    history.close()
    first, placement, last = read_history(path)
    assert (first.expected_e2e_s, first.actual_e2e_s) == (2.0, 2.5)
    assert placement.actual_e2e_s is None
    assert last.actual_e2e_s is None
    assert last.inputs == {"fleet": {"t4": 3}}


def test_a_history_goes_on_where_it_was_left(tmp_path: Path) -> None:
    path = tmp_path / "plans.sqlite"
    for n in range(3):
        history = PlanHistory(path, lambda: 0.0)
        history.keep(_row(n))
        history.close()
    assert [row.at_unix_s for row in read_history(path, newest=2)] == [1.0, 2.0]


def test_the_oldest_rows_go_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(plan_history, "MOST_ROWS", 5)
    monkeypatch.setattr(plan_history, "_PRUNE_EVERY", 10)
    history = PlanHistory(tmp_path / "plans.sqlite", lambda: 0.0)
    for n in range(20):
        history.keep(_row(n))
    history.close()
    kept = [row.at_unix_s for row in read_history(tmp_path / "plans.sqlite", newest=100)]
    assert kept == [15.0, 16.0, 17.0, 18.0, 19.0]


def test_a_disk_that_fails_costs_history_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    history = PlanHistory(tmp_path / "plans.sqlite", lambda: 0.0)
    with sqlite3.connect(tmp_path / "plans.sqlite") as other:
        other.execute("DROP TABLE plans")
    history.keep(_row(1))
    history.close()
    assert "a plan was not kept" in caplog.text


def test_a_place_that_cannot_be_written_is_refused_at_start(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match=r"planner\.history"):
        PlanHistory(tmp_path / "nowhere" / "plans.sqlite", lambda: 0.0)
    (tmp_path / "text").write_text("not a database at all, but long enough to look at" * 50)
    with pytest.raises(ConfigError, match=r"planner\.history"):
        PlanHistory(tmp_path / "text", lambda: 0.0)


def test_a_file_that_is_no_history_is_named(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="no history of plans at"):
        read_history(tmp_path / "none")
    (tmp_path / "text").write_text("not a database at all, but long enough to look at" * 50)
    with pytest.raises(ConfigError, match="is not a history of plans"):
        read_history(tmp_path / "text")


async def test_a_gateway_keeps_its_plans(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    path = tmp_path / "plans.sqlite"
    gate = await gateway(
        await engine(stream(["a", "b"], usage={"usage": {"prompt_tokens": 9}})),
        planner={"enabled": True, "interval_s": 0.05, "history": str(path)},
    )
    rows: list[PlanRow] = []
    for _ in range(400):
        assert (await gate.post()).status_code == 200
        rows = [row for row in read_history(path, newest=500) if row.actual_e2e_s is not None]
        if rows:
            break
        await asyncio.sleep(0.05)
    row = rows[0]
    assert (row.kind, row.outcome, row.reason) == ("prices", "ok", "period")
    assert row.expected_e2e_s is not None
    assert row.inputs["fleet"] == {"a100-80/vllm/llama-3.1-8b": 1}
    assert row.inputs["classes"][0]["rate_per_s"] > 0
    assert row.result["shares"][0]["share"] == pytest.approx(1.0)
