"""Those who learn from outcomes hear of them in batches, off the path of requests.

None is lost and the order is kept; each outcome carries its own times, so nobody needs to hear
at once. Whoever is asked in between (``/metrics``, the end of the gateway) settles first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from typing import Protocol

from router.domain.outcome import Outcome
from router.domain.protocols import BeginListener, LengthPredictor, Observer
from router.domain.request import Request

SETTLE_S = 0.05


class Predictor(LengthPredictor, BeginListener, Protocol):
    """One that counts what is under way."""


class OutcomeQueue:
    """An ``Observer`` that tells others, a moment later.

    Args:
        observers: each hears of every outcome, in order.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers = tuple(observers)
        self._pupil: _Taught | None = None
        self._waiting: list[Outcome] = []
        self._timer: asyncio.TimerHandle | None = None

    def teaching(self, predictor: Predictor) -> LengthPredictor:
        """The predictor for the dispatcher; it learns with the others, and last.

        Between two lessons it says the same of the same request, which costs it nothing.
        """
        self._pupil = _Taught(predictor)
        return self._pupil

    def observe(self, outcome: Outcome) -> None:
        """Keep one outcome until the next settling."""
        self._waiting.append(outcome)
        if self._timer is None:
            self._timer = asyncio.get_running_loop().call_later(SETTLE_S, self.settle)

    def settle(self) -> None:
        """Tell everybody everything that waits."""
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        outcomes, self._waiting = self._waiting, []
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
