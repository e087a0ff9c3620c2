"""Prefill here, decode there: when it is chosen, by what figures, and that the books balance."""

from __future__ import annotations

import math
from typing import Any

import pytest

from router.config.build import build_dispatcher
from router.config.load import load_config
from router.dispatcher import Dispatcher
from router.domain.decision import Assign, Reject, Wait
from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec
from router.domain.state import LinearCost
from router.explain import as_json, compact
from router.health.breaker import BreakerConfig
from router.pairing import Pairing, PairRules
from router.perf.estimate import tpot_s, ttft_s
from tests.fakes import (
    FAST,
    MODEL,
    SLOW,
    LimitPolicy,
    Recorder,
    ask,
    balance,
    capability,
    make_dispatcher,
    spec,
)

COMPUTES = LinearCost(step_s=0.100, prefill_s=0.00002, seq_s=0.0002, context_s=1e-6)
"""50,000 prompt tokens a second, but 100 ms a token: all compute, no bandwidth."""
REMEMBERS = LinearCost(step_s=0.005, prefill_s=0.002, seq_s=0.0002, context_s=1e-6)
"""500 prompt tokens a second, but 5 ms a token: all bandwidth, no compute."""
BYTES = 131_072
"""KV of one token of an 8B model."""
CAPABILITIES = {
    "computes": capability(COMPUTES, kv_bytes_per_token=BYTES),
    "remembers": capability(REMEMBERS, kv_bytes_per_token=BYTES),
    "slow": capability(SLOW, kv_bytes_per_token=BYTES),
    "plain": capability(FAST, kv_bytes_per_token=BYTES),
    "plain-2": capability(FAST, kv_bytes_per_token=BYTES),
}


def pairs(*backends: BackendSpec | str, rules: PairRules | None = None, **more: Any) -> Dispatcher:
    dispatcher = make_dispatcher(*backends, capabilities=CAPABILITIES, **more)
    dispatcher.pairing = Pairing(rules or PairRules(link_gb_per_s=10.0, latency_s=0.01))
    return dispatcher


def loads(dispatcher: Dispatcher) -> dict[str, tuple[int, int, int]]:
    return {b.spec.name: (b.in_flight, b.prefilling, b.decoding) for b in dispatcher.state.backends}


def sent(dispatcher: Dispatcher, request_id: str = "r", **fields: Any) -> Assign:
    decision = dispatcher.dispatch(ask(request_id, **fields), 0.0)
    assert isinstance(decision, Assign)
    return decision


class TestTheChoice:
    """Compute-rich for the prompt, bandwidth-rich for the answer."""

    def test_each_half_goes_where_it_is_cheap(self):
        decision = sent(pairs("computes", "remembers"))
        assert decision.backend.name == "remembers"
        assert decision.prefill is not None
        assert decision.prefill.name == "computes"

    def test_its_figures_are_those_of_the_two_sides_and_the_link(self):
        dispatcher = pairs("computes", "remembers", observers=[recorder := Recorder()])
        sent(dispatcher)
        computes, remembers = dispatcher.state.get("computes"), dispatcher.state.get("remembers")
        moves_s = 0.01 + 1_000 * BYTES / 10e9
        assert moves_s == pytest.approx(0.0231, abs=1e-4)
        dispatcher.complete("r", 1.0, output_tokens=5)
        told = recorder.outcomes[0]
        tau_s = tpot_s(remembers, 1_000, 100.0)
        assert told.predicted_tpot_s == pytest.approx(tau_s)
        assert told.predicted_ttft_s == pytest.approx(
            ttft_s(computes, 1_000, 0.0) + moves_s + tau_s
        )

    def test_not_where_the_link_eats_the_gain(self):
        slow = PairRules(link_gb_per_s=0.01, latency_s=0.0)  # 13 s for the prompt
        assert sent(pairs("computes", "remembers", rules=slow)).prefill is None

    def test_not_between_zones_without_a_link(self):
        far = spec("remembers", zone="far")
        apart = pairs("computes", far)
        assert sent(apart).prefill is None
        rules = PairRules(link_gb_per_s=10.0, cross_zone_gb_per_s=5.0, latency_s=0.0)
        assert sent(pairs("computes", far, rules=rules)).prefill is not None

    def test_not_for_a_short_prompt_nor_where_two_are_alike(self):
        assert sent(pairs("computes", "remembers"), prompt_tokens=200).prefill is None
        assert sent(pairs("plain", "plain-2")).prefill is None

    def test_not_where_the_request_must_stay_whole(self):
        assert sent(pairs("computes", "remembers"), whole=True).prefill is None

    @pytest.mark.parametrize(
        "other", [{"engine_version": "0.18.1"}, {"quantization": "fp8"}, {"engine": "sglang"}]
    )
    def test_not_between_engines_that_cannot_read_each_other(self, other: dict[str, Any]):
        assert sent(pairs("computes", spec("remembers", **other))).prefill is None

    def test_off_unless_asked_for(self):
        dispatcher = make_dispatcher("computes", "remembers", capabilities=CAPABILITIES)
        assert sent(dispatcher).prefill is None


def halves(**more: Any) -> Dispatcher:
    return pairs(spec("computes", role="prefill"), spec("remembers", role="decode"), **more)


class TestDedicatedSides:
    """Backends that serve one half only."""

    def test_nobody_serves_a_request_whole(self):
        decision = sent(halves(), prompt_tokens=10)
        assert decision.prefill is not None, "however short: there is no other way"

    def test_it_waits_while_the_prefill_side_is_busy(self):
        dispatcher = halves()
        sent(dispatcher, "a", prompt_tokens=8_000)  # 0.16 s, and 0.1 s for each of five chunks
        assert isinstance(dispatcher.dispatch(ask("c"), 0.0), Wait)
        assert balance(dispatcher) == 0
        dispatcher.prefilled("a", 0.4)
        [(request, decision)] = dispatcher.poll(0.4)
        assert request.request_id == "c"
        assert isinstance(decision, Assign)

    def test_a_whole_request_waits_and_is_given_up_for(self):
        dispatcher = halves(queue_timeout_s=5.0)
        assert isinstance(dispatcher.dispatch(ask("r", whole=True), 0.0), Wait)
        [(_, decision)] = dispatcher.poll(5.0)
        assert isinstance(decision, Reject)
        assert balance(dispatcher) == 0

    def test_a_policy_is_never_offered_half_a_backend(self):
        policy = LimitPolicy()
        dispatcher = pairs("plain", spec("computes", role="prefill"), policy=policy)
        assert sent(dispatcher).backend.name == "plain"
        assert [b.spec.name for b in dispatcher.state.candidates(MODEL, 0.0)] == ["plain"]

    def test_nobody_sglang_started_for_both_takes_a_half(self):
        dispatcher = pairs(spec("computes", engine="sglang"), spec("remembers", engine="sglang"))
        assert sent(dispatcher).prefill is None


class TestTheBooks:
    """Counters of both sides are exact, whatever happens."""

    def test_the_prompt_counts_on_one_side_and_the_answer_on_the_other(self):
        dispatcher = halves()
        sent(dispatcher)
        assert loads(dispatcher) == {"computes": (1, 1, 0), "remembers": (1, 0, 1)}
        assert dispatcher.state.get("computes").pending_prefill_tokens == 1_000
        assert dispatcher.state.get("remembers").pending_prefill_tokens == 0
        assert dispatcher.state.get("remembers").context_tokens > 1_000
        dispatcher.prefilled("r", 0.1)
        dispatcher.prefilled("r", 0.2)
        assert loads(dispatcher) == {"computes": (0, 0, 0), "remembers": (1, 0, 1)}
        dispatcher.first_token("r", 0.3)
        outcome = dispatcher.complete("r", 0.9, output_tokens=50, cached_tokens=999)
        assert loads(dispatcher) == {"computes": (0, 0, 0), "remembers": (0, 0, 0)}
        assert outcome.prefill is not None
        assert (outcome.backend, outcome.prefill.backend) == ("remembers", "computes")
        assert outcome.prefill.finished_s == 0.1
        assert outcome.cached_tokens is None, "it was sent there, not cached there"
        assert balance(dispatcher) == 0

    def test_a_first_token_says_that_the_prompt_is_computed(self):
        dispatcher = halves()
        sent(dispatcher)
        dispatcher.first_token("r", 0.3)
        assert loads(dispatcher) == {"computes": (0, 0, 0), "remembers": (1, 0, 1)}

    @pytest.mark.parametrize("early", [False, True])
    @pytest.mark.parametrize("end", ["cancel", "fail", "refuse", "complete"])
    def test_whatever_ends_the_request_ends_both(self, end: str, early: bool):
        dispatcher = halves()
        sent(dispatcher)
        if not early:
            dispatcher.prefilled("r", 0.1)
        getattr(dispatcher, end)("r", 1.0, **({"output_tokens": 1} if end == "complete" else {}))
        assert set(loads(dispatcher).values()) == {(0, 0, 0)}
        assert balance(dispatcher) == 0

    @pytest.mark.parametrize(("prefill", "failed"), [(True, "computes"), (False, "remembers")])
    def test_the_side_that_fails_is_blamed_and_the_rest_served_whole(
        self, prefill: bool, failed: str
    ):
        dispatcher = pairs(
            "computes",
            "remembers",
            "slow",
            policy=Last("slow"),
            breaker=BreakerConfig(failure_threshold=1),
        )
        assert sent(dispatcher).prefill is not None
        decision = dispatcher.redispatch("r", 0.5, prefill=prefill)
        assert isinstance(decision, Assign)
        assert (decision.backend.name, decision.prefill) == ("slow", None)
        assert dispatcher.pairing is not None
        assert dispatcher.pairing.broken == {("prefill" if prefill else "decode", failed): 1}
        usable = {b.spec.name: b.usable for b in dispatcher.state.backends}
        assert usable == {"computes": True, "remembers": True, "slow": True, failed: False}
        assert balance(dispatcher) == 0

    def test_without_anybody_to_serve_it_whole_another_pair_does(self):
        capabilities = CAPABILITIES | {"computes-2": CAPABILITIES["computes"]}
        dispatcher = make_dispatcher(
            spec("computes", role="prefill"),
            spec("computes-2", role="prefill"),
            spec("remembers", role="decode"),
            capabilities=capabilities,
        )
        dispatcher.pairing = Pairing(PairRules())
        sent(dispatcher)
        decision = dispatcher.redispatch("r", 0.5, prefill=True)
        assert isinstance(decision, Assign)
        assert decision.prefill is not None
        assert decision.prefill.name == "computes-2"
        last = dispatcher.redispatch("r", 0.6, prefill=True)
        assert isinstance(last, Reject)
        assert last.reason == "all_backends_tried"
        assert balance(dispatcher) == 0

    def test_a_cached_prompt_stays_where_it_is(self):
        config = load_config(
            {
                "backends": [
                    {"gpu": "l40s", "model": MODEL, "name": "warm"},
                    {"gpu": "a100-80", "model": MODEL, "role": "decode", "name": "then"},
                ],
                "disaggregation": {"enabled": True, "gain": 0.0},
            }
        )
        dispatcher = build_dispatcher(config)
        prompt: dict[str, Any] = {"prompt_tokens": 4_000, "prefix_hashes": tuple(range(15))}
        prompt |= {"prefix_block_tokens": 256}
        assert isinstance(dispatcher.dispatch(ask("a", **prompt), 0.0), Assign)
        assert dispatcher.pairing is not None
        policy = dispatcher.policy
        warm = dispatcher.state.get("warm")
        assert policy.believed_cached(ask("b", **prompt), warm) == 3_840  # type: ignore[attr-defined]


class Last(LimitPolicy):
    """The first in the fleet that is not named; after a failure, the one that is."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name

    def choose(self, request: Any, candidates: Any, now: float) -> Any:
        named = [v for v in candidates if v.spec.name == self.name]
        others = [v for v in candidates if v not in named]
        return min(others if len(others) > 1 else named, key=lambda v: v.index)


def test_the_account_tells_of_both():
    dispatcher = pairs("computes", "remembers")
    sent(dispatcher, explain=True)
    account = dispatcher.explainer.get("r")
    assert account is not None
    told = as_json(account)["pair"]
    assert (told["prefill"], told["decode"]) == ("computes", "remembers")
    assert told["cost_s"] * 1.1 < told["whole_cost_s"]
    assert "prefill=computes;transfer_s=0.0231" in compact(account)
    halves_only = halves()
    sent(halves_only, explain=True)
    account = halves_only.explainer.get("r")
    assert account is not None
    assert math.isinf(account.pair["whole_cost_s"])  # type: ignore[index]
    assert as_json(account)["pair"]["whole_cost_s"] is None


ONE = {"gpu": "a100-80", "model": MODEL}


@pytest.mark.parametrize(
    ("backends", "message"),
    [
        ([ONE, ONE | {"role": "decode"}], "requests are not split here"),
        ([ONE | {"role": "prefill"}], "no other backend of .* does the other half"),
        (
            [ONE | {"role": "prefill"}, ONE | {"role": "decode", "engine_version": "0.18.1"}],
            "no other backend of .* does the other half",
        ),
        (
            [
                ONE | {"role": "prefill", "engine": "sglang"},
                ONE | {"role": "decode", "engine": "sglang"},
            ],
            "needs its bootstrap_port",
        ),
        ([ONE, ONE | {"role": "decode", "engine": "llamacpp"}], "cannot hand over its KV"),
    ],
)
def test_a_fleet_that_cannot_work_is_refused(backends: list[dict[str, Any]], message: str):
    split = {"enabled": "not split" not in message}
    with pytest.raises(ConfigError, match=message):
        load_config({"backends": backends, "disaggregation": split})
