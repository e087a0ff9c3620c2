"""The experiment with moved answers: what it forecasts, and that it plays fair."""

from __future__ import annotations

import math

import pytest

from benchmarks.policies import slow_tail
from benchmarks.policies.relocation import EXTRA, Mover, left_of
from benchmarks.policies.scenarios import Scenario, config_of, trace_of
from router.domain.request import LengthForecast
from simulator.options import ReplayOptions
from simulator.results import Status
from simulator.run import build_replay

MEAN, SIGMA = 200.0, 0.8
FORECAST = LengthForecast(
    MEAN,
    MEAN * math.exp(1.2816 * SIGMA - SIGMA**2 / 2),
    MEAN**2 * math.exp(SIGMA**2),
)
SCENARIO = Scenario("azure-conv", "t4-heavy", 0.9, 400)
"""So full that whoever moves leaves others and meets others."""


@pytest.fixture(scope="module")
def run():
    trace, _ = trace_of(SCENARIO, config_of(SCENARIO.fleet, "least-request"), 0)
    config = config_of(SCENARIO.fleet, "motley")
    replay = build_replay(trace, config, "motley", ReplayOptions(model_error=0.25))
    mover = Mover(replay, trace, true=False)
    replay.run()
    mover.finish()
    return replay, mover, trace


@pytest.fixture(scope="module")
def told():
    return slow_tail.Told(SCENARIO, 0)


def test_what_remains_never_goes_beyond_the_limit():
    assert left_of(FORECAST, 900, None).mean > 100.0
    assert left_of(FORECAST, 990, 1_000).mean == 10.0


class TestMoving:
    def test_happens_and_loses_nobody(self, run):
        replay, mover, _ = run
        assert mover.carried
        assert set(replay.records.status) == {Status.COMPLETED}

    def test_loses_and_doubles_no_token(self, run):
        replay, mover, trace = run
        given = [n + mover.carried.get(i, 0) for i, n in enumerate(replay.records.output_tokens)]
        assert given == list(trace.output_tokens)

    def test_is_within_its_budget(self, run):
        _, mover, trace = run
        again = sum(trace.input_tokens[i] + tokens for i, tokens in mover.carried.items())
        assert again <= EXTRA * sum(trace.input_tokens)

    def test_leaves_the_books_at_zero(self, run):
        replay, _, trace = run
        (router,) = replay.dispatchers
        assert (router.arrived, router.completed) == (len(trace), len(trace))
        assert router.in_flight == router.queued == 0
        for backend in router.state.backends:
            assert (backend.in_flight, backend.decoding, backend.prefilling) == (0, 0, 0)
            assert backend.context_tokens == backend.pending_output_tokens == 0.0

    def test_leaves_the_first_token_where_it_was(self, run):
        replay, mover, _ = run
        records = replay.records
        for i in mover.carried:
            assert records.first_token_s[i] < records.dispatched_s[i] < records.finished_s[i]


class TestHindsight:
    def test_looks_at_the_slowest(self, told):
        e2e = told.latencies.e2e_s
        assert sorted(e2e[told.slowest()]) == sorted(e2e)[-4:]

    def test_is_never_worse_than_what_was(self, told):
        for i in told.slowest():
            moved = [told.moved(i, life).e2e_s for life in (0.25, 0.5, 1.0)]
            assert max(moved) <= told.latencies.e2e_s[i]
            assert told.moved(i, 1.0).e2e_s == told.latencies.e2e_s[i]

    def test_costs_the_others_something_only_if_it_moves(self, told):
        for i in told.slowest():
            moved = told.moved(i, 0.5)
            assert moved.harm_s != 0.0 or moved.e2e_s == told.latencies.e2e_s[i]
