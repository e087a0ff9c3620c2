"""The rolling plan beside the live gateway: demand in, prices out, every so often.

The solver runs in a thread, so that a round never holds up a request; what it reads is a
snapshot, taken on the event loop. Whatever becomes of a round, prices that are too old are taken
out of force by the event loop itself: then the policy decides by what it sees.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter, deque
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from router.config.planner import PlannerSection
from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome
from router.domain.protocols import Planner
from router.domain.state import LinearCost
from router.gateway.engine import Engine
from router.gateway.sane_prices import sane
from solver.triggers import TICK_S, Reason, Triggers, serving

log = logging.getLogger("motley.planner")

MOST_OUTCOMES = 50_000
"""At more traffic the window is shorter, and still says enough."""
STALE_AFTER_ROUNDS = 3.0
"""Prices that missed so many rounds describe another load."""

Costs = Callable[[BackendSpec], LinearCost | None]


class PlannedRound(Protocol):
    """What is kept of a round; implemented by ``solver.planner.Round``."""

    @property
    def at_s(self) -> float:
        """When."""

    @property
    def solve_s(self) -> float:
        """How long it took."""

    @property
    def e2e_s(self) -> float:
        """Mean E2E that it expects."""

    def asked(self) -> dict[str, Any]:
        """What it was made for, as JSON values."""

    def answered(self) -> dict[str, Any]:
        """What it found, as JSON values."""


class ReportingPlanner(Planner, Protocol):
    """A planner that counts its failed rounds; implemented by ``solver.planner``."""

    failures: int
    last_failure: str

    @property
    def last(self) -> PlannedRound | None:
        """The newest round that did not fail."""


MakePlanner = Callable[[Costs], ReportingPlanner]
"""Builds the planner from what the router believes of each backend; the import is slow."""


class Demand:
    """An ``Observer`` that keeps the outcomes of a window."""

    def __init__(self, window_s: float) -> None:
        self.window_s = window_s
        self._outcomes: deque[Outcome] = deque(maxlen=MOST_OUTCOMES)

    def observe(self, outcome: Outcome) -> None:
        """Take note of one finished attempt."""
        self._outcomes.append(outcome)

    def recent(self, now: float) -> list[Outcome]:
        """What finished within the window."""
        while self._outcomes and self._outcomes[0].finished_s <= now - self.window_s:
            self._outcomes.popleft()
        return list(self._outcomes)


@dataclass(frozen=True, slots=True)
class Finished:
    """One round that is over, for whoever keeps a history.

    Attributes:
        reason: why it was made.
        fleet: engines it was made for, by group.
        round: what it found; ``None`` if it failed.
        failure: why it failed, or empty.
        prices: that came into force, by group.
        actual_e2e_s: mean E2E of the requests completed since the round before; ``None``
            without any. To be held against what that round expected.
    """

    reason: str
    fleet: Mapping[str, int]
    round: PlannedRound | None
    failure: str
    prices: Mapping[str, float]
    actual_e2e_s: float | None


Listener = Callable[[Finished], None]


class Planning:
    """Asks the planner for prices and hands them to the dispatcher.

    Args:
        engine: its dispatcher gets the prices.
        settings: the ``planner`` section.
        demand: what traffic there has been.
        make_planner: called once, in the planner's thread, and again after ``reconfigure``.
        listener: told of every finished round, on the event loop.

    Attributes:
        rounds: finished rounds by outcome, "ok" and "failed".
        expected_e2e_s, actual_e2e_s: of the last round that could be compared.
        on_drift: to be called when a backend has changed its speed.
    """

    def __init__(
        self,
        engine: Engine,
        settings: PlannerSection,
        demand: Demand,
        make_planner: MakePlanner,
        listener: Listener | None = None,
    ) -> None:
        self._engine = engine
        self._demand = demand
        self._listener = listener
        self._costs: dict[str, LinearCost] = {}
        self._task: asyncio.Task[dict[str, float]] | None = None
        self._fresh_s: float | None = None
        self._expected_s: float | None = None
        self.rounds: Counter[str] = Counter()
        self.expected_e2e_s: float | None = None
        self.actual_e2e_s: float | None = None
        self.on_drift: list[Callable[[], None]] = [self._drifted]
        self.reconfigure(settings, make_planner)

    def reconfigure(self, settings: PlannerSection, make_planner: MakePlanner) -> None:
        """Plan by other settings from the next round on."""
        self._interval_s = settings.interval_s
        self._make_planner = make_planner
        self._planner: ReportingPlanner | None = None
        self._failures = 0
        self.triggers = Triggers(settings.interval_s)

    @property
    def age_s(self) -> float | None:
        """Age of the prices in force; ``None`` if there are none."""
        return None if self._fresh_s is None else self._engine.now() - self._fresh_s

    @property
    def solve_s(self) -> float | None:
        """How long the newest good round took; ``None`` before the first."""
        last = self._planner.last if self._planner is not None else None
        return None if last is None else last.solve_s

    @property
    def last(self) -> PlannedRound | None:
        """The newest good round."""
        return self._planner.last if self._planner is not None else None

    @property
    def failures(self) -> int:
        """Rounds that failed since these settings came into force."""
        return self._planner.failures if self._planner is not None else 0

    @property
    def last_failure(self) -> str:
        """Why the newest of them did."""
        return self._planner.last_failure if self._planner is not None else ""

    @property
    def interval_s(self) -> float:
        """Seconds between rounds."""
        return self._interval_s

    def _drifted(self) -> None:
        self.triggers.drifted()

    async def run(self) -> None:
        """Plan for ever."""
        while True:
            await asyncio.sleep(min(TICK_S, self._interval_s))
            self.tick()

    def tick(self) -> None:
        """Take stale prices out of force, and begin a round if one is due and none is running."""
        self._expire()
        if self._task is not None and not self._task.done():
            return
        now = self._engine.now()
        usable = (b.spec.name for b in self._engine.dispatcher.state.backends if b.usable)
        reason = self.triggers.due(now, frozenset(usable))
        if reason is not None:
            self._task = self._begin(reason)

    async def plan_once(self, reason: Reason = "period") -> None:
        """One round from beginning to end: snapshot, solve, apply."""
        self._task = self._begin(reason)
        await asyncio.wait([self._task])
        await asyncio.sleep(0)  # its callback comes after it

    def _begin(self, reason: Reason) -> asyncio.Task[dict[str, float]]:
        engine = self._engine
        backends = serving(engine.dispatcher.state.backends)
        self._costs = {backend.spec.name: backend.cost for backend in backends}
        now = engine.now()
        fleet = [backend.spec for backend in backends]
        demand = self._demand.recent(now)
        make = self._make_planner
        task = asyncio.create_task(asyncio.to_thread(self._solve, make, demand, fleet, now))
        groups = Counter(spec.group for spec in fleet)
        task.add_done_callback(lambda done: self._finish(done, reason, groups, demand))
        return task

    def _solve(
        self, make: MakePlanner, demand: Sequence[Outcome], fleet: Sequence[BackendSpec], now: float
    ) -> dict[str, float]:
        """Runs in a thread; touches nothing but its arguments and the snapshot."""
        planner = self._planner
        if planner is None:
            planner = make(lambda spec: self._costs.get(spec.name))
            if make is self._make_planner:  # not reconfigured in the meantime
                self._planner = planner
        return sane(planner.prices(demand, fleet, now))

    def _finish(
        self,
        task: asyncio.Task[dict[str, float]],
        reason: Reason,
        fleet: Mapping[str, int],
        demand: Sequence[Outcome],
    ) -> None:
        """Apply what a round found; a round that failed leaves everything as it was."""
        if task.cancelled():
            return
        broken = task.exception()
        failure = f"{type(broken).__name__}: {broken}" if broken is not None else self._failure()
        self.rounds["failed" if failure else "ok"] += 1
        before_s = self._fresh_s
        if failure:
            log.warning("this round failed, older prices stay: %s", failure)
        if broken is None:
            self._apply(task.result(), failed=bool(failure))
        last = self._planner.last if self._planner is not None and not failure else None
        actual_s = _mean_e2e_s(demand, before_s)
        if actual_s is not None and self._expected_s is not None:
            self.expected_e2e_s, self.actual_e2e_s = self._expected_s, actual_s
        self._expected_s = last.e2e_s if last is not None else None
        if self._listener is not None:
            prices = task.result() if broken is None else {}
            self._listener(Finished(reason, fleet, last, failure, prices, actual_s))

    def _failure(self) -> str:
        """Why the planner says that this round failed; empty if it did not."""
        planner = self._planner
        if planner is None or planner.failures <= self._failures:
            return ""
        self._failures = planner.failures
        return planner.last_failure

    def _apply(self, prices: Mapping[str, float], *, failed: bool) -> None:
        engine = self._engine
        if not failed:
            self._fresh_s = engine.now() if prices else None
        engine.dispatcher.set_prices(prices, engine.now())
        engine.poke()

    def _expire(self) -> None:
        age_s = self.age_s
        if age_s is not None and age_s > STALE_AFTER_ROUNDS * self._interval_s:
            log.warning("no fresh plan for %.0f s: the policy decides alone", age_s)
            self._fresh_s = None
            self._engine.dispatcher.set_prices({}, self._engine.now())
            self._engine.poke()


def _mean_e2e_s(demand: Sequence[Outcome], since_s: float | None) -> float | None:
    done = [
        outcome.e2e_s
        for outcome in demand
        if outcome.status == "completed" and since_s is not None and outcome.finished_s > since_s
    ]
    return sum(done) / len(done) if done else None
