"""Is one policy better than another, or is it noise? Paired differences with intervals.

All policies of a comparison see the same arrivals and lengths (common random numbers), so their
differences are far less noisy than their values. With three seeds or more the interval is
Student's t over the paired differences per seed. With fewer it is a block bootstrap: whole
stretches of time are drawn with replacement, because requests near in time share their fate
(Künsch 1989); the same stretches for both policies.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np

from simulator.results import Floats, Latencies, RunResult, latencies

Method = Literal["seeds", "blocks"]

_T_975 = (
    *(12.706, 4.303, 3.182, 2.776, 2.571, 2.447, 2.365, 2.306, 2.262, 2.228),
    *(2.201, 2.179, 2.160, 2.145, 2.131, 2.120, 2.110, 2.101, 2.093, 2.086),
)
_BLOCKS = 40
FEWEST = _BLOCKS
"""Requests below which redrawing tells nothing: one alone would always be drawn again."""
_MOST_DRAWS = 200
_MOST_VALUES = 20_000_000


@dataclass(frozen=True, slots=True)
class Metric:
    """One figure to compare.

    Attributes:
        name: for people.
        column: attribute of ``Latencies``.
        quantile: in percent; ``None`` means the mean.
        better: which direction is good.
    """

    name: str
    column: Literal["ttft_s", "tpot_s", "e2e_s", "slo_met"]
    quantile: float | None
    better: Literal["lower", "higher"] = "lower"

    def of(self, values: Floats) -> float:
        """The figure of one set of values; NaN if there is none."""
        known = values[~np.isnan(values)]
        if not len(known):
            return math.nan
        if self.quantile is None:
            return float(known.mean())
        return float(np.percentile(known, self.quantile))

    def values(self, columns: Latencies) -> Floats:
        """The column, as floats."""
        return np.asarray(getattr(columns, self.column), dtype=np.float64)


METRICS = (
    Metric("TTFT P99", "ttft_s", 99.0),
    Metric("TPOT P99", "tpot_s", 99.0),
    Metric("E2E mean", "e2e_s", None),
    Metric("E2E P99", "e2e_s", 99.0),
    Metric("SLO attainment", "slo_met", None, better="higher"),
)
RANKING = METRICS[3]


@dataclass(frozen=True, slots=True)
class Difference:
    """One policy minus the reference, on one metric.

    Attributes:
        policy, reference: names.
        metric: what.
        mean: the difference.
        low, high: 95 % interval; NaN where there is too little to tell.
        method: where the interval comes from.
    """

    policy: str
    reference: str
    metric: Metric
    mean: float
    low: float
    high: float
    method: Method

    @property
    def is_known(self) -> bool:
        """Whether there was enough to tell an interval from."""
        return not (math.isnan(self.low) or math.isnan(self.high))

    @property
    def is_noise(self) -> bool:
        """Whether the interval holds zero (or does not exist)."""
        return not (self.low > 0 or self.high < 0)

    @property
    def verdict(self) -> str:
        """One word for people."""
        if self.is_noise:
            return "noise"
        return "worse" if (self.mean > 0) == (self.metric.better == "lower") else "better"


def compare(results: Sequence[RunResult], metrics: Sequence[Metric] = METRICS) -> list[Difference]:
    """Compare every policy with the one that has the lowest E2E P99.

    Args:
        results: runs on one trace, fleet and load; the same seeds for each policy.
        metrics: what to compare.
    """
    return compare_with(results, best_policy(results), metrics)


def compare_with(
    results: Sequence[RunResult], reference: str, metrics: Sequence[Metric] = METRICS
) -> list[Difference]:
    """Compare every policy with the one named; arguments as ``compare``."""
    columns = _Columns(results)
    policies = list(dict.fromkeys(r.policy for r in results))
    seeds = sorted({r.seed for r in results})
    return [
        _difference(metric, policy, reference, seeds, columns)
        for policy in policies
        if policy != reference
        for metric in metrics
    ]


def best_policy(results: Sequence[RunResult]) -> str:
    """The policy with the lowest E2E P99, averaged over its seeds."""
    scores: dict[str, list[float]] = {}
    for result in results:
        scores.setdefault(result.policy, []).append(RANKING.of(latencies(result).e2e_s))
    means = {policy: float(np.mean(values)) for policy, values in scores.items()}
    return min(means, key=lambda policy: (math.isnan(means[policy]), means[policy]))


def _difference(
    metric: Metric, policy: str, reference: str, seeds: Sequence[int], columns: _Columns
) -> Difference:
    both = [
        seed
        for seed in seeds
        if (policy, seed) in columns.runs and (reference, seed) in columns.runs
    ]
    paired = [
        columns.figure(metric, policy, seed) - columns.figure(metric, reference, seed)
        for seed in both
    ]
    mean = float(np.mean(paired)) if paired else math.nan
    low, high, method = interval_of(
        paired,
        lambda: (
            columns.redrawn(metric, policy, seed) - columns.redrawn(metric, reference, seed)
            for seed in both
        ),
    )
    return Difference(policy, reference, metric, mean, low, high, method)


def interval_of(
    paired: Sequence[float], redrawn: Callable[[], Iterable[Floats]]
) -> tuple[float, float, Method]:
    """95 % interval of the mean of paired differences, and where it comes from.

    Args:
        paired: one difference a seed.
        redrawn: the differences of each seed under every draw of blocks; asked where the seeds
            are too few.
    """
    if len(paired) >= 3:
        return (*t_interval(paired), "seeds")
    return (*_mean_interval([_middle(drawn) for drawn in redrawn()]), "blocks")


class _Columns:
    """The latency columns of all runs, and what is computed from them once."""

    def __init__(self, results: Sequence[RunResult]) -> None:
        self.runs = {(r.policy, r.seed): latencies(r) for r in results}
        self._redrawn: dict[tuple[str, str, int], Floats] = {}

    def figure(self, metric: Metric, policy: str, seed: int) -> float:
        """The metric of one run."""
        return metric.of(metric.values(self.runs[policy, seed]))

    def redrawn(self, metric: Metric, policy: str, seed: int) -> Floats:
        """The metric of one run under every draw of blocks."""
        key = (metric.name, policy, seed)
        if key not in self._redrawn:
            self._redrawn[key] = redraw(metric, metric.values(self.runs[policy, seed]))
        return self._redrawn[key]


def t_interval(values: Sequence[float]) -> tuple[float, float]:
    """95 % interval of the mean of at least two independent values (Student's t)."""
    n = len(values)
    t = _T_975[n - 2] if n - 2 < len(_T_975) else 1.96
    half = t * float(np.std(values, ddof=1)) / math.sqrt(n)
    return float(np.mean(values)) - half, float(np.mean(values)) + half


def bootstrap(metric: Metric, mine: Floats, theirs: Floats) -> tuple[float, float]:
    """95 % interval of a paired difference, by drawing blocks of neighbouring requests.

    Args:
        metric: what to compare.
        mine, theirs: one value per request in order of arrival, NaN where there is none.
    """
    return _middle(redraw(metric, mine) - redraw(metric, theirs))


def redraw(metric: Metric, values: Floats) -> Floats:
    """The metric under every draw of blocks; runs of equal length get equal draws.

    Args:
        metric: what to compute.
        values: one per request in order of arrival, NaN where there is none; of fewer than
            ``FEWEST`` every draw is NaN.
    """
    n = len(values)
    if n < FEWEST:
        return np.full(1, np.nan)
    edges = np.linspace(0, n, min(_BLOCKS, n) + 1).astype(np.int64)
    blocks = [values[a:b] for a, b in pairwise(edges.tolist())]
    rng = np.random.default_rng(len(blocks))
    draws = max(50, min(_MOST_DRAWS, _MOST_VALUES // max(1, n)))
    chosen = rng.integers(len(blocks), size=(draws, len(blocks))).tolist()
    return np.array([metric.of(np.concatenate([blocks[k] for k in row])) for row in chosen])


def _middle(differences: Floats) -> tuple[float, float]:
    known = differences[~np.isnan(differences)]
    if not len(known):
        return math.nan, math.nan
    low, high = np.percentile(known, [2.5, 97.5]).tolist()
    return low, high


def _mean_interval(intervals: Sequence[tuple[float, float]]) -> tuple[float, float]:
    """Interval of the mean of independent differences, from the interval of each."""
    if not intervals:
        return math.nan, math.nan
    centre = float(np.mean([(low + high) / 2 for low, high in intervals]))
    half = math.sqrt(sum(((high - low) / 2) ** 2 for low, high in intervals)) / len(intervals)
    return centre - half, centre + half
