"""Those who learn from outcomes hear of them in batches, off the path of requests.

None is lost and the order is kept; each outcome carries its own times, so nobody needs to hear
at once. Whoever is asked in between (``/metrics``, the end of the gateway) settles first.
"""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from router.domain.outcome import Outcome
from router.domain.protocols import LengthPredictor, Observer

SETTLE_S = 0.05


class OutcomeQueue:
    """An ``Observer`` that tells others, a moment later.

    Args:
        observers: each hears of every outcome, in order.
    """

    def __init__(self, observers: Sequence[Observer]) -> None:
        self._observers: tuple[Observer, ...] = tuple(observers)
        self._waiting: list[Outcome] = []
        self._timer: asyncio.TimerHandle | None = None

    def teaching(self, predictor: LengthPredictor) -> LengthPredictor:
        """The predictor for the dispatcher; it learns with the others, and last.

        Between two lessons it says the same of the same request, which costs it nothing.
        """
        self._observers += (predictor,)
        return _Taught(predictor)

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


class _Taught:
    """A predictor that the queue tells of outcomes, not the dispatcher."""

    def __init__(self, predictor: LengthPredictor) -> None:
        self.forecast = predictor.forecast

    def observe(self, outcome: Outcome) -> None:
        """The queue tells it."""
