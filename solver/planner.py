"""Prices that roll along with the traffic: the ``Planner`` of the live router and the simulator.

When serving, the placement is fixed, so each round solves the routing problem only, which takes
milliseconds. A round that fails keeps the prices of the last one that did not; once those are
stale there are none, and the policy decides by what it sees.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, Literal, Protocol

from router.domain.errors import MotleyError
from router.domain.fleet import BackendSpec, Fleet
from router.domain.outcome import Outcome
from router.domain.state import LinearCost
from router.perf.hardware import Hardware
from solver.answer import Price, Share
from solver.assemble import build_problem
from solver.believed import believed_models
from solver.options import Limits, Weights
from solver.prices import prices_of
from solver.routing import occupied, route, shares_of
from solver.search import Clock
from solver.stock import stock_of
from solver.workload import WorkClass, Workload, one_tenant_group, workload_from_outcomes

if TYPE_CHECKING:
    from solver.model import Model

Costs = Callable[[BackendSpec], LinearCost | None]
Kind = Literal["pooled", "toll", "dual"]


class PlannerSettings(Protocol):
    """The ``planner`` section of the fleet file."""

    @property
    def interval_s(self) -> float:
        """Seconds between rounds."""

    @property
    def window_s(self) -> float:
        """Seconds of traffic that a round looks back on."""

    @property
    def weights(self) -> Mapping[str, float]:
        """Exchange rates that differ from the defaults."""


@dataclass(frozen=True, slots=True)
class Round:
    """One plan of the rolling planner.

    Attributes:
        at_s: when, on the caller's clock.
        solve_s: how long it took.
        workload: the demand it was made for.
        objective: requests in the system, the rest converted.
        e2e_s: mean E2E that it expects.
        shares: of each class by group (I7).
        prices: by group.
    """

    at_s: float
    solve_s: float
    workload: Workload
    objective: float
    e2e_s: float
    shares: tuple[Share, ...]
    prices: tuple[Price, ...]

    def asked(self) -> dict[str, Any]:
        """The demand as JSON values."""
        return {
            "classes": [
                {
                    "class": work.name,
                    "rate_per_s": work.rate_per_s,
                    "prompt_tokens": work.prompt_tokens,
                    "output_tokens": work.output_tokens,
                }
                for work in self.workload.classes
                if work.rate_per_s > 0
            ]
        }

    def answered(self) -> dict[str, Any]:
        """Shares and prices as JSON values."""
        return {
            "objective": self.objective,
            "shares": [
                {"class": one.work_class, "group": one.group, "share": one.share}
                for one in self.shares
            ],
            "prices": [
                {"group": one.group, "price": one.price, "pooled": one.pooled}
                for one in self.prices
            ],
        }


class RollingPlanner:
    """Implements ``router.domain.protocols.Planner``.

    Args:
        settings: interval, window and weights.
        limits: latency targets, prices of cards, quality floors; the defaults if ``None``.
        hardware: the catalogue, with the user's own models and measurements.
        costs: what the router believes of each backend now, telemetry's corrections applied;
            ``None`` (or returning it) falls back to the catalogue.
        tenant_group: maps a tenant to the group it is planned with.
        kind: "pooled" for what a policy adds that chooses by state, "toll" for the part of the
            price that is not seen in the state of a backend, "dual" for all of it; see ``Price``.
        clock: seconds, for ``Round.solve_s``.

    Attributes:
        last: the newest round; ``None`` before the first.
        failures: rounds that failed.
        last_failure: why the newest failure happened; empty if none did.
    """

    def __init__(
        self,
        settings: PlannerSettings,
        *,
        limits: Limits | None = None,
        hardware: Hardware | None = None,
        costs: Costs | None = None,
        tenant_group: Callable[[str], str] = one_tenant_group,
        kind: Kind = "pooled",
        clock: Clock = time.perf_counter,
    ) -> None:
        self._weights = Weights.from_mapping(dict(settings.weights))
        self._window_s = settings.window_s
        # Prices that missed three rounds describe another load.
        self._stale_s = 3.0 * settings.interval_s
        self._limits = limits or Limits()
        self._tenant_group = tenant_group
        self._hardware = hardware or Hardware()
        self._costs = costs
        self._kind = kind
        self._clock = clock
        self._model: Model | None = None
        self._known: dict[str, WorkClass] = {}
        self.last: Round | None = None
        self.failures = 0
        self.last_failure = ""

    def prices(
        self, demand: Sequence[Outcome], fleet: Sequence[BackendSpec], now: float
    ) -> Mapping[str, float]:
        """Price of one engine-second by group, in seconds of delay.

        Never raises for what traffic or solver do: a failed round is counted, and the last
        good prices stay until they are stale.
        """
        recent = [outcome for outcome in demand if outcome.finished_s > now - self._window_s]
        if not recent:
            return {}  # nobody is delayed by anybody
        try:
            self.last = self.replan(recent, fleet, now)
        except MotleyError as error:
            self.failures += 1
            self.last_failure = str(error)
        if self.last is None or now - self.last.at_s > self._stale_s:
            return {}
        return {price.group: self._of(price) for price in self.last.prices}

    def replan(self, demand: Sequence[Outcome], fleet: Sequence[BackendSpec], now: float) -> Round:
        """One round over the demand of a window that ends now.

        Raises:
            WorkloadError: no demand for these backends, or an SLO class that is not defined.
            SolverError: no usable answer.
        """
        began = self._clock()
        workload = self._workload(demand, fleet, now)
        stock = stock_of(Fleet(tuple(fleet)), hardware=self._hardware, movable=False)
        believed = believed_models(fleet, self._costs) if self._costs is not None else {}
        problem = build_problem(workload, stock, self._limits, believed=believed, tiered=False)
        counts = problem.running[[column.base for column in problem.columns]]
        reduced, replicas = occupied(problem, counts)
        routing, self._model = route(reduced, replicas, self._weights, soft=True, model=self._model)
        return Round(
            now,
            self._clock() - began,
            workload,
            routing.objective,
            routing.e2e_s,
            tuple(
                Share(workload.classes[c].name, group, share)
                for c, group, share in shares_of(routing)
            ),
            prices_of(routing),
        )

    def _of(self, price: Price) -> float:
        if self._kind == "pooled":
            return price.pooled
        return price.toll + price.kv if self._kind == "toll" else price.price

    def _workload(
        self, demand: Sequence[Outcome], fleet: Sequence[BackendSpec], now: float
    ) -> Workload:
        """Demand of the window; classes seen before stay, at rate 0, so that the shape does."""
        served = {spec.model for spec in fleet}
        recent = [outcome for outcome in demand if outcome.model in served]
        first_s = min((outcome.arrival_s for outcome in recent), default=now)
        duration_s = max(1.0, min(self._window_s, now - first_s))
        fresh = workload_from_outcomes(
            recent, duration_s=duration_s, tenant_group=self._tenant_group
        )
        current = {work.name: work for work in fresh.classes}
        if len(self._known.keys() | current.keys()) > _MOST_KNOWN:
            self._known = {}
        silent = {
            name: replace(work, rate_per_s=0.0)
            for name, work in self._known.items()
            if name not in current and work.model in served
        }
        self._known = {**silent, **current}
        return Workload(tuple(self._known[name] for name in sorted(self._known)))


_MOST_KNOWN = 100
"""Classes kept in mind; beyond, the silent ones are forgotten and the problem is stated anew."""
