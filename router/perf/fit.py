"""Fits the constants of the iteration model to measurements.

Relative least squares with a soft-L1 loss (an outlier of 50 % counts like a few of 5 %), inside
physical bounds. With ``prior_strength`` the constants are also pulled towards where they start,
so that a handful of points moves only what they speak of.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from scipy.optimize import least_squares

from router.domain.errors import BadInputError
from router.perf.catalog import Catalog
from router.perf.measurements import Measurement, Vector, relative_errors
from router.perf.priors import Priors

SOFT_ERROR = 0.05
"""Relative error from which the loss grows linearly instead of quadratically."""

BOUNDS: dict[str, tuple[float, float]] = {
    "mfu": (0.05, 1.0),
    "mfu_attn": (0.02, 1.0),
    "mbu": (0.2, 0.92),
    "mbu_kv": (0.2, 0.95),
    "step_us": (0.0, 200_000.0),
    "layer_us": (0.0, 5_000.0),
    "seq_us": (0.0, 5_000.0),
    "allreduce_us": (0.0, 2_000.0),
    "link_gb_per_s": (1.0, 60.0),
    "exponent": (1.0, 6.0),
}
"""No board sustains more than about 92 % of its bandwidth."""


@dataclass(frozen=True, slots=True)
class Fit:
    """Constants fitted to measurements.

    Attributes:
        priors: the constants, the fitted ones replaced.
        free: which were fitted.
        at_bound: which of them ended on a bound: a sign that the data do not determine them.
    """

    priors: Priors
    free: tuple[str, ...]
    at_bound: tuple[str, ...]


def fit_priors(
    measurements: Sequence[Measurement],
    start: Priors,
    free: Sequence[str],
    catalog: Catalog,
    *,
    prior_strength: float = 0.0,
) -> Fit:
    """Fit the constants named in ``free``; all measurements share them.

    Args:
        measurements: at least one.
        start: where the search begins; the constants not in ``free`` stay.
        free: names of ``Priors``, each with an entry in ``BOUNDS``.
        catalog: GPUs and models of the measurements.
        prior_strength: weight of the pull towards ``start``; 1 means that doubling a constant
            is as bad as one measurement that is 5 % off.

    Raises:
        BadInputError: nothing to fit to.
    """
    if not measurements:
        raise BadInputError("no measurements to fit to")
    lower, upper = np.array([BOUNDS[name] for name in free], dtype=float).T
    begin = np.clip([getattr(start, name) for name in free], lower, upper)
    scale = np.maximum(begin, 1e-3 * upper)

    def at(values: Vector) -> Priors:
        return replace(start, **dict(zip(free, values.tolist(), strict=True)))

    def residuals(values: Vector) -> Vector:
        errors = relative_errors(measurements, at(values), catalog)
        pull = (
            prior_strength * SOFT_ERROR * np.log2((values + scale * 1e-3) / (begin + scale * 1e-3))
        )
        return np.concatenate([errors, pull]) if prior_strength else errors

    found = least_squares(
        residuals, begin, bounds=(lower, upper), x_scale=scale, loss="soft_l1", f_scale=SOFT_ERROR
    ).x
    near = 1e-3 * (upper - lower)
    stuck = (found - lower < near) | (upper - found < near)
    return Fit(at(found), tuple(free), tuple(n for n, s in zip(free, stuck, strict=True) if s))
