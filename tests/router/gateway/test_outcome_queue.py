"""Whoever learns hears later and in order, a predictor too, which the queue alone tells."""

from __future__ import annotations

import asyncio

import pytest

from router.domain.protocols import BeginListener, FirstTokenListener
from router.domain.request import Request
from router.gateway import outcome_queue
from router.gateway.outcome_queue import SETTLE_S, SLICE, OutcomeQueue
from router.perf.length import BucketLengthPredictor
from tests.fakes import MODEL, outcome
from tests.router.gateway.fakes import eventually


class Listener:
    """Keeps what it hears."""

    def __init__(self) -> None:
        self.heard: list[str] = []

    def observe(self, one: object) -> None:
        self.heard.append(one.request_id)  # type: ignore[attr-defined]


async def test_outcomes_are_told_in_order_a_moment_later_and_once() -> None:
    listener = Listener()
    queue = OutcomeQueue([listener])
    for name in ("a", "b", "c"):
        queue.observe(outcome(request_id=name))
    assert listener.heard == []
    await asyncio.sleep(2 * SETTLE_S)
    assert listener.heard == ["a", "b", "c"]
    queue.settle()
    assert listener.heard == ["a", "b", "c"]


async def test_first_tokens_are_told_at_once_to_those_who_listen() -> None:
    class Early(Listener):
        def began(self, request_id: str, backend: str, attempt: object) -> None:
            self.heard.append(f"{request_id} on {backend}")

    plain, early = Listener(), Early()
    queue = OutcomeQueue([plain, early])
    assert isinstance(queue, FirstTokenListener)
    queue.began("a", "t4", outcome(request_id="a"))
    queue.observe(outcome(request_id="a"))
    queue.settle()
    assert (plain.heard, early.heard) == (["a"], ["a on t4", "a"])


async def test_a_defect_of_a_listener_is_not_the_end_of_lessons() -> None:
    class Grieving(Listener):
        def observe(self, one: object) -> None:
            super().observe(one)
            if self.heard == ["a"]:
                raise RuntimeError("a defect of ours")

    listener, told = Grieving(), asyncio.Event()
    asyncio.get_running_loop().set_exception_handler(lambda *_: told.set())
    queue = OutcomeQueue([listener])
    queue.observe(outcome(request_id="a"))
    await asyncio.wait_for(told.wait(), 5.0)
    queue.observe(outcome(request_id="b"))
    await eventually(lambda: listener.heard == ["a", "b"])


async def test_a_lesson_follows_an_answer_and_then_there_is_a_pause(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """By a timer alone it would meet, again and again, those who come at a steady rate."""
    monkeypatch.setattr(outcome_queue, "PATIENCE_S", 3600.0)
    listener = Listener()
    queue = OutcomeQueue([listener])
    queue.observe(outcome(request_id="a"))
    await eventually(lambda: listener.heard == ["a"])
    queue.observe(outcome(request_id="b"))
    await asyncio.sleep(2 * SETTLE_S)
    assert listener.heard == ["a"], "the pause is over, but no answer has ended since"
    queue.observe(outcome(request_id="c"))
    await eventually(lambda: listener.heard == ["a", "b", "c"])


async def test_what_waits_hears_though_no_other_answer_ends() -> None:
    listener = Listener()
    queue = OutcomeQueue([listener])
    queue.observe(outcome(request_id="a"))
    await eventually(lambda: listener.heard == ["a"])
    queue.observe(outcome(request_id="b"))
    await eventually(lambda: listener.heard == ["a", "b"])


async def test_between_two_slices_of_a_long_lesson_others_have_their_turn() -> None:
    listener = Listener()
    queue = OutcomeQueue([listener])
    for n in range(3 * SLICE):
        queue.observe(outcome(request_id=str(n)))
    told: list[int] = []
    while len(listener.heard) < 3 * SLICE:
        await asyncio.sleep(0)
        told.append(len(listener.heard))
    assert {SLICE, 2 * SLICE, 3 * SLICE} <= set(told)
    assert listener.heard == [str(n) for n in range(3 * SLICE)]


async def test_a_predictor_learns_with_the_others_and_only_from_the_queue() -> None:
    queue = OutcomeQueue([])
    taught = queue.teaching(BucketLengthPredictor())
    request = Request("r", MODEL, 0.0, 1000)
    before = taught.forecast(request)
    for _ in range(50):
        one = outcome(output_tokens=1000)
        taught.observe(one)  # as the dispatcher does
        queue.observe(one)
    assert taught.forecast(request) is before, "nothing was learned, so nothing is worked out anew"
    queue.settle()
    alone = BucketLengthPredictor()
    for _ in range(50):
        alone.observe(outcome(output_tokens=1000))
    assert taught.forecast(request) == alone.forecast(request)


async def test_what_begins_is_told_with_the_next_lesson_unless_it_is_over_by_then() -> None:
    queue = OutcomeQueue([])
    taught = queue.teaching(BucketLengthPredictor())
    assert isinstance(taught, BeginListener), "the dispatcher tells it"
    alone = BucketLengthPredictor()
    for name in ("short", "long"):
        request = Request(name, MODEL, 0.0, 1000)
        request.forecast = taught.forecast(request)
        taught.begun(request)
    alone.begun(request)
    short, long = (outcome(request_id=name, output_tokens=20) for name in ("short", "long"))
    for one in (short, long):
        queue.observe(one)
        queue.settle()
        alone.observe(one)
        assert taught.forecast(request) == alone.forecast(request)
