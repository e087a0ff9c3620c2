"""What every policy promises, whatever its formula: one suite over the whole registry."""

from __future__ import annotations

import copy
import random
from typing import Any

import pytest

from router.domain.decision import Assign
from router.domain.protocols import DispatchListener, Hold
from router.domain.request import Request
from router.domain.state import EngineSignals, LinearCost
from router.fleet_state.backend import BackendState
from router.policies.registry import BLIND_TO_SPEED, POLICIES
from tests.fakes import FAST, SLOW, ask, make_dispatcher, outcome, spec, view, views
from tests.router.policies.picking import picked, policy_of

TAKES_TURNS = {"round-robin", "nginx-least-conn"}
"""Among equals these go round in a fixed order; all others draw."""

every_policy = pytest.mark.parametrize("name", sorted(POLICIES))


def busy_fleet() -> list[BackendState]:
    """Six backends of two speeds, each in a state of its own."""
    return views(
        idle={},
        decoding={"in_flight": 3, "decoding": 3, "context_tokens": 4_000.0, "version": 9},
        prefilling={"in_flight": 2, "prefilling": 2, "pending_prefill_tokens": 6_000},
        slow={"cost": SLOW},
        slow_busy={"cost": SLOW, "in_flight": 5, "decoding": 5, "pending_output_tokens": 500.0},
        scraped={
            "signals": EngineSignals(0.0, running=2, waiting=1, kv_usage=0.5, gen_tokens_per_s=900),
            "price": 0.3,
        },
    )


def requests() -> list[Request]:
    """Short and long, limited and not, with and without a prefix and a conversation."""
    return [
        ask("short", forecast=50.0, prompt_tokens=10),
        ask("long", forecast=400.0, prompt_tokens=7_000, max_tokens=900),
        ask("prefix", forecast=100.0, prefix_hashes=(1, 2, 3), prefix_block_tokens=256),
        ask("again", forecast=100.0, prefix_hashes=(1, 2, 9), prefix_block_tokens=256),
        ask("chat", forecast=100.0, session="s1", tenant="acme", slo_class="bulk"),
        ask("unheard", forecast=100.0, slo_class="invented"),
    ]


def slots(backend: BackendState) -> dict[str, Any]:
    """Everything a backend holds, its breaker aside, which no policy can see."""
    return {
        name: copy.deepcopy(getattr(backend, name))
        for name in BackendState.__slots__
        if name != "breaker"
    }


@every_policy
def test_returns_a_candidate_or_waits(name: str):
    policy, fleet = policy_of(name), busy_fleet()
    for request in requests():
        chosen = policy.choose(request, fleet, 1.0)
        wanted = chosen.backend if isinstance(chosen, Hold) else chosen
        assert wanted is None or any(wanted is candidate for candidate in fleet)


@every_policy
def test_never_keeps_a_request_waiting_when_everybody_is_idle(name: str):
    assert picked(policy_of(name), views(a={}, b={})) in ("a", "b")


@every_policy
def test_the_only_idle_candidate_is_the_choice(name: str):
    policy = policy_of(name)
    for request in requests():
        assert picked(policy, [view("only")], request) == "only"


@every_policy
def test_changes_neither_request_nor_backends_nor_the_list(name: str):
    policy, fleet = policy_of(name), busy_fleet()
    listed = list(fleet)
    states = [slots(backend) for backend in fleet]
    for request in requests():
        before = copy.deepcopy(request)
        policy.choose(request, fleet, 1.0)
        assert request == before
    assert [slots(backend) for backend in fleet] == states
    assert all(a is b for a, b in zip(listed, fleet, strict=True))


def choices_under_load(name: str, seed: int) -> list[str]:
    """Sixty arrivals at a dispatcher, with answers that end now and then."""
    dispatcher = make_dispatcher(
        "a", "b", spec("c", gpu="t4"), spec("d", gpu="t4"), policy=policy_of(name, seed)
    )
    pace = random.Random(99)
    chosen, flying, now = [], [], 0.0
    for n in range(60):
        now += pace.expovariate(20.0)
        hashes = (n % 5, 100 + n % 7)
        request = ask(
            f"r{n}",
            arrival_s=now,
            prompt_tokens=pace.randrange(1, 4_000),
            prefix_hashes=hashes,
            prefix_block_tokens=64,
        )
        decision = dispatcher.dispatch(request, now)
        chosen.append(repr(decision))
        if isinstance(decision, Assign):
            flying.append(request.request_id)
        if pace.random() < 0.8 and dispatcher.in_flight:
            ended = flying.pop(pace.randrange(len(flying)))
            dispatcher.first_token(ended, now)
            dispatcher.complete(ended, now + 0.5, output_tokens=pace.randrange(1, 300))
    return chosen


@every_policy
def test_same_seed_same_choices(name: str):
    assert choices_under_load(name, seed=7) == choices_under_load(name, seed=7)


@every_policy
def test_equals_all_get_their_share(name: str):
    policy = policy_of(name)
    fleet = views(a={}, b={}, c={}, d={})
    chosen = {picked(policy, fleet, ask(f"r{n}", forecast=100.0)) for n in range(100)}
    assert chosen == {"a", "b", "c", "d"}


@pytest.mark.parametrize("name", sorted(set(POLICIES) - TAKES_TURNS))
def test_ties_are_broken_at_random_so_that_many_routers_do_not_herd(name: str):
    first = {picked(policy_of(name, seed), views(a={}, b={}, c={})) for seed in range(40)}
    assert first == {"a", "b", "c"}


@every_policy
def test_members_may_come_and_go_between_two_choices(name: str):
    policy = policy_of(name)
    a, b, c = views(a={}, b={}, c={})
    for n, fleet in enumerate([[a, b, c], [b], [c, a], [a], [b, c], [c]] * 3):
        chosen = picked(policy, fleet, ask(f"r{n}", forecast=100.0))
        assert chosen in {candidate.spec.name for candidate in fleet}


EXTREMES: dict[str, tuple[dict[str, Any], dict[str, Any]]] = {
    "nothing asked, nothing expected": ({"prompt_tokens": 0, "forecast": 0.0}, {}),
    "a limit of nothing": ({"max_tokens": 0, "forecast": 0.0}, {}),
    "a prompt beyond the KV cache": ({"prompt_tokens": 10**7}, {"in_flight": 1, "prefilling": 1}),
    "a KV cache overfull": ({}, {"in_flight": 300, "context_tokens": 10.0**6}),
    "an engine that says nothing of itself": ({}, {"signals": EngineSignals(0.0)}),
    "an engine at its limit": (
        {},
        {"signals": EngineSignals(0.0, running=256, waiting=10**4, kv_usage=1.0)},
    ),
    "a clock that starts below zero": ({"arrival_s": -5.0}, {"prefill_since_s": -9.0}),
}


@every_policy
@pytest.mark.parametrize("extreme", EXTREMES)
def test_survives(name: str, extreme: str):
    asked, state = EXTREMES[extreme]
    fleet = [view("a", 0, FAST, **state), view("b", 1, SLOW, **state)]
    policy, request = policy_of(name), ask(**{"forecast": 100.0, **asked})
    chosen = policy.choose(request, fleet, 0.0)
    assert chosen is None or isinstance(chosen, Hold) or chosen in fleet
    if isinstance(policy, DispatchListener):
        request.prefix_hashes, request.prefix_block_tokens = (1, 2), 256
        for _ in range(2):
            cached = policy.dispatched(request, fleet[0], 0.0)
            assert 0 <= cached <= request.prompt_tokens


@every_policy
def test_what_it_takes_to_be_cached_is_part_of_the_prompt(name: str):
    policy, (a, b) = policy_of(name), views(a={}, b={})
    if not isinstance(policy, DispatchListener):
        return
    request = ask(forecast=100.0, prefix_hashes=(1, 2, 3, 4), prefix_block_tokens=256)
    assert policy.dispatched(request, a, 0.0) == 0, "a cold cache"
    again = policy.dispatched(request, a, 1.0)
    # The blocks reach beyond the prompt; an engine always computes the last token.
    assert 0 < again < request.prompt_tokens
    assert policy.dispatched(request, b, 2.0) == 0, "the caches are the backends' own"
    assert policy.dispatched(ask(forecast=100.0), a, 3.0) == 0, "no prefix is known"


@every_policy
def test_learns_from_every_way_an_attempt_can_end(name: str):
    policy, fleet = policy_of(name), views(a={}, b={})
    observe = getattr(policy, "observe", None)
    if observe is None:
        return
    chosen = picked(policy, fleet, ask("r", forecast=100.0))
    observe(outcome(chosen, "failed", request_id="r", first_token_s=None, output_tokens=0))
    observe(outcome(chosen, "cancelled", request_id="never chosen"))
    observe(outcome("a backend that left", request_id="other", output_tokens=1))
    observe(outcome(chosen, request_id="r", prompt_tokens=0, output_tokens=0))
    assert picked(policy, fleet, ask("s", forecast=100.0)) in ("a", "b")


class _Unlooked(LinearCost):
    """A cost that nobody may read."""

    def __getattribute__(self, name: str) -> Any:
        if not name.startswith("__"):
            raise AssertionError(f"looked at the cost: {name}")
        return super().__getattribute__(name)


@pytest.mark.parametrize("name", sorted(BLIND_TO_SPEED))
def test_the_blind_never_look_at_the_cost(name: str) -> None:
    policy = policy_of(name)
    hidden = _Unlooked(1.0, 1.0, 1.0, 1.0)
    fleet = busy_fleet()
    for backend in fleet:
        backend.cost = hidden
    for request in requests() * 3:
        chosen = policy.choose(request, fleet, 1.0)
        if isinstance(policy, DispatchListener) and isinstance(chosen, BackendState):
            policy.dispatched(request, chosen, 1.0)
    with pytest.raises(AssertionError, match="looked at the cost"):
        policy_of("marginal-delay").choose(requests()[0], fleet, 1.0)  # the trap works
