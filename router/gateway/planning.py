"""The rolling plan beside the live gateway: demand in, prices out, every so often.

The solver runs in a thread, so that a round never holds up a request; what it reads is a
snapshot, taken on the event loop.
"""

from __future__ import annotations

import asyncio
import logging
from collections import deque
from collections.abc import Callable, Sequence
from typing import Protocol

from router.config.schema import PlannerSection
from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome
from router.domain.protocols import Planner
from router.domain.state import LinearCost
from router.gateway.engine import Engine

log = logging.getLogger("motley.planner")

MOST_OUTCOMES = 50_000
"""At more traffic the window is shorter, and still says enough."""

Costs = Callable[[BackendSpec], LinearCost | None]


class ReportingPlanner(Planner, Protocol):
    """A planner that counts its failed rounds; implemented by ``solver.planner``."""

    failures: int
    last_failure: str


MakePlanner = Callable[[Costs], ReportingPlanner]
"""Builds the planner from what the router believes of each backend; the import is slow."""


class Demand:
    """An ``Observer`` that keeps the outcomes of a window."""

    def __init__(self, window_s: float) -> None:
        self._window_s = window_s
        self._outcomes: deque[Outcome] = deque(maxlen=MOST_OUTCOMES)

    def observe(self, outcome: Outcome) -> None:
        """Take note of one finished attempt."""
        self._outcomes.append(outcome)

    def recent(self, now: float) -> list[Outcome]:
        """What finished within the window."""
        while self._outcomes and self._outcomes[0].finished_s <= now - self._window_s:
            self._outcomes.popleft()
        return list(self._outcomes)


class Planning:
    """Asks the planner for prices and hands them to the dispatcher.

    Args:
        engine: its dispatcher gets the prices.
        settings: the ``planner`` section.
        demand: what traffic there has been.
        make_planner: called once, in the planner's thread.
    """

    def __init__(
        self,
        engine: Engine,
        settings: PlannerSection,
        demand: Demand,
        make_planner: MakePlanner,
    ) -> None:
        self._engine = engine
        self._interval_s = settings.interval_s
        self._demand = demand
        self._make_planner = make_planner
        self._planner: ReportingPlanner | None = None
        self._failures = 0
        self._costs: dict[str, LinearCost] = {}

    async def run(self) -> None:
        """Plan for ever."""
        while True:
            await asyncio.sleep(self._interval_s)
            await self.plan_once()

    async def plan_once(self) -> None:
        """One round: snapshot, solve, apply."""
        engine = self._engine
        backends = list(engine.dispatcher.state.backends)
        self._costs = {backend.spec.name: backend.cost for backend in backends}
        now = engine.now()
        fleet = [backend.spec for backend in backends]
        prices = await asyncio.to_thread(self._solve, self._demand.recent(now), fleet, now)
        self._report()
        engine.dispatcher.set_prices(prices, engine.now())
        engine.poke()

    def _report(self) -> None:
        planner = self._planner
        if planner is not None and planner.failures > self._failures:
            self._failures = planner.failures
            log.warning("this round failed, older prices stay: %s", planner.last_failure)

    def _solve(
        self, demand: Sequence[Outcome], fleet: Sequence[BackendSpec], now: float
    ) -> dict[str, float]:
        """Runs in a thread; touches nothing but its arguments and the snapshot."""
        if self._planner is None:
            self._planner = self._make_planner(lambda spec: self._costs.get(spec.name))
        return dict(self._planner.prices(demand, fleet, now))
