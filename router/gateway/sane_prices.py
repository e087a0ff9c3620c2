"""What a planner says is looked at before it comes into force."""

from __future__ import annotations

import math
from collections.abc import Mapping

_ROUNDING_S = 1e-6
"""Duals of inequalities are never negative, but a solver's last digit may be."""


def sane(prices: object) -> dict[str, float]:
    """The prices, by group, in seconds per engine-second.

    Raises:
        ValueError: they are not what a planner may say: one line that names the group.
    """
    if not isinstance(prices, Mapping):
        raise ValueError(f"the planner gave {prices!r} for prices")
    for group, price in prices.items():
        if not isinstance(price, int | float) or not math.isfinite(price) or price < -_ROUNDING_S:
            raise ValueError(f"the planner's price of {group} is {price!r}")
    return {str(group): max(0.0, float(price)) for group, price in prices.items()}
