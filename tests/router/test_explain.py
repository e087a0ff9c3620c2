"""The account of a decision: who was looked at, what was predicted, why the others lost."""

from __future__ import annotations

import json
import math
import random
from typing import Any

import pytest

from router.class_dispatcher import desk_of
from router.config.build import build_dispatcher, rebuild_dispatcher
from router.config.load import load_config
from router.dispatcher import Dispatcher
from router.domain.decision import Assign
from router.domain.explanation import Explains
from router.domain.request import Request
from router.explain import Explainer, as_json, compact
from router.log_replay import replay
from router.perf.estimate import tpot_s, ttft_s
from router.policies.context import PolicyContext
from router.policies.motley import Motley
from tests.fakes import FAST, SLOW, LimitPolicy, ask, capability, make_dispatcher, view

MODEL = "llama-3.1-8b"
FLEET: list[dict[str, Any]] = [
    {"gpu": "a100-80", "count": 2, "model": MODEL},
    {"gpu": "t4", "count": 2, "tensor_parallel": 2, "model": MODEL},
]


def built(policy: str, log: list[bytes] | None = None, **sections: Any) -> Dispatcher:
    config = load_config({"backends": FLEET, "policy": {"name": policy}, **sections})
    return build_dispatcher(config, log=None if log is None else log.append)


def account(dispatcher: Dispatcher, request_id: str) -> dict[str, Any]:
    found = dispatcher.explainer.get(request_id)
    assert found is not None
    return as_json(found)


def test_tells_every_backend_of_the_model_with_the_prediction_before_the_request_was_sent():
    dispatcher = built("motley")
    for n in range(8):
        assert isinstance(dispatcher.dispatch(ask(f"r{n}"), 0.0), Assign)
        dispatcher.first_token(f"r{n}", 0.5)
    before = {b.spec.name: (ttft_s(b, 1_000, 1.0), b.in_flight) for b in dispatcher.state.backends}
    decision = dispatcher.dispatch(ask("asked", explain=True, arrival_s=1.0), 1.0)
    assert isinstance(decision, Assign)
    told = account(dispatcher, "asked")
    assert {c["backend"]: (c["predicted_ttft_s"], c["in_flight"]) for c in told["candidates"]} == (
        before
    )
    assert told["decision"] == "assign"
    assert told["backend"] == told["candidates"][0]["backend"] == decision.backend.name
    assert [c["lost_because"] == "" for c in told["candidates"]] == [True, False, False, False]


def test_beside_a_shadow_or_a_canary_whoever_decided_is_asked_why():
    shadow = {"policy": {"name": "motley", "shadow": {"name": "round-robin"}}}
    dispatcher = build_dispatcher(load_config({"backends": FLEET, **shadow}))
    dispatcher.dispatch(ask("asked", explain=True), 0.0)
    told = account(dispatcher, "asked")
    assert told["policy"] == "Motley"
    assert all(candidate["score"] is not None for candidate in told["candidates"])
    canary = {"policy": {"name": "round-robin", "canary": {"name": "motley", "share": 0.5}}}
    dispatcher = build_dispatcher(load_config({"backends": FLEET, **canary}))
    for n in range(40):
        dispatcher.dispatch(ask(f"r{n}", explain=True), 0.0)
    said = {account(dispatcher, f"r{n}")["policy"] for n in range(40)}
    assert said == {"Motley", "RoundRobin"}


def test_the_scores_are_those_that_decided_and_their_terms_add_up():
    policy = Motley(PolicyContext(random.Random(0)))
    fast = view("fast", 0, cost=FAST, in_flight=3, decoding=3, context_tokens=3_000.0)
    fast.pending_output_tokens = 300.0
    slow = view("slow", 1, cost=SLOW)
    for prompt in (10, 1_000, 6_000):
        request = ask(prompt_tokens=prompt, forecast=200.0)
        scores = policy.explain(request, [fast, slow], 0.0)
        values = {name: score.score for name, score in scores.items()}
        assert policy.choose(request, [fast, slow], 0.0) is min(
            (fast, slow), key=lambda v: values[v.spec.name] or math.inf
        )
        for score in scores.values():
            assert score.score == pytest.approx(sum(score.terms.values()))
        assert scores["fast"].terms["externality"] > 0 == scores["slow"].terms["externality"]


def test_explaining_changes_no_decision():
    def run(explain: bool) -> list[object]:
        dispatcher, pace = built("motley"), random.Random(4)
        chosen: list[object] = []
        for n in range(300):
            now = 0.02 * n
            request = ask(
                f"r{n}", prompt_tokens=pace.randrange(1, 3_000), arrival_s=now, explain=explain
            )
            chosen.append(dispatcher.dispatch(request, now))
            if n > 20 and isinstance(chosen[n - 20], Assign):
                dispatcher.complete(f"r{n - 20}", now, output_tokens=30)
        return chosen

    assert run(True) == run(False)


@pytest.mark.parametrize("policy", ["least-request", "round-robin", "power-of-two"])
def test_a_policy_without_scores_is_told_by_the_predictions(policy: str):
    dispatcher = built(policy)
    dispatcher.dispatch(ask("asked", explain=True), 0.0)
    told = account(dispatcher, "asked")
    assert {c["score"] for c in told["candidates"]} == {None}
    backend = next(b for b in dispatcher.state.backends if b.spec.name != told["backend"])
    candidate = next(c for c in told["candidates"] if c["backend"] == backend.spec.name)
    output = told["forecast_mean_tokens"]
    assert candidate["predicted_tpot_s"] == tpot_s(backend, 1_000, output)
    assert "gives no scores" in candidate["lost_because"]


def test_says_why_some_were_not_candidates_at_all():
    short = capability(max_context_tokens=500)
    dispatcher = make_dispatcher("a", "ill", "leaving", "short", capabilities={"short": short})
    dispatcher.set_health("ill", healthy=False, now=0.0)
    dispatcher.drain("leaving", 0.0)
    dispatcher.dispatch(ask("asked", explain=True), 0.0)
    why = {c["backend"]: c["lost_because"] for c in account(dispatcher, "asked")["candidates"]}
    assert why["a"] == ""
    assert "health" in why["ill"]
    assert "draining" in why["leaving"]
    assert "context is too short" in why["short"]


def test_a_wait_and_a_rejection_are_told_and_replaced_by_what_came_later():
    dispatcher = make_dispatcher("a", policy=LimitPolicy(1))
    dispatcher.dispatch(ask("r"), 0.0)
    dispatcher.dispatch(ask("asked", explain=True), 0.0)
    assert account(dispatcher, "asked")["decision"] == "wait"
    assert account(dispatcher, "asked")["reason"] == "saturated"
    dispatcher.poll(60.0)
    told = account(dispatcher, "asked")
    assert (told["decision"], told["reason"]) == ("reject", "queue_timeout")
    dispatcher.dispatch(ask("lost", explain=True, model="nobody"), 60.0)
    assert account(dispatcher, "lost")["candidates"] == []


def test_at_the_end_the_actual_stands_beside_the_predicted():
    dispatcher = built("motley")
    dispatcher.dispatch(ask("asked", explain=True), 0.0)
    assert account(dispatcher, "asked")["actual"] is None
    dispatcher.first_token("asked", 0.4)
    dispatcher.complete("asked", 2.4, output_tokens=101, cached_tokens=64)
    actual = account(dispatcher, "asked")["actual"]
    assert actual["status"] == "completed"
    assert (actual["ttft_s"], actual["tpot_s"], actual["e2e_s"]) == (0.4, 0.02, 2.4)
    assert (actual["output_tokens"], actual["cached_tokens"]) == (101, 64)


def test_only_the_last_are_kept_and_only_of_those_that_asked():
    dispatcher = make_dispatcher("a", policy=LimitPolicy(10_000))
    dispatcher.explainer = Explainer(kept=10)
    for n in range(100):
        dispatcher.dispatch(ask(f"r{n}", explain=n % 2 == 0), 0.0)
    assert len(dispatcher.explainer) == 10
    assert dispatcher.explainer.get("r98") is not None
    assert dispatcher.explainer.get("r99") is None


def test_the_header_is_short_plain_and_names_the_best_three():
    dispatcher = built("motley")
    dispatcher.dispatch(ask("asked", explain=True), 0.0)
    found = dispatcher.explainer.get("asked")
    assert found is not None
    line = compact(found)
    assert line.isascii()
    assert len(line) < 600
    assert line.startswith("assign;waited_s=0.000;queued=0;candidates=4, a100-80-")
    assert line.count("ttft_s=") == 3
    assert 'lost="' in line


@pytest.mark.parametrize("sections", [{}, {"admission": {"enabled": True}}])
def test_the_decision_log_holds_it_and_replays_byte_for_byte(sections: dict[str, Any]):
    log: list[bytes] = []
    dispatcher = built("motley", log, **sections)
    for n in range(200):
        request = Request(f"r{n}", MODEL, 0.01 * n, 2_000, explain=n % 10 == 0)
        decision = dispatcher.dispatch(request, 0.01 * n)
        if isinstance(decision, Assign) and n % 3:
            dispatcher.first_token(f"r{n}", 0.01 * n + 0.005)
        dispatcher.poll(0.01 * n + 0.007)
    told = [json.loads(line) for line in log if b'"explanation"' in line]
    assert len(told) >= 20
    assert told[0]["answer"]["explanation"]["candidates"]
    assert replay(log, rebuild_dispatcher) == len(log) - 1


def test_where_classes_are_scheduled_the_closed_gates_are_told():
    dispatcher = built("motley", admission={"enabled": True})
    for n in range(80):
        dispatcher.dispatch(ask(f"r{n}", prompt_tokens=3_000), 0.0)
    dispatcher.dispatch(ask("asked", slo_class="bulk", prompt_tokens=6_000, explain=True), 0.0)
    why = {c["lost_because"] for c in account(dispatcher, "asked")["candidates"]}
    assert any("tighter class" in text or "TPOT" in text for text in why), why


def test_asking_why_counts_nothing_twice():
    dispatcher = built(
        "motley",
        admission={"enabled": True},
        slos={"interactive": {"ttft_s": 2.0, "tpot_s": 0.0001}},
    )
    dispatcher.dispatch(ask("r", slo_class="interactive", explain=True), 0.0)
    desk = desk_of(dispatcher)
    assert desk is not None
    assert desk.events["slo_infeasible", "interactive"] == 1
    told = [c["lost_because"] for c in account(dispatcher, "r")["candidates"]]
    assert sorted(told) == ["", "a tie, broken at random", *["score worse by 0.104"] * 2]


def test_motley_explains_itself():
    assert isinstance(Motley(PolicyContext(random.Random(0))), Explains)


def test_the_document_is_stable():
    dispatcher = built("motley")
    dispatcher.dispatch(ask("asked", explain=True), 0.0)
    told = account(dispatcher, "asked")
    assert list(told) == [
        *("request_id", "model", "slo_class", "tenant", "prompt_tokens", "policy"),
        *("decided_s", "waited_s", "forecast_mean_tokens", "forecast_p90_tokens"),
        *("decision", "backend", "reason", "queued", "candidates", "actual", "pair"),
    ]
    assert list(told["candidates"][0]) == [
        *("backend", "gpu", "predicted_ttft_s", "predicted_tpot_s", "predicted_e2e_s"),
        *("in_flight", "prefilling", "backlog_s", "kv_share", "cached_tokens", "price"),
        *("score", "terms", "lost_because"),
    ]
