"""The statement of the ILP: disciplined, stated once, the same by CVXPY's own solver call."""

from __future__ import annotations

from dataclasses import replace

import cvxpy as cp
import numpy as np
import pytest

from router.domain.errors import SolverError
from solver.assemble import build_problem
from solver.highs import Highs
from solver.model import Model, standard_form
from solver.options import Limits, Weights
from solver.problem import Ints, Problem
from solver.stock import stock_of
from tests.solver.tiny import backends, demand, fleet, work

MIXED = fleet(backends("a100-80", 2, zone="a"), backends("a100-80", 2, zone="b"))


def _problem(rate: float = 5.0, **limits: object) -> Problem:
    chosen = Limits(**limits)  # type: ignore[arg-type]
    classes = demand(work(rate), work(1.0, prompt=3000, tenant="x"))
    return build_problem(classes, stock_of(MIXED), chosen)


EVERY_RULE = {"budget_usd_per_hour": 12.0, "max_moves": 3, "max_zone_share": 0.6}


@pytest.mark.parametrize("placing", [True, False])
def test_parameters_change_without_stating_anew(placing: bool) -> None:
    """Disciplined parametrized programming: CVXPY's own test for it."""
    model = Model(_problem(**EVERY_RULE), placing=placing)
    assert model.statement.is_dcp(dpp=True)


def test_every_rule_that_is_asked_for_is_stated() -> None:
    form = Model(_problem(**EVERY_RULE), placing=True).fill(_problem(**EVERY_RULE), Weights())
    assert {"stock", "ready", "starts", "moves", "budget", "zones", "load", "kv"} <= set(form.rows)
    rows = sorted((place.start, place.stop) for place in form.rows.values())
    assert rows[0][0] == 0
    assert all(a[1] == b[0] for a, b in zip(rows, rows[1:], strict=False))  # noqa: RUF007
    assert rows[-1][1] == form.matrix.shape[0]


def test_the_arrays_are_the_statement() -> None:
    """HiGHS on our arrays and CVXPY's own call to it give the same optimum."""
    given = _problem()
    model = Model(given, placing=True)
    form = model.fill(given, Weights())
    ours = Highs(form).solve(time_limit_s=30, gap=1e-7)
    model.statement.solve(solver=cp.HIGHS, mip_rel_gap=1e-7)
    assert ours.objective == pytest.approx(model.statement.value, rel=1e-6)


def test_duals_are_those_of_cvxpy() -> None:
    given = _problem()
    counts: Ints = np.ones(len(given.columns), dtype=np.int64)
    model = Model(given, placing=False)
    form = model.fill(given, Weights(), replicas=counts)
    ours = Highs(form).solve(time_limit_s=30)
    model.statement.solve(solver=cp.HIGHS)
    theirs = model._rules["load"].dual_value
    assert -ours.duals[form.rows["load"]] == pytest.approx(theirs, abs=1e-6)


def test_a_problem_of_another_shape_is_told_apart() -> None:
    model = Model(_problem(), placing=True)
    assert model.fits(_problem(rate=9.0))
    assert not model.fits(_problem(budget_usd_per_hour=5.0))
    assert not model.fits(_problem(max_zone_share=0.5))
    fewer = build_problem(demand(work()), stock_of(MIXED), Limits())
    assert not model.fits(fewer)


def test_new_cards_in_stock_are_new_numbers_only() -> None:
    given = _problem()
    pools = tuple(replace(pool, islands={1: 7}) for pool in given.stock.pools)
    grown = replace(given, stock=replace(given.stock, pools=pools))
    model = Model(given, placing=True)
    assert model.fits(grown)
    form = model.fill(grown, Weights())
    assert form.row_upper[form.rows["stock"]] == pytest.approx([7.0, 7.0])
    assert form.upper[form.columns["replicas"]] == pytest.approx([7.0] * len(given.columns))


def test_a_missing_solver_is_told_with_the_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    variable = cp.Variable(nonneg=True)
    statement = cp.Problem(cp.Minimize(variable), [variable >= 1])

    def unknown(*_: object, **__: object) -> None:
        raise cp.error.SolverError("HIGHS is not installed")

    monkeypatch.setattr(statement, "get_problem_data", unknown)
    with pytest.raises(SolverError, match="pip install highspy"):
        standard_form(statement, {}, {})
