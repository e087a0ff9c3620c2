"""The ILP assembled on CVXPY and turned into the plain arrays that HiGHS takes.

CVXPY states the problem and canonicalises it once; each further solve only applies new parameter
values, in milliseconds. Importing this module imports CVXPY, which takes seconds: import it where
a plan is made.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import cvxpy as cp
import numpy as np

from router.domain.errors import SolverError
from solver import constraints as rules
from solver.figures import fill
from solver.highs import Highs
from solver.incidence import Incidence, incidence
from solver.objective import total
from solver.options import Weights
from solver.problem import Ints, Problem
from solver.standard import StandardForm
from solver.terms import Numbers, Unknowns, declare_numbers, declare_unknowns


class Model:
    """One shape of problem, to place replicas or to route over a placement.

    Attributes:
        problem: what it was built from.
        shape: its incidence matrices.
        unknowns, numbers: CVXPY variables and parameters.
        solver: of the last linear program of this shape, whose basis the next one starts from.
    """

    def __init__(self, problem: Problem, *, placing: bool) -> None:
        self.problem = problem
        self.placing = placing
        self.solver: Highs | None = None
        self.shape = incidence(problem)
        self.unknowns = declare_unknowns(problem, placing=placing)
        self.numbers = declare_numbers(problem, self.shape, placing=placing)
        self._rules = rules_of(problem, self.unknowns, self.numbers, self.shape, placing=placing)
        goal = cp.Minimize(total(self.unknowns, self.numbers))
        self.statement = cp.Problem(goal, list(self._rules.values()))

    def fits(self, problem: Problem) -> bool:
        """Whether another problem has the same shape, so that only numbers change."""
        mine = self.problem
        return (
            _outline(mine) == _outline(problem)
            and np.array_equal(mine.edge_class, problem.edge_class)
            and np.array_equal(mine.edge_column, problem.edge_column)
        )

    def fill(
        self,
        problem: Problem,
        weights: Weights,
        *,
        replicas: Ints | None = None,
        soft: bool = False,
    ) -> StandardForm:
        """Set the numbers from a problem that ``fits`` and return the arrays."""
        self.problem = problem
        self.shape = incidence(problem)
        fill(self.numbers, problem, self.shape, weights, replicas=replicas, soft=soft)
        form = self.standard()
        if not self.placing:
            return form
        return form.bounded("replicas", np.zeros(len(problem.columns)), self.shape.most_replicas)

    def standard(self) -> StandardForm:
        """The arrays at the present numbers."""
        return standard_form(self.statement, self._rules, _variables(self.unknowns))


def _outline(problem: Problem) -> tuple[object, ...]:
    """Everything that is a constant, not a parameter, of the statement."""
    limits = problem.limits
    return (
        [(base.group, base.candidate.pool, base.candidate.most) for base in problem.bases],
        [column.base for column in problem.columns],
        [work.tenant for work in problem.classes],
        limits.max_moves is None,
        limits.budget_usd_per_hour is None,
        limits.max_zone_share,
    )


def rules_of(
    problem: Problem,
    unknowns: Unknowns,
    numbers: Numbers,
    shape: Incidence,
    *,
    placing: bool,
) -> dict[str, Any]:
    """The constraints that apply, by name."""
    applied = {
        "demand": rules.demand_met(unknowns, numbers, shape),
        "unserved": rules.unserved_limited(unknowns, numbers),
        "load": rules.load_defined(unknowns, numbers, shape),
        "ceiling": rules.load_capped(unknowns, numbers),
        "kv": rules.kv_capped(unknowns, numbers, shape),
        "overfull": rules.overfull_limited(unknowns, numbers),
        "congestion": rules.congestion_bounded(unknowns, numbers, problem),
        "tenants": rules.worst_tenant(unknowns, numbers, shape),
    }
    if not placing:
        return applied
    applied["stock"] = rules.stock_kept(unknowns, numbers, shape)
    applied["ready"] = rules.models_ready(unknowns, numbers, shape)
    applied["starts"] = rules.starts_counted(unknowns, numbers, shape)
    if problem.limits.max_moves is not None:
        applied["moves"] = rules.starts_limited(unknowns, numbers)
    if problem.limits.budget_usd_per_hour is not None:
        applied["budget"] = rules.budget_kept(unknowns, numbers)
    if shape.limited.shape[0]:
        applied["engines"] = rules.engines_exist(unknowns, shape)
    if shape.zones.shape[0]:
        applied["zones"] = rules.zones_spread(unknowns, shape)
    return applied


def _variables(unknowns: Unknowns) -> dict[str, Any]:
    names = ("flow", "unserved", "load", "extra", "overfull", "worst", "replicas", "started")
    found = {name: getattr(unknowns, name) for name in names}
    return {name: one for name, one in found.items() if isinstance(one, cp.Variable)}


def standard_form(
    statement: Any, constraints: Mapping[str, Any], variables: Mapping[str, Any]
) -> StandardForm:
    """Canonicalise a CVXPY problem; after the first time only its parameters are applied.

    Integer unknowns get 0 as their lower bound.

    Raises:
        SolverError: CVXPY does not know HiGHS, which means that it is not installed.
    """
    try:
        data, _, inverse = statement.get_problem_data(cp.HIGHS)
    except cp.error.SolverError as error:
        raise SolverError("the solver HiGHS is missing; install it: pip install highspy") from error
    # A plain dictionary up to CVXPY 1.8, wrapped since.
    cone = getattr(inverse[-1], "inverse_data", inverse[-1])
    equal = data["dims"].zero
    upper = data["b"].copy()
    row_lower = np.concatenate([upper[:equal], np.full(len(upper) - equal, -np.inf)])
    offset_of = data["param_prob"].var_id_to_col
    columns = {
        name: slice(offset_of[one.id], offset_of[one.id] + one.size)
        for name, one in variables.items()
    }
    integers = np.zeros(len(data["c"]), dtype=bool)
    integers[data["int_vars_idx"]] = True
    lower = _or_infinite(data["lower_bounds"], len(integers), -np.inf)
    lower[integers] = np.maximum(lower[integers], 0.0)
    return StandardForm(
        cost=data["c"],
        offset=float(cone["offset"]),
        matrix=data["A"].tocsc(),
        row_lower=row_lower,
        row_upper=upper,
        lower=lower,
        upper=_or_infinite(data["upper_bounds"], len(integers), np.inf),
        integers=integers,
        columns=columns,
        rows=_row_slices(cone, constraints),
    )


def _or_infinite(bounds: Any, size: int, value: float) -> Any:
    return np.full(size, value) if bounds is None else np.asarray(bounds, dtype=float).copy()


def _row_slices(cone: Mapping[str, Any], constraints: Mapping[str, Any]) -> dict[str, slice]:
    """Where each named constraint's rows are: CVXPY keeps their order, equalities first."""
    sizes = [(one.id, one.size) for one in (*cone["eq_constr"], *cone["other_constr"])]
    starts: dict[int, slice] = {}
    at = 0
    for identity, size in sizes:
        starts[identity] = slice(at, at + size)
        at += size
    return {name: starts[one.id] for name, one in constraints.items() if one.id in starts}
