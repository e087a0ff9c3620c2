"""Those who learn from outcomes hear of them in batches, off the path of requests.

None is lost and the order is kept; each outcome carries its own times, so nobody needs to hear
at once. Whoever is asked in between (``/metrics``, the end of the gateway) settles first.

A lesson begins when an answer has just ended, not by a timer, which might meet requests that come
at a steady rate midway, again and again; a timer is there for answers after which no other ends. It
is given in slices, and between two of them the loop looks after the requests.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Sequence
from typing import Protocol

from router.domain.outcome import Begun, Outcome
from router.domain.protocols import BeginListener, FirstTokenListener, LengthPredictor, Observer
from router.domain.request import Request

SETTLE_S = 0.05
"""From the end of one lesson to the beginning of the next, at least."""
PATIENCE_S = 0.02
"""What has waited so long hears then, though no other answer has ended."""
SLICE = 32
"""Outcomes told at once, about half a millisecond."""


class Predictor(LengthPredictor, BeginListener, Protocol):
    """One that counts what is under way."""


class OutcomeQueue:
    """An ``Observer`` that tells others, a moment later.

    Args:
        observers: each hears of every outcome, in order.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._hearing = tuple(one for one in observers if isinstance(one, FirstTokenListener))
        self._pupil: _Taught | None = None
        self._waiting: list[Outcome] = []
        self._next: asyncio.Handle | None = None
        self._timed = False
        self._rests_until_s = 0.0
        self._time: Callable[[], float] = time.monotonic

    def teaching(self, predictor: Predictor) -> LengthPredictor:
        """The predictor for the dispatcher; it learns with the others, and last.

        Between two lessons it says the same of the same request, which costs it nothing.
        """
        self._pupil = _Taught(predictor)
        return self._pupil

    def observe(self, outcome: Outcome) -> None:
        """Keep one outcome until the next lesson."""
        self._waiting.append(outcome)
        if self._next is None or (self._timed and self._time() >= self._rests_until_s):
            self._plan()

    def _plan(self) -> None:
        """A lesson soon, or by a timer while it is too early for one."""
        loop = asyncio.get_running_loop()
        self._time = loop.time
        left_s = self._rests_until_s - loop.time()
        if left_s <= 0.0:
            self._then(loop.call_soon(self._lesson))
        else:
            self._then(loop.call_later(left_s + PATIENCE_S, self._lesson), timed=True)

    def began(self, request_id: str, backend: str, attempt: Begun) -> None:
        """Told at once: few listen, and the answer's end must not be heard before."""
        for one in self._hearing:
            one.began(request_id, backend, attempt)

    def settle(self) -> None:
        """Tell everybody everything that waits."""
        outcomes, self._waiting = self._waiting, []
        self._tell(outcomes)

    def _lesson(self) -> None:
        outcomes = self._waiting[:SLICE]
        del self._waiting[:SLICE]
        try:
            self._tell(outcomes)
        finally:  # a defect of one listener is not the end of all lessons
            loop = asyncio.get_running_loop()
            self._rests_until_s = loop.time() + SETTLE_S
            self._then(loop.call_soon(self._lesson) if self._waiting else None)

    def _then(self, handle: asyncio.Handle | None, *, timed: bool = False) -> None:
        if self._next is not None:
            self._next.cancel()
        self._next, self._timed = handle, timed

    def _tell(self, outcomes: Sequence[Outcome]) -> None:
        for observer in self._observers:
            observe = observer.observe
            for outcome in outcomes:
                observe(outcome)
        if self._pupil is not None:
            self._pupil.learn(outcomes)


class _Taught:
    """The predictor as the dispatcher sees it."""

    def __init__(self, predictor: Predictor) -> None:
        self.forecast = predictor.forecast
        self._predictor = predictor
        self._begun: dict[str, Request] = {}

    def begun(self, request: Request) -> None:
        """Keep it: most are over before the next lesson, and then it says nothing."""
        self._begun[request.request_id] = request

    def observe(self, outcome: Outcome) -> None:
        """The queue tells it."""

    def learn(self, outcomes: Sequence[Outcome]) -> None:
        """A lesson: what is over, and what has begun since the last one and is not."""
        begun, self._begun = self._begun, {}
        for outcome in outcomes:
            begun.pop(outcome.request_id, None)
            self._predictor.observe(outcome)
        for request in begun.values():
            self._predictor.begun(request)
