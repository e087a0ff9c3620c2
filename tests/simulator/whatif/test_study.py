"""Two worlds, the same traffic: what theory says must come out."""

from __future__ import annotations

import pytest

from router.config.load import MotleyConfig, load_config
from router.domain.errors import TraceError
from simulator.options import ReplayOptions
from simulator.synthetic import builtin_trace
from simulator.traces.columns import Trace
from simulator.whatif.change import Change
from simulator.whatif.study import Study, what_if

MODEL = "llama-3.1-8b"
OPTIONS = ReplayOptions(model_error=0.2)


@pytest.fixture(scope="module")
def trace() -> Trace:
    return builtin_trace("azure-conv-like", duration_s=60.0, seed=1)


@pytest.fixture(scope="module")
def config() -> MotleyConfig:
    return load_config(
        {
            "backends": [
                {"gpu": "a100-80", "model": MODEL},
                {"gpu": "v100-32", "model": MODEL},
            ],
            "planner": {"usd_per_hour": {"a100-80": 4.0, "v100-32": 1.0}},
        }
    )


def line(study: Study, name: str) -> tuple[float, float, str]:
    found = next(line for line in study.lines if line.name == name)
    assert found.now is not None
    assert found.then is not None
    return found.now, found.then, found.verdict


def test_losing_the_fast_card_is_worse_and_cheaper(trace: Trace, config: MotleyConfig) -> None:
    study = what_if(trace, config, Change(remove=("a100",)), OPTIONS)
    now, then, verdict = line(study, "E2E P99")
    assert then > now
    assert verdict == "worse"
    assert (study.bill_now.usd_per_hour, study.bill_then.usd_per_hour) == (5.0, 1.0)
    assert study.fleet_then == {"v100-32/vllm": 1}
    assert any("only" in note for note in study.notes)


@pytest.mark.parametrize("seeds", [2, 3])
def test_goodput_and_the_price_of_tokens_have_intervals_too(
    trace: Trace, config: MotleyConfig, seeds: int
) -> None:
    study = what_if(trace, config, Change(remove=("a100",)), OPTIONS, seeds=seeds)
    lines = {line.name: line for line in study.lines}
    goodput, cost = lines["goodput"], lines["$ per M tokens out"]
    assert goodput.now == pytest.approx(study.bill_now.goodput_per_s)
    assert goodput.then == pytest.approx(study.bill_then.goodput_per_s)
    assert (goodput.unit, goodput.verdict) == ("per_s", "worse")
    assert cost.then == pytest.approx(study.bill_then.usd_per_million_tokens)
    assert (cost.unit, cost.verdict) == ("usd", "better")  # a fifth of the price
    for line in (goodput, cost):
        assert line.low is not None
        assert line.low <= line.change <= line.high < 0.0


def test_twice_the_fleet_is_no_worse_and_twice_as_dear(trace: Trace, config: MotleyConfig) -> None:
    study = what_if(trace, config, Change(add=("a100", "v100")), OPTIONS)
    assert line(study, "E2E P99")[2] != "worse"
    assert study.bill_then.usd_per_hour == 10.0
    assert study.bill_now.usd_per_million_tokens is not None
    assert study.bill_then.usd_per_million_tokens == pytest.approx(
        2 * study.bill_now.usd_per_million_tokens
    )


def test_the_same_world_is_noise(trace: Trace, config: MotleyConfig) -> None:
    study = what_if(trace, config, Change(policy=config.policy.name), OPTIONS)
    assert {found.verdict for found in study.lines} == {"noise"}
    assert all(found.change == 0.0 for found in study.lines)


def test_more_load_is_the_same_requests_in_less_time(trace: Trace, config: MotleyConfig) -> None:
    study = what_if(trace, config, Change(load=2.0), OPTIONS, seeds=1)
    assert study.bill_then.goodput_per_s > 1.2 * study.bill_now.goodput_per_s
    assert study.bill_then.usd_per_million_tokens == pytest.approx(
        (study.bill_now.usd_per_million_tokens or 0.0) / 2, rel=0.05
    )


def test_progress_runs_from_nothing_to_everything(trace: Trace, config: MotleyConfig) -> None:
    told: list[float] = []
    what_if(
        trace,
        config,
        Change(policy="round-robin"),
        OPTIONS,
        seeds=2,
        progress=lambda share, _: told.append(share),
    )
    assert told == sorted(told)
    assert told[-1] == pytest.approx(1.0)


def test_no_traffic_is_an_answer(config: MotleyConfig) -> None:
    with pytest.raises(TraceError, match="nothing has been recorded yet"):
        what_if(Trace("empty"), config, Change(load=2.0), OPTIONS)
