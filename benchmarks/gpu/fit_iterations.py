"""An engine's cost from the iterations that it logged, in the form ``overrides`` take."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import asdict

import numpy as np
from numpy.typing import NDArray
from scipy.optimize import least_squares

from router.perf.measured import MeasuredCost

Vector = NDArray[np.float64]
SOFT_ERROR = 0.05
"""Relative error from which the loss grows linearly, as in ``router.perf.fit``."""
_START = (5e-3, 5e-5, 5e-5, 5e-9, 1e-9, 100.0)


def fit(rows: Sequence[Sequence[float]]) -> MeasuredCost:
    """Fit to rows of (start, seconds, prefill tokens, decode seqs, context tokens, pairs)."""
    table = np.array(rows, dtype=float)

    def residuals(logs: Vector) -> Vector:
        values: Vector = _times(_cost(logs), table) / table[:, 1] - 1.0
        return values

    start = np.log(_START)
    found = least_squares(
        residuals, start, bounds=(start - 12.0, start + 6.0), loss="soft_l1", f_scale=SOFT_ERROR
    )
    return _cost(found.x)


def errors(cost: MeasuredCost, rows: Sequence[Sequence[float]]) -> Vector:
    """(predicted - measured) / measured of each."""
    table = np.array(rows, dtype=float)
    found: Vector = _times(cost, table) / table[:, 1] - 1.0
    return found


def pace(cost: MeasuredCost, rows: Sequence[Sequence[float]]) -> float:
    """How long these iterations took, over how long they take by this cost."""
    table = np.array(rows, dtype=float)
    return float(table[:, 1].sum() / _times(cost, table).sum())


def scaled(cost: MeasuredCost, factor: float) -> MeasuredCost:
    """An engine that takes ``factor`` times as long for everything."""
    values = asdict(cost)
    kept = values["knee_tokens"]
    return MeasuredCost(
        **{name: factor * value for name, value in values.items()} | {"knee_tokens": kept}
    )


def _cost(logs: Vector) -> MeasuredCost:
    step, prefill, seq, context, pair, knee = np.exp(logs).tolist()
    return MeasuredCost(step, prefill, seq, context, pair, knee)


def _times(cost: MeasuredCost, table: Vector) -> Vector:
    return cost.iteration_model().times_s(table[:, 2], table[:, 3], table[:, 4], table[:, 5])
