"""The learners inside the simulator: engines as real ones schedule, truth apart from belief."""

from __future__ import annotations

import json

import pytest

from router.config.load import load_config
from simulator.belief import draw_error
from simulator.faults import Fault
from simulator.options import ReplayOptions
from simulator.replay import Replay
from simulator.run import build_replay, run_policy
from simulator.synthetic import builtin_trace
from simulator.traces.transform import scale_rate
from telemetry import learning
from telemetry.feedback import Feedback
from telemetry.learner import EXPERIENCED

FLEET = {
    "backends": [
        {"gpu": "a100-80", "count": 2, "engine": "sglang", "model": "llama-3.1-8b"},
        {"gpu": "a100-40", "count": 1, "engine": "vllm", "model": "llama-3.1-8b"},
        {"gpu": "v100-32", "count": 2, "engine": "vllm", "model": "llama-3.1-8b"},
        {
            "gpu": "t4",
            "count": 4,
            "engine": "vllm",
            "tensor_parallel": 2,
            "model": "llama-3.1-8b",
        },
    ]
}
SIGMA = 0.4
"""Beliefs are off by exp(0.4) = 1.5 with probability one third, per backend and phase."""


def learned(
    monkeypatch: pytest.MonkeyPatch, trace_name: str, load: float, seed: int
) -> tuple[Feedback, Replay]:
    """What feedback knows at the end of ten minutes of a busy mixed fleet."""
    made: list[Feedback] = []
    make = learning.make_feedback

    def keep(*args: object, **more: object) -> Feedback:
        made.append(make(*args, **more))  # type: ignore[arg-type]
        return made[-1]

    monkeypatch.setattr(learning, "make_feedback", keep)
    trace = scale_rate(builtin_trace(trace_name, duration_s=600.0 * load, seed=seed), load)
    options = ReplayOptions(seed=seed, model_error=SIGMA)
    # Least request sends to all alike; a log, because it does not look at what is learned.
    replay = build_replay(trace, load_config(FLEET), "least-request", options, log=lambda _: None)
    replay.run()
    return made[0], replay


@pytest.mark.parametrize("seed", [0, 1])
@pytest.mark.parametrize(("trace", "load"), [("azure-conv-like", 2.5), ("azure-code-like", 1.0)])
def test_every_backend_of_a_mixed_fleet_is_put_right(
    monkeypatch: pytest.MonkeyPatch, trace: str, load: float, seed: int
) -> None:
    """Correction times the belief's error is 1; 15%, as the belief is linear and the truth not,
    which alone makes a decode step of the catalogue's engines up to 8% longer."""
    feedback, _ = learned(monkeypatch, trace, load, seed)
    estimates = feedback.estimates()
    judged = [name for name, estimate in estimates.items() if estimate.learned >= 2 * EXPERIENCED]
    assert len(judged) == 9
    for name in judged:
        error = draw_error(name, SIGMA, seed)
        assert estimates[name].prefill * error.prefill == pytest.approx(1.0, rel=0.15), name
        assert estimates[name].decode * error.decode == pytest.approx(1.0, rel=0.15), name
        assert estimates[name].unusable == 0


def p99_e2e_s(feedback: bool) -> float:
    """Motley's policy while one of the two fast A100s takes three times as long for minutes."""
    trace = scale_rate(builtin_trace("azure-conv-like", duration_s=1200.0, seed=1), 2.0)
    options = ReplayOptions(seed=1, model_error=0.2, feedback=feedback)
    throttled = Fault(at_s=120.0, backend="a100-80-0", kind="slow", factor=3.0, for_s=360.0)
    result = run_policy(trace, load_config(FLEET), "motley", options, faults=[throttled])
    records = result.records
    taken = sorted(
        done - came
        for done, came in zip(records.finished_s, trace.arrival_s, strict=True)
        if done > came
    )
    assert len(taken) == len(trace)
    return taken[len(taken) * 99 // 100]


def test_feedback_takes_the_tail_off_a_throttled_card() -> None:
    assert p99_e2e_s(feedback=True) < 0.8 * p99_e2e_s(feedback=False)


def test_a_card_is_put_right_before_its_first_answer_is_over() -> None:
    log: list[bytes] = []
    card = {"gpu": "t4", "engine": "vllm", "tensor_parallel": 2, "model": "llama-3.1-8b"}
    trace = scale_rate(builtin_trace("azure-conv-like", duration_s=30.0, seed=1), 0.1)
    options = ReplayOptions(seed=1, model_error=SIGMA)
    build_replay(trace, load_config({"backends": [card]}), "motley", options, log=log.append).run()
    calls = [json.loads(line)["call"] for line in log]
    assert calls.index("first_token") < calls.index("correct") < calls.index("complete")
