"""Restarts in the simulator: what one replay learned, the next one begins with."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.config.build import rebuild_dispatcher
from router.domain.errors import TraceError
from router.domain.request import Request
from router.log_replay import replay as replay_log
from router.perf.length import BucketLengthPredictor
from simulator.lessons import lengths_of
from simulator.options import ReplayOptions
from simulator.run import build_replay, run_policy
from simulator.synthetic import builtin_trace
from simulator.traces.transform import scale_rate
from telemetry.learned import Learned, decode, encode
from tests.simulator.builders import MODEL, fleet_config, make_trace

OPTIONS = ReplayOptions(model_error=0.3)
FLEET = fleet_config()


@pytest.fixture(scope="module")
def learned() -> Learned:
    trace = builtin_trace("azure-conv-like", duration_s=60.0, seed=1)
    # Twice as fast, so that the slowest card is needed too.
    replay = build_replay(scale_rate(trace, 2.0), FLEET, "motley", OPTIONS)
    replay.run()
    return replay.learned()


def test_a_simulation_learns_all_that_is_kept(learned: Learned) -> None:
    assert learned.lengths
    assert {speed.name for speed in learned.speeds} == {b.name for b in FLEET.fleet.backends}
    assert learned.policies["motley"]["counted_e2e_s"] > 0.0
    assert decode(encode(learned)) == (learned, [])


def test_the_next_one_begins_with_it_and_its_log_replays(learned: Learned) -> None:
    later, lines = builtin_trace("azure-conv-like", duration_s=20.0, seed=2), list[bytes]()
    cold = build_replay(later, FLEET, "motley", OPTIONS)
    warm = build_replay(later, FLEET, "motley", OPTIONS, log=lines.append, learned=learned)
    for backend, fresh in zip(
        warm.dispatchers[0].state.backends, cold.dispatchers[0].state.backends, strict=True
    ):
        assert backend.prior == fresh.prior
        assert backend.cost != fresh.cost
    warm.run()
    assert replay_log(lines, rebuild_dispatcher) == len(lines) - 1


def test_speeds_of_real_cards_and_of_other_beliefs_are_not_these(learned: Learned) -> None:
    trace = builtin_trace("azure-conv-like", duration_s=20.0, seed=2)
    real = replace(learned, origin="gateway")
    for told, options in ((real, OPTIONS), (learned, replace(OPTIONS, seed=5))):
        replay = build_replay(trace, FLEET, "motley", options, learned=told)
        claimed = [speed.name for speed in replay.learned().speeds if speed.age_s == 0.0]
        assert not claimed


def test_the_same_seed_and_file_give_the_same_bytes(learned: Learned) -> None:
    trace = builtin_trace("azure-conv-like", duration_s=20.0, seed=2)
    one, two = (run_policy(trace, FLEET, "motley", OPTIONS, learned=learned) for _ in range(2))
    assert one.records.finished_s.tobytes() == two.records.finished_s.tobytes()


def test_a_trace_teaches_lengths_and_no_speeds() -> None:
    trace = make_trace((float(n), 1000, 40) for n in range(200))
    told = lengths_of(trace, MODEL, 1.0)
    assert (told.origin, told.speeds, told.policies) == ("trace", [], {})
    predictor = BucketLengthPredictor()
    predictor.restore(told.lengths)
    forecast = predictor.forecast(Request("r", MODEL, 0.0, 1000))
    assert forecast.mean_tokens == pytest.approx(40.0, rel=0.1)


def test_a_trace_that_names_no_model_says_so() -> None:
    with pytest.raises(TraceError, match="--model NAME"):
        lengths_of(make_trace([(0.0, 10, 10)]), "", 1.0)
