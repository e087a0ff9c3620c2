"""HiGHS behind a small door: one model, bounds that may move, answers that were checked."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import numpy as np

from router.domain.errors import SolverError
from solver.problem import Floats
from solver.standard import StandardForm

TOLERANCE = 1e-5
"""Largest relative violation at which a point still counts as feasible."""

Status = Literal["optimal", "feasible", "infeasible", "none"]


@dataclass(frozen=True, slots=True)
class Answer:
    """What the solver found.

    Attributes:
        status: "feasible" is a checked point without proof; "none" is no usable point in time.
        objective: at ``x``; infinite without a point.
        bound: no point can be better than this.
        x: (n,) the point; empty without one.
        duals: (m,) rise of the objective per unit of each right-hand side; empty for integers.
        reduced: (n,) the same for the bounds of each unknown.
    """

    status: Status
    objective: float
    bound: float
    x: Floats
    duals: Floats
    reduced: Floats

    @property
    def usable(self) -> bool:
        """Whether there is a point."""
        return self.status in {"optimal", "feasible"}

    @property
    def gap(self) -> float:
        """Relative distance to the bound."""
        if not self.usable:
            return float("inf")
        return max(0.0, self.objective - self.bound) / max(1e-9, abs(self.objective))


_EMPTY = np.array([])


class Highs:
    """One problem held by HiGHS; solving again after moving bounds starts from the last basis."""

    def __init__(self, form: StandardForm, *, relaxed: bool = False, threads: int = 1) -> None:
        self._form = form
        self._relaxed = relaxed or not form.integers.any()
        self._lower, self._upper = form.lower.copy(), form.upper.copy()
        self._hp = _highspy()
        self._solver = _silent(self._hp)
        self._option("output_flag", False)
        self._option("threads", threads)
        self._solver.passModel(_model(self._hp, form, relaxed=self._relaxed))

    def bound(self, name: str, lower: Floats, upper: Floats) -> None:
        """Move the bounds of one unknown."""
        place = self._form.columns[name]
        index = np.arange(place.start, place.stop, dtype=np.int32)
        self._lower[place], self._upper[place] = lower, upper
        self._solver.changeColsBounds(len(index), index, self._lower[place], self._upper[place])

    def start(self, x: Floats) -> None:
        """Offer a point to start from."""
        solution = self._hp.HighsSolution()
        solution.col_value = x.tolist()
        self._solver.setSolution(solution)

    def follow(self, earlier: Highs) -> None:
        """Start from the final basis of an earlier problem of the same shape (LPs only)."""
        self._solver.setBasis(earlier._solver.getBasis())

    def solve(self, *, time_limit_s: float, gap: float = 1e-4) -> Answer:
        """Solve within a time limit.

        Raises:
            SolverError: HiGHS failed outright.
        """
        if time_limit_s <= 0:
            return self._nothing("none")
        # HiGHS counts the limit from the model's first run, not from this one.
        self._option("time_limit", float(self._solver.getRunTime() + time_limit_s))
        self._option("mip_rel_gap", gap)
        self._solver.run()
        return self._answer()

    def _answer(self) -> Answer:
        outcome = self._solver.getModelStatus()
        kinds = self._hp.HighsModelStatus
        if outcome in {kinds.kInfeasible, kinds.kUnboundedOrInfeasible}:
            return self._nothing("infeasible")
        if outcome in {kinds.kModelError, kinds.kSolveError, kinds.kPresolveError, kinds.kNotset}:
            raise SolverError(f"HiGHS failed: {self._solver.modelStatusToString(outcome)}")
        info = self._solver.getInfo()
        solution = self._solver.getSolution()
        x = np.array(solution.col_value)
        if not len(x) or self._violation(x) > TOLERANCE:
            return self._nothing("none")
        objective = float(self._form.cost @ x) + self._form.offset
        if self._relaxed:
            proven = outcome == kinds.kOptimal
            bound = objective if proven else -np.inf
            duals, reduced = np.array(solution.row_dual), np.array(solution.col_dual)
        else:
            proven = outcome == kinds.kOptimal
            bound = float(info.mip_dual_bound)
            duals, reduced = _EMPTY, _EMPTY
        return Answer("optimal" if proven else "feasible", objective, bound, x, duals, reduced)

    def _violation(self, x: Floats) -> float:
        outside = np.maximum(self._lower - x, x - self._upper) / (1.0 + np.abs(x))
        worst = max(self._form.row_violation(x), float(outside.max(initial=0.0)))
        if self._relaxed:
            return worst
        return max(worst, float(np.abs(x - np.round(x))[self._form.integers].max(initial=0.0)))

    def _nothing(self, status: Status) -> Answer:
        return Answer(status, np.inf, -np.inf, _EMPTY, _EMPTY, _EMPTY)

    def _option(self, name: str, value: object) -> None:
        self._solver.setOptionValue(name, value)


def _highspy() -> Any:
    try:
        import highspy  # noqa: PLC0415 - optional at run time: say what is missing
    except ImportError as error:
        raise SolverError("the solver HiGHS is missing; install it: pip install highspy") from error
    return highspy


def _silent(hp: Any) -> Any:
    """A solver that says nothing.

    highspy 1.16 prints a banner to stdout while it is constructed, before it can be told not to;
    a plan written there as JSON would be none.
    """

    class Silent(hp.Highs):  # type: ignore[misc]  # highspy may be missing, and has no types
        def enableCallbacks(self) -> None:  # noqa: N802 - highspy's name
            self.setOptionValue("output_flag", False)
            super().enableCallbacks()

    return Silent()


def _model(hp: Any, form: StandardForm, *, relaxed: bool) -> Any:
    model = hp.HighsModel()
    lp = model.lp_
    lp.num_row_, lp.num_col_ = form.matrix.shape
    lp.col_cost_, lp.offset_ = form.cost, form.offset
    lp.row_lower_, lp.row_upper_ = form.row_lower, form.row_upper
    lp.col_lower_, lp.col_upper_ = form.lower, form.upper
    lp.a_matrix_.format_ = hp.MatrixFormat.kColwise
    lp.a_matrix_.start_ = form.matrix.indptr
    lp.a_matrix_.index_ = form.matrix.indices
    lp.a_matrix_.value_ = form.matrix.data
    if not relaxed:
        kinds = hp.HighsVarType
        lp.integrality_ = [kinds.kInteger if i else kinds.kContinuous for i in form.integers]
    return model
