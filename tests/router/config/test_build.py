"""From settings to a dispatcher that decides."""

from __future__ import annotations

import json
from typing import Any

import pytest

from router.config.build import build_dispatcher, rebuild_dispatcher
from router.config.load import MotleyConfig, load_config
from router.decision_log import LoggingDispatcher
from router.dispatcher import Dispatcher
from router.domain.decision import Reject, Wait
from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec
from router.domain.request import LengthForecast
from router.domain.state import LinearCost
from router.perf.build import iteration_model, kv_capacity_tokens
from router.perf.length import BucketLengthPredictor, ConstantLengthPredictor
from tests.fakes import FAST, SLOW, Recorder, ask, assigned

FLEET = [
    {"gpu": "a100-80", "model": "llama-3.1-8b"},
    {"gpu": "t4", "model": "llama-3.1-8b", "tensor_parallel": 2},
]


def config(**sections: Any) -> MotleyConfig:
    return load_config({"backends": FLEET, **sections})


def test_backends_can_do_what_the_catalogue_says():
    dispatcher = build_dispatcher(config())
    for backend in dispatcher.state.backends:
        assert backend.cost == iteration_model(backend.spec).linear()
        assert backend.kv_capacity_tokens == kv_capacity_tokens(backend.spec)
        assert 0 < backend.max_context_tokens <= backend.kv_capacity_tokens
    a100, t4 = dispatcher.state.backends
    assert a100.cost.prefill_s < t4.cost.prefill_s
    assert a100.kv_capacity_tokens > t4.kv_capacity_tokens


def test_engines_that_keep_no_prompts_are_known():
    fleet = [
        {"gpu": "v100-32", "model": "llama-3.1-8b"},
        {"gpu": "a100-80", "model": "llama-3.1-8b"},
        {
            "gpu": "a100-40",
            "model": "llama-3.1-8b",
            "engine_args": {"enable_prefix_caching": False},
        },
    ]
    backends = build_dispatcher(load_config({"backends": fleet})).state.backends
    assert [backend.prefix_caching for backend in backends] == [False, True, False]


def test_or_what_the_caller_believes():
    def belief(spec: BackendSpec) -> LinearCost:
        return SLOW if spec.gpu == "t4" else FAST

    dispatcher = build_dispatcher(config(), belief=belief)
    assert [backend.cost for backend in dispatcher.state.backends] == [FAST, SLOW]


def test_a_name_used_again_gets_the_belief_of_its_new_backend():
    def belief(spec: BackendSpec) -> LinearCost:
        return SLOW if spec.gpu == "t4" else FAST

    dispatcher = build_dispatcher(config(), belief=belief)
    t4 = dispatcher.state.get("t4-0").spec
    dispatcher.remove_backend("a100-80-0", 0.0)
    renamed = BackendSpec(
        "a100-80-0", t4.gpu, t4.engine, t4.model, tensor_parallel=t4.tensor_parallel
    )
    dispatcher.add_backend(renamed, 0.0)
    assert dispatcher.state.get("a100-80-0").cost == SLOW


def test_queue_and_breaker_are_those_of_the_file():
    reliability = {"queue_size": 1, "queue_timeout_s": 7.0, "breaker": {"failure_threshold": 1}}
    dispatcher = build_dispatcher(config(reliability=reliability, policy={"name": "round-robin"}))
    for name in ("r", "s"):
        dispatcher.dispatch(ask(name), 0.0)
        dispatcher.fail(name, 0.0)
    assert isinstance(dispatcher.dispatch(ask("t"), 1.0), Wait)
    full = dispatcher.dispatch(ask("u"), 1.0)
    assert isinstance(full, Reject)
    assert full.retry_after_s == 2  # a quarter of 7 s, rounded up


def test_the_seed_makes_the_choices():
    def choices(seed: int) -> list[str]:
        dispatcher = build_dispatcher(config(policy={"name": "random", "seed": seed}))
        return [assigned(dispatcher.dispatch(ask(f"r{n}"), 0.0)) for n in range(20)]

    assert choices(1) == choices(1) != choices(2)


def test_policies_see_the_targets_of_the_file():
    def chosen(ttft_s: float) -> str:
        policy = {"name": "goodserve-just-enough"}
        slos = {"interactive": {"ttft_s": ttft_s}}
        return assigned(build_dispatcher(config(policy=policy, slos=slos)).dispatch(ask(), 0.0))

    assert chosen(ttft_s=60.0) == "t4-0", "the weakest that keeps them"
    assert chosen(ttft_s=0.3) == "a100-80-0"


def test_predictor_and_observers_are_the_callers():
    recorder, request = Recorder(), ask("r")
    dispatcher = build_dispatcher(
        config(), predictor=ConstantLengthPredictor(LengthForecast(7.0, 9.0)), observers=[recorder]
    )
    dispatcher.dispatch(request, 0.0)
    dispatcher.complete("r", 1.0, output_tokens=3)
    assert request.forecast.mean_tokens == 7.0
    assert [outcome.request_id for outcome in recorder.outcomes] == ["r"]


def test_a_predictor_that_has_not_learned_anything_yet_is_the_callers_too():
    request = ask("r")
    untaught = BucketLengthPredictor(prior=LengthForecast(7.0, 9.0, 60.0))
    dispatcher = build_dispatcher(config(), predictor=untaught)
    dispatcher.dispatch(request, 0.0)
    assert request.forecast.mean_tokens == 7.0
    assert len(untaught) == 1


def test_a_parameter_that_the_policy_does_not_take_is_an_error():
    with pytest.raises(ConfigError, match="has no parameter 'alpha'"):
        build_dispatcher(config(policy={"name": "random", "params": {"alpha": 1.0}}))


def test_a_log_is_kept_only_if_asked_for():
    assert type(build_dispatcher(config())) is Dispatcher
    lines: list[bytes] = []
    dispatcher = build_dispatcher(config(), log=lines.append)
    assert isinstance(dispatcher, LoggingDispatcher)
    header = json.loads(lines[0])
    assert header["call"] == "open"
    assert set(header["capabilities"]) == {"a100-80-0", "t4-0"}


def test_a_log_rebuilds_its_dispatcher_without_a_catalogue():
    own = {"parameters": 8_000_000_000, "layers": 32, "hidden_size": 4096, "kv_heads": 8}
    mine = load_config({"backends": [{"gpu": "a100-80", "model": "mine"}], "models": {"mine": own}})
    lines: list[bytes] = []
    recorded = build_dispatcher(mine, log=lines.append)
    rebuilt = rebuild_dispatcher(json.loads(lines[0]), lines.append)
    assert lines[1] == lines[0]
    (before,), (after,) = recorded.state.backends, rebuilt.state.backends
    assert (after.spec, after.cost) == (before.spec, before.cost)
    assert after.max_context_tokens == before.max_context_tokens
