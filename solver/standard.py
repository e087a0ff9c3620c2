"""A linear problem in plain arrays: what HiGHS takes, and what travels to another process."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace

import numpy as np
from scipy import sparse

from solver.problem import Floats


@dataclass(frozen=True, slots=True)
class StandardForm:
    """Minimise ``cost @ x + offset`` over ``row_lower <= matrix @ x <= row_upper`` and bounds.

    Attributes:
        cost: (n,).
        offset: constant part of the objective.
        matrix: (m, n), compressed columns.
        row_lower, row_upper: (m,).
        lower, upper: (n,) bounds of the unknowns.
        integers: (n,) true where an unknown is an integer.
        columns: unknowns by name.
        rows: constraints by name.
    """

    cost: Floats
    offset: float
    matrix: sparse.csc_matrix
    row_lower: Floats
    row_upper: Floats
    lower: Floats
    upper: Floats
    integers: np.ndarray
    columns: Mapping[str, slice]
    rows: Mapping[str, slice]

    def bounded(self, name: str, lower: Floats, upper: Floats) -> StandardForm:
        """The same problem with other bounds on one unknown."""
        low, high = self.lower.copy(), self.upper.copy()
        low[self.columns[name]], high[self.columns[name]] = lower, upper
        return replace(self, lower=low, upper=high)

    def row_violation(self, x: Floats) -> float:
        """Largest violation of any row at ``x``, relative to the size of its terms.

        Solvers can return a point that satisfies nothing (HiGHS, at its time limit without an
        incumbent, returns zeros), so every point is checked before it is believed.
        """
        activity = self.matrix @ x
        scale = 1.0 + abs(self.matrix) @ np.abs(x)
        outside = np.maximum(self.row_lower - activity, activity - self.row_upper) / scale
        return float(outside.max(initial=0.0))
