"""Predicted against actual out of a traffic record: figures by hand, a plot that is one."""

from __future__ import annotations

import json
import random
from pathlib import Path

import pytest

from router.cli.main import run
from router.domain.errors import BadInputError, TraceError
from simulator.report.predictions import plot_predictions, read_predictions, reports


def record(path: Path, *, slower: float = 1.2, requests: int = 400) -> None:
    """Two backends: ``a`` is as predicted but for noise, ``b`` takes longer by a factor."""
    rng = random.Random(1)
    lines = []
    for n in range(requests):
        backend, factor = ("a", 1.0) if n % 2 else ("b", slower)
        ttft = 0.1 * factor * rng.lognormvariate(0.0, 0.1)
        tpot = 0.02 * factor
        row = {
            "arrival_s": float(n),
            "backend": backend,
            "status": "completed",
            "first_token_s": n + ttft,
            "finished_s": n + ttft + 9 * tpot,
            "output_tokens": 10,
            "predicted_ttft_s": 0.1,
            "predicted_tpot_s": 0.02,
            "predicted_output_tokens": 10.0,
        }
        lines.append(json.dumps(row))
    lines += [json.dumps({"arrival_s": 1.0, "status": "rejected:queue_full"}), '{"torn']
    path.write_text("\n".join(lines))


def test_bias_and_errors_are_those_put_in(tmp_path: Path) -> None:
    record(tmp_path / "traffic-1.jsonl")
    found = {(r.figure, r.backend): r for r in reports(read_predictions(tmp_path))}
    assert found["TPOT", "b"].bias == pytest.approx(1.2)
    assert found["TPOT", "b"].p50_error == pytest.approx(0.2)
    assert found["TPOT", "a"].p95_error == pytest.approx(0.0, abs=1e-9)
    assert found["TTFT", "a"].bias == pytest.approx(1.0, abs=0.03)
    assert found["TTFT", "a"].coverage == pytest.approx(0.9, abs=0.08)
    assert found["E2E", "all"].requests == 400


def test_the_command_prints_and_draws(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("matplotlib")
    record(tmp_path / "traffic-1.jsonl")
    plot = tmp_path / "calibration.png"
    assert run(["trace", str(tmp_path), "--predictions", str(plot)]) == 0
    assert plot.read_bytes().startswith(b"\x89PNG")
    said = capsys.readouterr().out
    assert "coverage" in said
    assert "1.20" in said


def test_mistakes_are_named(tmp_path: Path) -> None:
    with pytest.raises(TraceError, match="no such file"):
        read_predictions(tmp_path / "gone")
    (tmp_path / "a.jsonl").write_text('{"arrival_s": 1.0, "status": "completed"}\n')
    with pytest.raises(TraceError, match="no completed request with predictions"):
        read_predictions(tmp_path / "a.jsonl")
    with pytest.raises(BadInputError, match=r"\.png or \.svg"):
        plot_predictions({}, tmp_path / "plot.gif")
