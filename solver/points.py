"""Where the tangents of the congestion curves touch."""

from __future__ import annotations

import numpy as np

from solver.problem import Floats, Problem

STEEPEST = 0.97
"""Utilization of the last tangent; beyond it congestion goes on rising at that slope."""
PLACE_POINTS = (0.25, 0.5, 0.7, 0.85, 1.0)
"""For placing, as shares of the column's ceiling."""
ROUTE_POINTS = tuple((np.linspace(0.0, 1.0, 25)[1:] ** 0.8 * STEEPEST).tolist())
"""For routing: prices are their slopes, so they are dense."""


def tangents(problem: Problem, *, placing: bool) -> tuple[Floats, Floats]:
    """Slopes and intercepts (T,), all tangents of one column together."""
    pairs = [
        column.congestion.tangents(
            [share * column.ceiling for share in PLACE_POINTS] if placing else ROUTE_POINTS
        )
        for column in problem.columns
    ]
    slopes, intercepts = zip(*pairs, strict=True) if pairs else ((np.zeros(0),), (np.zeros(0),))
    return np.concatenate(slopes), np.concatenate(intercepts)
