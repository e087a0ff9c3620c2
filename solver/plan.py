"""The whole way: demand and fleet in; replicas, shares and prices out."""

from __future__ import annotations

import time
from collections.abc import Mapping

import numpy as np

from router.domain.errors import InfeasiblePlanError
from router.domain.fleet import Fleet
from router.perf.hardware import Hardware
from solver.answer import Plan, ReplicaCount, Share
from solver.assemble import build_problem
from solver.capacity import Believed
from solver.check import dollars_per_hour
from solver.options import Limits, Weights
from solver.place import Placement, Searcher, place
from solver.prices import prices_of
from solver.problem import Floats, Ints, Problem
from solver.routing import Routing, occupied, route, shares_of
from solver.search import Clock, search
from solver.stock import Stock, stock_of
from solver.unmet import in_words
from solver.workload import Workload

_UNSERVED = 1e-6
"""Share of all requests below which being turned away is numerical noise."""


def plan(
    workload: Workload,
    fleet: Fleet,
    weights: Weights | Mapping[str, object] | None = None,
    limits: Limits | None = None,
    *,
    hardware: Hardware | None = None,
    believed: Believed | None = None,
    searcher: Searcher = search,
    clock: Clock = time.perf_counter,
) -> Plan:
    """Decide what the fleet's cards should run, and who should be sent where.

    Args:
        workload: demand by class.
        fleet: its cards are the stock, its backends the running placement.
        weights: exchange rates, or a mapping of those that differ from the defaults.
        limits: what to respect.
        hardware: the catalogue, with the user's own models and measurements.
        believed: iteration times by group, where they differ from the catalogue's.
        searcher: how to search; ``background.search_apart`` uses a process of its own.
        clock: seconds; only differences matter.

    Raises:
        WorkloadError: demand, weights or limits that make no sense.
        InfeasiblePlanError: which rule cannot be kept, by how much, and what would help.
        SolverError: HiGHS is missing, failed, or found nothing in time.
    """
    stock = stock_of(fleet, workload.models, hardware=hardware)
    return plan_stock(
        workload,
        stock,
        weights,
        limits,
        believed=believed,
        searcher=searcher,
        clock=clock,
    )


def plan_stock(
    workload: Workload,
    stock: Stock,
    weights: Weights | Mapping[str, object] | None = None,
    limits: Limits | None = None,
    *,
    believed: Believed | None = None,
    searcher: Searcher = search,
    clock: Clock = time.perf_counter,
) -> Plan:
    """As ``plan``, over any stock of cards."""
    began = clock()
    chosen = weights if isinstance(weights, Weights) else Weights.from_mapping(weights or {})
    limits = limits or Limits()
    problem = build_problem(workload, stock, limits, believed=believed)
    _check_orphans(problem)
    placement = place(problem, chosen, searcher=searcher, clock=clock)
    reduced, replicas = occupied(problem, placement.replicas)
    routing, _ = route(reduced, replicas, chosen)
    _check_overload(problem, routing.unserved, chosen)
    return _assemble(problem, placement, routing, clock() - began)


def _check_orphans(problem: Problem) -> None:
    from solver.explain import explain_orphans  # noqa: PLC0415 - imports CVXPY: seconds

    orphans = problem.orphans()
    everybody = len(orphans) == sum(work.rate_per_s > 0 for work in problem.classes)
    if orphans and (everybody or not problem.limits.allow_unserved):
        raise InfeasiblePlanError(explain_orphans(problem))


def _check_overload(problem: Problem, unserved: Floats, weights: Weights) -> None:
    from solver.explain import explain_unserved  # noqa: PLC0415 - imports CVXPY: seconds

    if unserved.sum() > _UNSERVED * problem.rates.sum() and not problem.limits.allow_unserved:
        raise InfeasiblePlanError(explain_unserved(problem, unserved, weights))


def _assemble(problem: Problem, placement: Placement, routing: Routing, solve_s: float) -> Plan:
    turned_away = float(routing.unserved.sum())
    gap = max(0.0, placement.objective - placement.bound) / max(1e-9, abs(placement.objective))
    proven = gap <= problem.limits.mip_gap + 1e-9
    notes = in_words(problem.relaxed.values())
    overloaded = turned_away > _UNSERVED * float(problem.rates.sum())
    if overloaded:
        notes.append(f"{turned_away:.3g} requests per second are turned away")
    return Plan(
        status="overloaded" if overloaded else "optimal" if proven else "feasible",
        objective=placement.objective,
        bound=placement.bound,
        replicas=replica_counts(problem, placement.replicas, routing),
        shares=tuple(
            Share(problem.classes[c].name, group, share) for c, group, share in shares_of(routing)
        ),
        prices=prices_of(routing),
        cost_usd_per_hour=dollars_per_hour(problem, placement.replicas),
        solve_s=solve_s,
        e2e_s=routing.e2e_s,
        notes=tuple(notes),
    )


def replica_counts(problem: Problem, replicas: Ints, routing: Routing) -> tuple[ReplicaCount, ...]:
    """Planned and running replicas of every group that has either."""
    base_of = np.array([column.base for column in problem.columns], dtype=np.int64)
    planned = np.bincount(base_of, replicas, len(problem.bases)).round().astype(int)
    routed_base = np.array([column.base for column in routing.problem.columns], dtype=np.int64)
    load = np.bincount(routed_base, routing.load, len(problem.bases))
    found = []
    for b, base in enumerate(problem.bases):
        count, running = int(planned[b]), base.candidate.running
        if not count and not running:
            continue
        spec = base.spec
        found.append(
            ReplicaCount(
                spec.group,
                spec.gpu,
                spec.model,
                spec.engine,
                spec.zone,
                spec.quantization,
                spec.tensor_parallel,
                count,
                running,
                float(load[b] / count) if count else 0.0,
                base.usd_per_hour * count,
            )
        )
    return tuple(found)
