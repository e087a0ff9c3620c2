"""Requests that two simulated engines share: the times are those of the parts, nothing is lost."""

from __future__ import annotations

import random
from typing import Any

import numpy as np
import pytest

from router.config.schema import DisaggregationSection
from router.domain.fleet import BackendSpec
from router.perf.hardware import Hardware
from simulator.faults import Fault
from simulator.options import ReplayOptions
from simulator.pairs import Links
from simulator.results import RunResult, Status, latencies
from simulator.run import build_replay, run_policy
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord
from tests.simulator.builders import fleet_config

HALVES = (
    {"gpu": "l40s", "name": "first", "role": "prefill"},
    {"gpu": "a100-80", "name": "then", "role": "decode"},
)
FOUR = (
    {"gpu": "l40s", "count": 2, "name": "first", "role": "prefill"},
    {"gpu": "a100-80", "count": 2, "name": "then", "role": "decode"},
)
SPLIT = {"enabled": True, "link_gb_per_s": 10.0, "latency_s": 0.01}


def steady(rate_per_s: float, seconds: float = 40.0) -> Trace:
    draw, rows, now = random.Random(5), [], 0.0
    while now < seconds:
        now += draw.expovariate(rate_per_s)
        rows.append(TraceRecord(now, int(draw.lognormvariate(7.0, 0.6)) + 1, 60))
    return Trace("steady").extend(rows)


def run(
    trace: Trace, fleet: Any = FOUR, faults: tuple[Fault, ...] = (), **options: Any
) -> RunResult:
    config = fleet_config(fleet, disaggregation=SPLIT)
    return run_policy(trace, config, "motley", ReplayOptions(seed=1, **options), faults=faults)


def lone(prompt: int, output: int) -> Trace:
    return Trace("one").extend([TraceRecord(0.0, prompt, output)])


@pytest.mark.parametrize("engine", ["fast", "exact"])
def test_the_time_to_the_first_token_is_that_of_the_prompt_the_link_and_one_step(engine: Any):
    shared = run(lone(2_000, 30), HALVES, engine=engine)
    prompt = run_policy(lone(2_000, 1), fleet_config(({"gpu": "l40s"},)), "motley")
    moves_s = 0.01 + 2_000 * 131_072 / 10e9
    hardware = Hardware()
    truth = hardware.iteration_model(BackendSpec("then", "a100-80", "vllm", "llama-3.1-8b"))
    step_s = truth.iteration_s(1, 0, 0.0, 2_000.0)
    expected_s = latencies(prompt).ttft_s[0] + moves_s + step_s
    assert latencies(shared).ttft_s[0] == pytest.approx(expected_s, rel=1e-3)
    assert shared.records.output_tokens[0] == 30
    assert "1 request(s) shared" in "".join(shared.notes)


MODEL = "llama-3.1-8b"


def test_transfers_queue_at_either_end():
    links = Links(DisaggregationSection(link_gb_per_s=10.0, latency_s=0.0), Hardware())
    a, b, c = (BackendSpec(name, "a100-80", "vllm", MODEL) for name in "abc")
    takes_s = 1_000 * 131_072 / 10e9
    assert links.arrives_s(a, b, 1_000, 1.0) == pytest.approx(1.0 + takes_s)
    assert links.arrives_s(a, c, 1_000, 1.0) == pytest.approx(1.0 + 2 * takes_s), "a still sends"
    assert links.arrives_s(c, b, 1_000, 1.0) == pytest.approx(1.0 + 2 * takes_s), "b receives"
    assert links.arrives_s(b, a, 1_000, 1.0) == pytest.approx(1.0 + takes_s), "both ways at once"


def test_both_engines_of_the_simulator_agree():
    fast, exact = run(steady(6.0)), run(steady(6.0), engine="exact")
    assert np.allclose(fast.records.finished_s, exact.records.finished_s, atol=1e-6)


def test_everything_is_answered_and_every_count_returns_to_zero():
    config = fleet_config(FOUR, disaggregation=SPLIT)
    replay = build_replay(steady(8.0), config, "motley", ReplayOptions(seed=1))
    replay.run()
    assert set(replay.records.status) == {Status.COMPLETED}
    (router,) = replay.dispatchers
    for backend in router.state.backends:
        assert (backend.in_flight, backend.prefilling, backend.decoding) == (0, 0, 0)
        assert backend.context_tokens == backend.pending_prefill_tokens == 0
    assert not replay.pairs


def test_the_same_run_gives_the_same_bytes():
    first, again = run(steady(8.0)), run(steady(8.0))
    assert first.records.finished_s.tobytes() == again.records.finished_s.tobytes()


@pytest.mark.parametrize("victim", ["first-0", "then-0"])
@pytest.mark.parametrize("kind", ["kill", "hang", "error"])
def test_if_either_side_falls_ill_nothing_before_its_first_byte_is_lost(victim: str, kind: Any):
    result = run(steady(6.0), faults=(Fault(10.0, victim, kind, for_s=10.0),))
    records = result.records
    ended = {Status.COMPLETED, Status.FAILED}
    assert set(records.status) <= ended
    for status, first_s in zip(records.status, records.first_token_s, strict=True):
        assert status == Status.COMPLETED or first_s < 21.0, "failed without a token"
    assert records.status.count(Status.COMPLETED) > 0.9 * len(records)
    assert result.reasons.keys() <= {"engine_died", "idle_timeout"}


def test_a_client_that_leaves_is_taken_out_of_both():
    config = fleet_config(FOUR, disaggregation=SPLIT)
    options = ReplayOptions(seed=1, client_timeout_s=0.4)
    replay = build_replay(steady(8.0), config, "motley", options)
    replay.run()
    assert Status.CANCELLED in set(replay.records.status)
    assert not replay.pairs
