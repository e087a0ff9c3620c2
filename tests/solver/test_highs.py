"""The solver's door: answers are checked, and no answer is not an answer of zeros."""

from __future__ import annotations

import subprocess
import sys

import numpy as np
import pytest
from scipy import sparse

from router.domain.errors import SolverError
from solver.highs import Highs
from solver.standard import StandardForm


def _cover(*, integer: bool) -> StandardForm:
    """Minimise x + y over 2x + y >= 3, x <= 1: (1, 1), or (1.5 bound by 1, 1)."""
    return StandardForm(
        cost=np.array([1.0, 1.0]),
        offset=10.0,
        matrix=sparse.csc_matrix(np.array([[2.0, 1.0]])),
        row_lower=np.array([3.0]),
        row_upper=np.array([np.inf]),
        lower=np.zeros(2),
        upper=np.array([1.0, np.inf]),
        integers=np.full(2, integer),
        columns={"x": slice(0, 1), "y": slice(1, 2)},
        rows={"cover": slice(0, 1)},
    )


@pytest.mark.parametrize("integer", [False, True])
def test_the_optimum_comes_with_its_bound_and_offset(integer: bool) -> None:
    answer = Highs(_cover(integer=integer)).solve(time_limit_s=10)
    assert answer.status == "optimal"
    assert answer.objective == pytest.approx(12.0)
    assert answer.bound == pytest.approx(12.0)
    assert answer.gap == pytest.approx(0.0)
    assert answer.x == pytest.approx([1.0, 1.0])


def test_duals_say_what_a_right_hand_side_is_worth() -> None:
    answer = Highs(_cover(integer=False)).solve(time_limit_s=10)
    assert answer.duals == pytest.approx([1.0])


def test_relaxing_integers_gives_a_lower_bound() -> None:
    form = _cover(integer=True).bounded("x", np.array([0.0]), np.array([0.6]))
    assert Highs(form).solve(time_limit_s=10).objective == pytest.approx(13.0)
    assert Highs(form, relaxed=True).solve(time_limit_s=10).objective == pytest.approx(12.4)


def test_bounds_can_be_moved_between_solves() -> None:
    solver = Highs(_cover(integer=False))
    assert solver.solve(time_limit_s=10).objective == pytest.approx(12.0)
    solver.bound("x", np.array([0.0]), np.array([0.0]))
    assert solver.solve(time_limit_s=10).objective == pytest.approx(13.0)


def test_an_infeasible_problem_is_told_apart_from_a_late_answer() -> None:
    form = _cover(integer=True).bounded("y", np.array([0.0]), np.array([0.0]))
    answer = Highs(form).solve(time_limit_s=10)
    assert answer.status == "infeasible"
    assert not answer.usable
    assert answer.gap == float("inf")


def test_no_time_is_no_answer_not_zeros() -> None:
    answer = Highs(_cover(integer=True)).solve(time_limit_s=0.0)
    assert answer.status == "none"
    assert len(answer.x) == 0


def test_a_point_that_satisfies_nothing_is_not_believed(monkeypatch: pytest.MonkeyPatch) -> None:
    """HiGHS can return all zeros at its time limit; they break the cover row."""
    solver = Highs(_cover(integer=True))
    real = solver._solver

    class Zeros:
        col_value = (0.0, 0.0)
        row_dual = (0.0,)
        col_dual = (0.0, 0.0)

    class Lying:
        def __getattr__(self, name: str) -> object:
            return getattr(real, name)

    Lying.getSolution = lambda self: Zeros()  # type: ignore[attr-defined]
    monkeypatch.setattr(solver, "_solver", Lying())
    assert solver.solve(time_limit_s=10).status == "none"


def test_a_missing_solver_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "highspy", None)
    with pytest.raises(SolverError, match="pip install highspy"):
        Highs(_cover(integer=False))


def test_row_violation_is_relative_to_the_terms() -> None:
    form = _cover(integer=False)
    assert form.row_violation(np.array([1.0, 1.0])) == 0.0
    assert form.row_violation(np.array([0.0, 0.0])) == pytest.approx(3.0)
    assert form.row_violation(np.array([0.0, 2.0])) == pytest.approx(1 / 3)


def test_it_says_nothing_on_stdout() -> None:
    """HiGHS writes past Python; only another process sees what it wrote."""
    code = (
        "from tests.solver.tiny import *\n"
        "from solver.plan import plan\n"
        "plan(demand(work(1.0)), fleet(backends('a100-80', 1)))\n"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == ""
