"""The cheapest mix of GPUs that keeps the promises: Mélange's problem, with latency and memory.

Griggs et al. (Mélange, 2024) minimise rent over GPU types, given the throughput each reaches
within the SLO. Here the same with utilization ceilings, KV memory and tensor parallelism, and the
answer is put to the test: a fleet is bought on paper, tried (by simulation, if the caller says
how), and where the promise breaks the ceilings come down and it is bought again.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace

from router.domain.errors import InfeasiblePlanError, SolverError
from router.domain.fleet import BackendSpec, Fleet
from router.perf.hardware import Hardware
from solver.answer import Plan
from solver.capacity import Believed
from solver.offers import Offer, bought, market
from solver.options import Limits, Weights
from solver.plan import plan_stock
from solver.search import Clock
from solver.stock import Stock
from solver.workload import Workload

BUY = Weights(latency=1e-3, cost=1.0, switching=0.0, unserved=1e5)
"""Rent decides; among fleets of equal rent, delay does."""
TIGHTEN = 0.85
MOST_ROUNDS = 6


@dataclass(frozen=True, slots=True)
class Verdict:
    """What trying a fleet showed.

    Attributes:
        attainment: share of requests that met all their targets.
        text: in words.
    """

    attainment: float
    text: str


Trial = Callable[[Fleet], Verdict]


@dataclass(frozen=True, slots=True)
class Attempt:
    """One fleet bought on paper.

    Attributes:
        plan: what was bought, and its routing.
        fleet: as a fleet file would list it.
        slack: the ceilings' factor; 1 at first.
        verdict: what trying it showed; ``None`` if it was not tried.
    """

    plan: Plan
    fleet: Fleet
    slack: float
    verdict: Verdict | None


@dataclass(frozen=True, slots=True)
class Purchase:
    """The outcome.

    Attributes:
        attempts: in order; the last is the answer.
        kept: whether the last one keeps the promise; always true without a trial.
        alone: rent of the cheapest fleet of each single GPU type; ``None`` where none can serve.
    """

    attempts: tuple[Attempt, ...]
    kept: bool
    alone: dict[str, float | None]

    @property
    def best(self) -> Attempt:
        """The answer."""
        return self.attempts[-1]

    @property
    def saved(self) -> float | None:
        """Share of the rent saved against the cheapest single type; ``None`` if none can serve.

        Compared before tightening: single types are not tried.
        """
        single = [rent for rent in self.alone.values() if rent is not None]
        if not single:
            return None
        least = min(single)
        return 1.0 - self.attempts[0].plan.cost_usd_per_hour / least if least else 0.0


def buy(
    workload: Workload,
    offers: Sequence[Offer],
    limits: Limits | None = None,
    *,
    hardware: Hardware | None = None,
    templates: Sequence[BackendSpec] = (),
    trial: Trial | None = None,
    believed: Believed | None = None,
    target: float = 0.99,
    compare: bool = True,
    clock: Clock = time.perf_counter,
) -> Purchase:
    """Choose the cheapest fleet.

    Args:
        workload: demand.
        offers: what can be rented, at which price.
        limits: what to respect; the prices are the offers'.
        hardware: the catalogue, with the user's own models and measurements.
        templates: backends whose weight format and context limit their model keeps.
        trial: tries a fleet; ``None`` trusts the plan.
        believed: iteration times by group, where they differ from the catalogue's.
        target: attainment that a trial must show.
        compare: also price every single GPU type.
        clock: seconds; only differences matter.

    Raises:
        InfeasiblePlanError: no fleet from these offers can serve the workload.
        WorkloadError, SolverError: as ``plan``.
    """
    known = hardware or Hardware()
    rents = {offer.gpu: offer.usd_per_hour for offer in offers}
    chosen = replace(limits or Limits(), prices_usd_per_hour=rents)
    attempts: list[Attempt] = []
    slack, kept = 1.0, False
    while not kept and len(attempts) < MOST_ROUNDS:
        tightened = replace(chosen, ceilings=tuple(rho * slack for rho in chosen.ceilings))
        stock = market(offers, workload.models, known, templates)
        found = plan_stock(workload, stock, BUY, tightened, believed=believed, clock=clock)
        fleet = bought(stock, {one.group: one.replicas for one in found.replicas})
        verdict = trial(fleet) if trial else None
        attempts.append(Attempt(found, fleet, slack, verdict))
        kept = verdict is None or verdict.attainment >= target
        slack *= TIGHTEN
    whole = market(offers, workload.models, known, templates)
    alone = _alone(workload, whole, chosen, believed) if compare else {}
    return Purchase(tuple(attempts), kept, alone)


def _alone(
    workload: Workload,
    whole: Stock,
    limits: Limits,
    believed: Believed | None,
) -> dict[str, float | None]:
    """Rent with a single GPU type, each under the same promises as the mix.

    The others stay on the market with none to be had: a target that nobody on it meets is loosened
    for all alike, and one that another type would meet is not.
    """
    found: dict[str, float | None] = {}
    for at, offered in enumerate(whole.pools):
        pools = tuple(
            pool if n == at else replace(pool, islands=dict.fromkeys(pool.islands, 0))
            for n, pool in enumerate(whole.pools)
        )
        stock = replace(whole, pools=pools)
        try:
            alone = plan_stock(workload, stock, BUY, limits, believed=believed)
            found[offered.gpu] = alone.cost_usd_per_hour
        except (InfeasiblePlanError, SolverError):
            found[offered.gpu] = None
    return found
