"""A shadow changes nothing; a canary decides exactly its share; both hear everything."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

import pytest

from router.domain.protocols import Hold, Taken
from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.registry import from_recipe
from router.policies.trial import Comparison, Trial, is_canary
from tests.fakes import view

RECIPE = {"name": "round-robin", "params": {}, "seed": 0, "slos": {}}


class Fixed:
    """Always takes the backend with this index, and remembers who it heard of."""

    def __init__(self, index: int | None, cached: int = 0) -> None:
        self.index, self.cached = index, cached
        self.asked: list[str] = []
        self.heard: list[str] = []

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | Hold | None:
        self.asked.append(request.request_id)
        return None if self.index is None else candidates[self.index]

    def dispatched(self, request: Request, backend: BackendView, now: float) -> int:
        self.heard.append(backend.spec.name)
        return self.cached


class Queueing(Fixed):
    """Waits for whatever others wait for."""

    def choose_or_queue(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        taken: Sequence[Taken],
        now: float,
    ) -> BackendView | Hold | None:
        return Hold(taken[0].backend)


class Remembers(Fixed):
    """Also hears what other replicas sent, and who is gone."""

    def hint(self, backend: BackendView, hashes: Sequence[int], block_tokens: int) -> None:
        self.heard.append(f"{backend.spec.name} holds {len(hashes) * block_tokens}")

    def lost(self, backend: str) -> None:
        self.heard.append(f"{backend} is lost")


def request(n: int = 0) -> Request:
    return Request(request_id=f"r{n}", model="m", arrival_s=0.0, prompt_tokens=100)


def test_whoever_decides_may_queue_behind_others_if_it_can() -> None:
    free, busy = [view("a")], Taken(view("b"), 1.0, 100)
    able = Trial(Queueing(0), shadow=Fixed(0)).choose_or_queue(request(), free, [busy], 1.0)
    assert able == Hold(busy.backend)
    assert Trial(Fixed(0)).choose_or_queue(request(), free, [busy], 1.0) is free[0]


def test_a_shadow_is_asked_and_not_obeyed() -> None:
    views = [view("a"), view("b")]
    heard: list[Comparison] = []
    trial = Trial(Fixed(0), shadow=Fixed(1))
    trial.told = heard.append
    assert trial.choose(request(), views, 1.0) is views[0]
    (one,) = heard
    assert (one.backend, one.shadow_backend) == ("a", "b")
    assert one.e2e_s is not None
    assert one.e2e_s >= one.ttft_s  # type: ignore[operator]


def test_nobody_listening_costs_nothing() -> None:
    shadow = Fixed(1)
    Trial(Fixed(0), shadow=shadow).choose(request(), [view("a"), view("b")], 1.0)
    assert shadow.asked == []


def test_who_waits_has_no_prediction() -> None:
    heard: list[Comparison] = []
    trial = Trial(Fixed(None), shadow=Fixed(0))
    trial.told = heard.append
    assert trial.choose(request(), [view("a")], 1.0) is None
    assert (heard[0].backend, heard[0].e2e_s) == (None, None)
    assert heard[0].shadow_e2e_s is not None


@pytest.mark.parametrize("share", [0.05, 0.3])
def test_a_canary_decides_its_share_told_by_the_id_alone(share: float) -> None:
    canary = Fixed(1)
    trial = Trial(Fixed(0), canary=canary, share=share)
    views = [view("a"), view("b")]
    for n in range(4000):
        chosen = trial.choose(request(n), views, 0.0)
        assert (chosen is views[1]) == is_canary(f"r{n}", share)
    assert len(canary.asked) / 4000 == pytest.approx(share, rel=0.15)


def test_whoever_decided_says_what_is_cached_and_all_hear() -> None:
    main, canary = Fixed(0, cached=10), Fixed(1, cached=20)
    trial = Trial(main, canary=canary, share=0.5)
    theirs = next(n for n in range(99) if is_canary(f"r{n}", 0.5))
    ours = next(n for n in range(99) if not is_canary(f"r{n}", 0.5))
    assert trial.dispatched(request(theirs), view("b"), 0.0) == 20
    assert trial.dispatched(request(ours), view("a"), 0.0) == 10
    assert main.heard == canary.heard == ["b", "a"]


def test_a_recipe_makes_it() -> None:
    beside: dict[str, Any] = {
        "shadow": {"name": "least-request", "params": {}},
        "canary": {"name": "random", "params": {}, "share": 0.2},
    }
    trial = from_recipe({**RECIPE, **beside})
    assert isinstance(trial, Trial)
    assert (type(trial.shadow).__name__, trial.share) == ("LeastRequest", 0.2)
    assert not isinstance(from_recipe({**RECIPE, "shadow": None, "canary": None}), Trial)


def test_a_shadow_changes_no_choice_of_a_random_policy() -> None:
    views = [view(name) for name in "abcd"]
    recipe = {**RECIPE, "name": "power-of-two"}
    alone = from_recipe(recipe)
    watched = from_recipe({**recipe, "shadow": {"name": "random", "params": {}}})
    watched.told = lambda _: None  # type: ignore[attr-defined]
    rng = random.Random(3)
    for n in range(200):
        some = rng.sample(views, 3)
        assert alone.choose(request(n), some, 0.0) is watched.choose(request(n), some, 0.0)


def test_all_that_can_hear_of_hints_and_losses() -> None:
    main, shadow, deaf = Remembers(0), Remembers(0), Fixed(0)
    trial = Trial(main, shadow=shadow, canary=deaf, share=0.5)
    trial.hint(view("a"), (1, 2), 256)
    trial.lost("b")
    assert main.heard == shadow.heard == ["a holds 512", "b is lost"]
    assert deaf.heard == []
