"""Percentiles of two runs, and what their difference is worth."""

import numpy as np
import pytest

from router.domain.errors import WorkloadError
from router.domain.fleet import BackendSpec
from router.domain.slo import DEFAULT_SLOS
from simulator.live.side_by_side import side_by_side
from simulator.results import Records, RunResult, Status
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord

COUNT = 400
TRACE = Trace("even").extend(TraceRecord(float(i), 10, 11) for i in range(COUNT))


def run(ttft_s, tpot_s, failed=()):
    """A run in which request ``i`` had these latencies."""
    records = Records(COUNT)
    for i in range(COUNT):
        if i in failed:
            records.status[i] = Status.FAILED
            continue
        records.status[i], records.output_tokens[i] = Status.COMPLETED, 11
        records.first_token_s[i] = i + ttft_s[i]
        records.finished_s[i] = i + ttft_s[i] + 10 * tpot_s[i]
    backend = BackendSpec("live", "t4", "vllm", "m")
    return RunResult("x", "f", 1.0, 0, TRACE, (backend,), records, dict(DEFAULT_SLOS))


RNG = np.random.default_rng(3)
TTFT, TPOT = RNG.exponential(1.0, COUNT) + 0.1, RNG.exponential(0.1, COUNT) + 0.01


def row(rows, metric, quantile):
    return next(r for r in rows if (r.metric, r.quantile) == (metric, quantile))


def test_a_run_beside_itself_has_no_error():
    live = run(TTFT, TPOT)
    for found in side_by_side([live], live):
        assert found.error_percent == found.low_percent == found.high_percent == 0.0
        assert found.spread_percent is None


def test_percentiles_and_errors_are_what_they_say():
    rows = side_by_side([run(TTFT, TPOT)], run(1.1 * TTFT, 0.8 * TPOT))
    median = row(rows, "TTFT", 50.0)
    assert median.real_s == pytest.approx(np.percentile(TTFT, 50))
    assert median.twin_s == pytest.approx(1.1 * np.percentile(TTFT, 50))
    for found in rows[:3]:
        assert found.error_percent == pytest.approx(10.0)
        assert found.low_percent == pytest.approx(10.0)
    for found in rows[3:6]:
        assert found.error_percent == pytest.approx(-20.0)
    assert [r.metric for r in rows] == ["TTFT"] * 3 + ["TPOT"] * 3 + ["E2E"] * 3


def test_the_interval_of_noise_holds_zero():
    noise = np.exp(0.5 * RNG.standard_normal(COUNT))
    found = row(side_by_side([run(TTFT, TPOT)], run(noise * TTFT, TPOT)), "TTFT", 50.0)
    assert found.low_percent < found.error_percent < found.high_percent
    assert found.low_percent < 0.0 < found.high_percent


def test_replays_that_differ_show_by_how_much():
    rows = side_by_side([run(0.9 * TTFT, TPOT), run(1.1 * TTFT, TPOT)], run(TTFT, TPOT))
    assert row(rows, "TTFT", 50.0).spread_percent == pytest.approx(10.0)
    assert row(rows, "TPOT", 50.0).spread_percent == pytest.approx(0.0, abs=1e-9)


def test_only_what_both_served_counts():
    slow = TTFT.copy()
    slow[7] = 1_000.0
    rows = side_by_side([run(slow, TPOT)], run(TTFT, TPOT, failed={7}))
    assert row(rows, "TTFT", 99.0).error_percent == 0.0


def test_nothing_served_is_an_error():
    with pytest.raises(WorkloadError, match="was everything refused"):
        side_by_side([run(TTFT, TPOT, failed=range(COUNT))], run(TTFT, TPOT))
