"""Weights planned with, simulated, compared, searched for."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from router.config.load import MotleyConfig, load_config
from router.domain.errors import ConfigError, TraceError, WorkloadError
from simulator.traces.columns import Trace
from simulator.tuning import study as study_module
from simulator.tuning.choose import Goal, best, pareto
from simulator.tuning.slices import hold_back
from simulator.tuning.study import tune
from simulator.tuning.trial import Measured, Trials
from simulator.workload import TraceSpec, build_trace


@pytest.fixture(scope="module")
def config() -> MotleyConfig:
    model = {"model": "llama-3.1-8b"}
    return load_config(
        {
            "backends": [
                {"gpu": "a100-80", "count": 2, **model},
                {"gpu": "t4", "count": 2, "tensor_parallel": 2, **model},
            ]
        }
    )


@pytest.fixture(scope="module")
def trace() -> Trace:
    return build_trace(TraceSpec("azure-conv-like", duration_s=120.0), seed=0)[0]


def one(
    usd: float, e2e: float, kw: float = 1.0, attainment: float = 1.0, waiting: float = 1.0
) -> Measured:
    replicas = {f"{usd} {e2e} {kw}": 1}
    return Measured({}, replicas, usd, kw, 0.1, e2e / 2, e2e, attainment, waiting, e2e / 2)


def test_dear_cards_are_left_out_as_cost_weighs_more(config: MotleyConfig, trace: Trace) -> None:
    trials = Trials(trace, config)
    cheap, fast = trials.measure({"cost": 20.0}), trials.measure({"cost": 0.001})
    assert cheap.usd_per_hour < fast.usd_per_hour
    assert cheap.e2e_p99_s > fast.e2e_p99_s
    assert cheap.power_kw < fast.power_kw
    assert fast.planned_e2e_s == pytest.approx(fast.e2e_mean_s, rel=0.5)
    assert trials.simulated == 2


def test_weights_that_lead_to_the_same_placement_share_its_simulation(
    config: MotleyConfig, trace: Trace
) -> None:
    trials = Trials(trace, config)
    first, again = trials.measure({"cost": 20.0}), trials.measure({"cost": 21.0})
    assert trials.simulated == 1
    assert again == replace(first, weights={"cost": 21.0})


def test_power_lies_between_idle_and_full(config: MotleyConfig, trace: Trace) -> None:
    """One A100-80: 60 W or so idle, 340 W at full load."""
    measured = Trials(trace, config).measure({"cost": 20.0})
    gpu = config.hardware.catalog.gpu("a100-80")
    assert measured.replicas == {"a100-80/vllm/llama-3.1-8b": 1}
    assert gpu.idle_w < 1000 * measured.power_kw < gpu.tdp_w


def test_the_front_holds_what_nobody_beats() -> None:
    cheap, fast, worse, frugal = one(1, 9), one(5, 2), one(5, 3), one(5, 3, kw=0.5)
    assert pareto([fast, worse, cheap, frugal, cheap]) == [cheap, fast, frugal]


def test_a_missed_target_is_worse_than_any_price() -> None:
    kept, missed, nearly = one(100, 9), one(1, 9, attainment=0.9), one(1, 8, attainment=0.98)
    goal = Goal(target=0.99)
    assert best([missed, nearly, kept], goal) is kept
    assert best([missed, nearly], goal) is nearly


def test_waiting_and_electricity_have_their_price() -> None:
    fast, cheap = one(10, 1, waiting=1.0), one(5, 5, waiting=5.0)
    assert best([fast, cheap], Goal()) is cheap
    assert best([fast, cheap], Goal(wait_usd_per_hour=3.0)) is fast
    frugal, hungry = one(10, 1, kw=1), one(9, 1, kw=9)
    assert best([frugal, hungry], Goal(usd_per_kwh=1.0)) is frugal


@pytest.mark.parametrize(
    "wrong",
    [
        {"target": 0.0},
        {"target": 1.5},
        {"usd_per_kwh": -1.0},
        {"wait_usd_per_hour": float("nan")},
    ],
)
def test_senseless_goals_are_named(wrong: dict[str, float]) -> None:
    with pytest.raises(WorkloadError):
        Goal(**wrong)


def test_the_held_back_part_is_the_end_and_nothing_is_lost(trace: Trace) -> None:
    chosen, held = hold_back(trace, 0.25)
    assert len(chosen) + len(held) == len(trace)
    assert chosen.span_s == pytest.approx(0.75 * trace.span_s, rel=0.05)
    assert held.arrival_s[0] >= 0
    for share in (0.0, 1.0):
        with pytest.raises(TraceError, match="share to hold back"):
            hold_back(trace, share)


def test_too_few_requests_judge_nothing(config: MotleyConfig) -> None:
    few = build_trace(TraceSpec("azure-conv-like", duration_s=3.0), seed=0)[0]
    with pytest.raises(TraceError, match="at least 50 are needed"):
        Trials(few, config)


def search(config: MotleyConfig, trace: Trace, path: Path, count: int, said: list[int]) -> float:
    tuned = tune(
        Trials(trace, config),
        Goal(),
        count=count,
        current=config.planner.weights,
        path=path,
        name="q",
        progress=lambda done, _, __: said.append(done),
    )
    assert tuned.trials == max(count, tuned.resumed)
    return Goal().score(tuned.best)


def test_a_search_finds_the_cheap_placement_and_is_resumed(
    config: MotleyConfig, trace: Trace, tmp_path: Path
) -> None:
    said: list[int] = []
    first = search(config, trace, tmp_path / "t.sqlite", 6, said)
    assert said == [1, 2, 3, 4, 5, 6]
    assert first < Goal().score(Trials(trace, config).measure({}))
    again = search(config, trace, tmp_path / "t.sqlite", 8, said)
    assert said == [1, 2, 3, 4, 5, 6, 7, 8]
    assert again <= first
    assert search(config, trace, tmp_path / "t.sqlite", 4, said) == again
    assert len(said) == 8


def test_a_study_that_cannot_be_kept_is_named(
    config: MotleyConfig, trace: Trace, tmp_path: Path
) -> None:
    with pytest.raises(ConfigError, match="cannot keep the study"):
        search(config, trace, tmp_path / "none" / "t.sqlite", 1, [])


def test_without_the_extra_the_remedy_is_told(
    config: MotleyConfig, trace: Trace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import sys

    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(ConfigError, match=r"motley-router\[tune\]"):
        study_module._open(tmp_path / "t.sqlite", "q", 0, 1)
