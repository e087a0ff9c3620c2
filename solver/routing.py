"""Shares and prices over a given placement: the linear program whose duals the router uses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from router.domain.errors import SolverError
from solver.check import broken_routing
from solver.highs import Highs
from solver.options import Weights
from solver.points import STEEPEST, tangents
from solver.problem import Column, Floats, Ints, Problem
from solver.standard import StandardForm

if TYPE_CHECKING:
    from solver.model import Model


@dataclass(frozen=True, slots=True)
class Routing:
    """Flows over the columns that have replicas.

    Attributes:
        problem: reduced to those columns.
        replicas: (J,) of each.
        objective: requests in the system, the rest converted.
        flow: (E,) requests per second.
        unserved: (C,) requests per second turned away.
        load: (J,) engine-seconds per second, of all replicas of the column.
        load_price: (J,) seconds of delay per engine-second.
        kv_price: (J,) seconds of delay per second of one replica's whole KV memory.
        replica_worth: (J,) by how much the objective falls per replica, to first order; its rent
            and power are left out.
    """

    problem: Problem
    replicas: Ints
    objective: float
    flow: Floats
    unserved: Floats
    load: Floats
    load_price: Floats
    kv_price: Floats
    replica_worth: Floats

    @property
    def utilization(self) -> Floats:
        """(J,) mean utilization of each column's replicas."""
        return self.load / self.replicas

    @property
    def requests_in_system(self) -> float:
        """Mean requests in the system: delay alone, whatever else is weighed.

        Beyond a utilization of ``STEEPEST`` the queue grows for as long as the load lasts; what
        is counted then is the tangent there, as in the objective.
        """
        alone = float(self.problem.alone_s @ self.flow)
        return alone + sum(
            float(count) * _extra(column, load / count)
            for column, load, count in zip(
                self.problem.columns, self.load.tolist(), self.replicas.tolist(), strict=True
            )
        )

    @property
    def e2e_s(self) -> float:
        """Mean E2E of the requests that are served, by Little's law; 0 without any."""
        served = float(self.flow.sum())
        return self.requests_in_system / served if served > 0 else 0.0


def _extra(column: Column, rho: float) -> float:
    kept = min(rho, STEEPEST)
    return column.congestion.extra(kept) + column.congestion.slope(kept) * (rho - kept)


def occupied(problem: Problem, replicas: Ints) -> tuple[Problem, Ints]:
    """The problem reduced to the columns that have replicas, and their counts."""
    kept = np.flatnonzero(replicas > 0)
    place = np.full(len(problem.columns), -1, dtype=np.int64)
    place[kept] = np.arange(len(kept))
    edges = place[problem.edge_column] >= 0
    reduced = replace(
        problem,
        columns=tuple(problem.columns[j] for j in kept),
        edge_class=problem.edge_class[edges],
        edge_column=place[problem.edge_column[edges]],
        engine_s=problem.engine_s[edges],
        alone_s=problem.alone_s[edges],
        kv_share=problem.kv_share[edges],
    )
    return reduced, replicas[kept]


def state(problem: Problem, *, placing: bool) -> Model:
    """State a problem on CVXPY; slow the first time, because CVXPY is imported then.

    Raises:
        SolverError: CVXPY is missing.
    """
    try:
        from solver.model import Model as NewModel  # noqa: PLC0415 - imports CVXPY: seconds
    except ImportError as error:
        raise SolverError(f"the planner needs CVXPY: pip install cvxpy ({error})") from error
    return NewModel(problem, placing=placing)


def route(
    problem: Problem,
    replicas: Ints,
    weights: Weights,
    *,
    soft: bool = False,
    model: Model | None = None,
    time_limit_s: float = 30.0,
) -> tuple[Routing, Model]:
    """Split every class over the replicas, and price them.

    Args:
        problem: reduced to columns with replicas (see ``occupied``).
        replicas: (J,) of each column, at least 1.
        weights: exchange rates.
        soft: let load and KV exceed their ceilings, as live traffic does.
        model: of an earlier call, reused if the shape is the same.
        time_limit_s: for the linear program.

    Returns:
        The routing, and the model to hand in next time.

    Raises:
        SolverError: no usable answer.
    """
    if model is None or not model.fits(problem):
        model = state(problem, placing=False)
    form = model.fill(problem, weights, replicas=replicas, soft=soft)
    solver = Highs(form)
    if model.solver is not None:
        solver.follow(model.solver)
    answer = solver.solve(time_limit_s=time_limit_s)
    if not answer.usable:
        model.solver = None
        raise SolverError(f"the routing problem has no usable answer: {answer.status}")
    model.solver = solver
    flow, unserved = answer.x[form.columns["flow"]], answer.x[form.columns["unserved"]]
    wrong = broken_routing(problem, model.shape, flow, unserved)
    if wrong:
        raise SolverError(f"the solver's shares do not add up for {', '.join(wrong)}")
    routing = Routing(
        problem,
        replicas,
        answer.objective,
        np.maximum(flow, 0.0),
        np.maximum(unserved, 0.0),
        np.maximum(answer.x[form.columns["load"]], 0.0),
        # Rows read "brought <= load": one more engine-second is one less on the right-hand side.
        np.maximum(-answer.duals[form.rows["load"]], 0.0),
        np.maximum(-answer.duals[form.rows["kv"]], 0.0),
        _replica_worth(problem, form, answer.duals, soft=soft),
    )
    return routing, model


def _replica_worth(problem: Problem, form: StandardForm, duals: Floats, *, soft: bool) -> Floats:
    """Derivative of the objective by the replicas that stand in the right-hand sides, negated."""
    columns = len(problem.columns)
    _, intercepts = tangents(problem, placing=False)
    at_tangents = duals[form.rows["congestion"]] * intercepts
    worth = at_tangents.reshape(columns, -1).sum(axis=1)
    worth -= duals[form.rows["kv"]] * problem.limits.kv_ceiling
    if not soft:
        ceilings = np.array([column.ceiling for column in problem.columns])
        worth -= duals[form.rows["ceiling"]] * ceilings
    return np.asarray(worth)


def shares_of(routing: Routing) -> list[tuple[int, str | None, float]]:
    """(class, group or ``None`` for turned away, share) of every class with demand (I7)."""
    problem = routing.problem
    rates = problem.rates
    totals: dict[tuple[int, str], float] = {}
    for e, flow in enumerate(routing.flow):
        base = problem.bases[problem.columns[problem.edge_column[e]].base]
        key = int(problem.edge_class[e]), base.group
        totals[key] = totals.get(key, 0.0) + float(flow)
    found: list[tuple[int, str | None, float]] = []
    for (c, group), flow in sorted(totals.items()):
        if rates[c] > 0 and flow > 1e-9 * rates[c]:
            found.append((c, group, flow / float(rates[c])))
    for c, away in enumerate(routing.unserved.tolist()):
        if rates[c] > 0 and away > 1e-9 * rates[c]:
            found.append((c, None, away / float(rates[c])))
    return sorted(found, key=lambda row: (row[0], row[1] or "~"))


def columns_by_group(routing: Routing) -> dict[str, Sequence[int]]:
    """Columns of each group, which differ in their ceilings only."""
    found: dict[str, list[int]] = {}
    for j, column in enumerate(routing.problem.columns):
        found.setdefault(routing.problem.bases[column.base].group, []).append(j)
    return dict(found)
