"""Scores with intervals, and whether a variant is as good as the baseline.

Categories count alike, whatever their number of items. A score's interval is Wilson's (1927), which
is on the safe side for scores between 0 and 1. A difference is taken item by item, since both
variants were asked the same; its interval adds one made-up pair that disagrees half a time each way
(Agresti and Min 2005), so that twenty equal answers are no proof of equality.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from statistics import fmean
from typing import Literal

Z = 1.959964
"""95 %, both sides."""

WITHIN = 0.05
"""How far below the baseline a variant may be, relative to it."""

Standing = Literal["baseline", "within", "below", "unsure"]


@dataclass(frozen=True, slots=True)
class Interval:
    """A figure with its 95 % interval."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class Quality:
    """One variant.

    Attributes:
        overall: mean over categories.
        categories: mean of each.
        ratio: overall against the baseline's, 1 being as good.
        standing: whether it is within 5 % of the baseline.
    """

    overall: Interval
    categories: Mapping[str, Interval]
    ratio: Interval
    standing: Standing


Scores = Mapping[str, Sequence[float]]
"""By category, one score an item, the items in the same order for every variant."""


def quality_of(scores: Scores, baseline: Scores | None) -> Quality:
    """Judge one variant; without a baseline it is the baseline.

    Args:
        scores: the variant's.
        baseline: the baseline's, of the same items.
    """
    categories = {name: wilson(values) for name, values in scores.items()}
    overall = _mean([wilson(values) for values in scores.values()])
    if baseline is None:
        return Quality(overall, categories, Interval(1.0, 1.0, 1.0), "baseline")
    ratio = _ratio(scores, baseline)
    return Quality(overall, categories, ratio, _standing(ratio))


def _standing(ratio: Interval) -> Standing:
    least = 1.0 - WITHIN
    if ratio.low >= least:
        return "within"
    return "below" if ratio.high < least else "unsure"


def wilson(values: Sequence[float]) -> Interval:
    """Mean of scores between 0 and 1, with Wilson's interval."""
    n, mean = len(values), fmean(values)
    centre = (mean + Z * Z / (2 * n)) / (1 + Z * Z / n)
    half = Z / (1 + Z * Z / n) * math.sqrt(mean * (1 - mean) / n + Z * Z / (4 * n * n))
    return Interval(mean, max(0.0, centre - half), min(1.0, centre + half))


def _mean(parts: Sequence[Interval]) -> Interval:
    """Mean of independent figures."""
    value = fmean(part.value for part in parts)
    down = math.sqrt(sum((part.value - part.low) ** 2 for part in parts)) / len(parts)
    up = math.sqrt(sum((part.high - part.value) ** 2 for part in parts)) / len(parts)
    return Interval(value, max(0.0, value - down), min(1.0, value + up))


def _ratio(scores: Scores, baseline: Scores) -> Interval:
    best = fmean(fmean(values) for values in baseline.values())
    if not best:
        return Interval(1.0, 0.0, math.inf)  # a baseline that knows nothing compares with nothing
    means, centres, variances = [], [], []
    for name, theirs in baseline.items():
        differences = [mine - other for mine, other in zip(scores[name], theirs, strict=True)]
        n = len(differences) + 2
        squares = sum(d * d for d in differences) + 1.0
        centre = sum(differences) / n
        means.append(fmean(differences))
        centres.append(centre)
        variances.append((squares / n - centre * centre) / n)
    value = 1.0 + fmean(means) / best
    middle = 1.0 + fmean(centres) / best
    half = Z * math.sqrt(sum(variances)) / len(variances) / best
    return Interval(value, max(0.0, middle - half), middle + half)
