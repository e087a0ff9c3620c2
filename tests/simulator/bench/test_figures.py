"""Sums worked out by hand, and load shapes by theory."""

from __future__ import annotations

import csv
import json
from pathlib import Path

import numpy as np
import pytest

from router.domain.errors import BadInputError
from simulator.bench.answer import Sample
from simulator.bench.figures import figures
from simulator.bench.output import append_csv, append_json, plot, row
from simulator.bench.plan import Closed, Lengths, Open, jobs, jobs_of_trace
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord


def sample(n: int, **changes: object) -> Sample:
    made = Sample(float(n), float(n), n + 0.5, n + 1.5, [0.1] * 10, 100, 11, True, "", "e0")
    for name, value in changes.items():
        setattr(made, name, value)
    return made


def test_failed_requests_are_in_no_percentile() -> None:
    failed = sample(9, error="HTTP 503: busy", first_s=None, last_s=None)
    found = figures([sample(0), sample(1), failed])
    assert (found.requests, found.completed, found.failed) == (3, 2, 1)
    assert found.ttft_s.maximum == pytest.approx(0.5)
    assert found.tpot_s.mean == pytest.approx(0.1)
    assert found.e2e_s.p99 == pytest.approx(1.5)
    assert found.tokens_per_s.p50 == pytest.approx(10.0)
    assert found.errors == {"HTTP 503": 1}
    assert found.backends == {"e0": 2}


def test_rates_are_over_the_whole_run() -> None:
    found = figures([sample(0), sample(8, last_s=10.0)])
    assert found.seconds == pytest.approx(10.0)
    assert found.output_tokens_per_s == pytest.approx(2.2)
    assert found.total_tokens_per_s == pytest.approx(22.2)
    assert found.requests_per_s == pytest.approx(0.2)


def test_a_late_client_tells_on_itself() -> None:
    assert figures([sample(0, sent_s=0.2), sample(1)]).late == 1


def test_nothing_at_all_is_no_zero() -> None:
    found = figures([])
    assert found.ttft_s.p50 is None
    assert found.requests_per_s == 0.0


def test_poisson_and_regular_arrivals() -> None:
    rng = np.random.default_rng(1)
    lengths = Lengths(100, 10)
    poisson = np.diff([j.at_s for j in jobs(4000, lengths, Open(5.0), rng)])
    assert poisson.mean() == pytest.approx(0.2, rel=0.05)
    assert poisson.std() / poisson.mean() == pytest.approx(1.0, rel=0.08)
    regular = np.diff([j.at_s for j in jobs(50, lengths, Open(5.0, cv=0.0), rng)])
    assert regular == pytest.approx(np.full(49, 0.2))


def test_lengths_spread_evenly() -> None:
    rng = np.random.default_rng(2)
    drawn = [j.input_tokens for j in jobs(3000, Lengths(1000, 10, 0.2), Closed(1), rng)]
    assert min(drawn) >= 800
    assert max(drawn) <= 1200
    assert np.mean(drawn) == pytest.approx(1000, rel=0.01)


def test_a_trace_begins_with_its_first_arrival() -> None:
    trace = Trace("t")
    for at_s in (5.0, 7.5):
        trace.append(TraceRecord(at_s, 30, 4))
    assert [(j.at_s, j.input_tokens, j.output_tokens) for j in jobs_of_trace(trace, None)] == [
        (0.0, 30, 4),
        (2.5, 30, 4),
    ]
    assert len(jobs_of_trace(trace, 1)) == 1


@pytest.mark.parametrize(
    ("make", "named"),
    [
        (lambda: Closed(0), "--concurrency"),
        (lambda: Open(0.0), "--rate"),
        (lambda: Open(1.0, -1.0), "--burstiness"),
        (lambda: Lengths(0, 1), "--input-tokens"),
        (lambda: Lengths(1, 0), "--output-tokens"),
        (lambda: Lengths(1, 1, 1.0), "--spread"),
        (lambda: jobs(0, Lengths(1, 1), Closed(1), np.random.default_rng(0)), "--requests"),
    ],
)
def test_nonsense_is_named(make: object, named: str) -> None:
    with pytest.raises(BadInputError, match=named):
        make()  # type: ignore[operator]


def test_runs_are_appended_to_compare_them(tmp_path: Path) -> None:
    path = tmp_path / "runs.csv"
    for label in ("before", "after"):
        append_csv(path, row(label, {"model": "m"}, figures([sample(0)])))
    with path.open() as file:
        rows = list(csv.DictReader(file))
    assert [r["label"] for r in rows] == ["before", "after"]
    assert float(rows[0]["ttft_s_p99"]) == pytest.approx(0.5)
    with pytest.raises(BadInputError, match="other columns"):
        append_csv(path, {"label": "x"})
    lines = tmp_path / "runs.jsonl"
    for label in ("before", "after"):
        append_json(lines, {"label": label})
    assert [json.loads(line)["label"] for line in lines.read_text().splitlines()] == [
        "before",
        "after",
    ]
    with pytest.raises(BadInputError, match="cannot write"):
        append_json(tmp_path / "no" / "folder", {})


def test_the_plot_is_a_picture_even_of_failures(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    for name, samples in (("a.png", [sample(0), sample(1, error="cut")]), ("b.png", [])):
        plot(tmp_path / name, samples, "a run")
        assert (tmp_path / name).read_bytes().startswith(b"\x89PNG")
    with pytest.raises(BadInputError, match="cannot write the plot"):
        plot(tmp_path / "a.nonsense", [], "a run")
