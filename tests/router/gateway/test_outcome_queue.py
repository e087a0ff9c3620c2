"""Whoever learns hears later and in order, a predictor too, which the queue alone tells."""

from __future__ import annotations

import asyncio

from router.domain.protocols import BeginListener
from router.domain.request import Request
from router.gateway.outcome_queue import SETTLE_S, OutcomeQueue
from router.perf.length import BucketLengthPredictor
from tests.fakes import MODEL, outcome


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
