"""A live run and its twin's, percentile by percentile."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

import numpy as np
from numpy.typing import NDArray

from router.domain.errors import WorkloadError
from simulator.results import RunResult, latencies

Floats = NDArray[np.float64]
Column = Literal["ttft_s", "tpot_s", "e2e_s"]

METRICS: dict[str, Column] = {"TTFT": "ttft_s", "TPOT": "tpot_s", "E2E": "e2e_s"}
QUANTILES = (50.0, 90.0, 99.0)

_BLOCKS, _DRAWS = 40, 400


@dataclass(frozen=True, slots=True)
class Row:
    """One percentile of one latency.

    Attributes:
        metric, quantile: which; the quantile in percent.
        real_s, twin_s: measured and simulated.
        error_percent: of the twin; positive means slower than the engine.
        low_percent, high_percent: 90 % interval of the error, by drawing stretches of the replay
            anew, the same in both.
        spread_percent: how far a single live replay is from their mean, at most: what no twin
            can beat. ``None`` with one replay.
    """

    metric: str
    quantile: float
    real_s: float
    twin_s: float
    error_percent: float
    low_percent: float
    high_percent: float
    spread_percent: float | None


def side_by_side(live: Sequence[RunResult], twin: RunResult) -> list[Row]:
    """Compare one or more live replays of a trace with the simulated one.

    Only requests that both served to the end count.

    Raises:
        WorkloadError: there is none.
    """
    rng = np.random.default_rng(len(twin.records))
    rows = []
    for metric, column in METRICS.items():
        pairs = [_paired(run, twin, column) for run in live]
        real = np.concatenate([mine for mine, _ in pairs])
        simulated = np.concatenate([theirs for _, theirs in pairs])
        if not len(real):
            raise WorkloadError(
                f"no request has a {metric} both live and simulated; was everything refused?"
            )
        draws = _redraws(len(real), rng)
        for quantile in QUANTILES:
            errors = [_error(real[k], simulated[k], quantile) for k in draws]
            low, high = np.percentile(errors, [5.0, 95.0]).tolist()
            rows.append(
                Row(
                    metric,
                    quantile,
                    float(np.percentile(real, quantile)),
                    float(np.percentile(simulated, quantile)),
                    _error(real, simulated, quantile),
                    low,
                    high,
                    _spread([mine for mine, _ in pairs], quantile),
                )
            )
    return rows


def _paired(live: RunResult, twin: RunResult, column: Column) -> tuple[Floats, Floats]:
    mine: Floats = getattr(latencies(live), column)
    theirs: Floats = getattr(latencies(twin), column)
    both = ~np.isnan(mine) & ~np.isnan(theirs)
    return mine[both], theirs[both]


def _error(real: Floats, simulated: Floats, quantile: float) -> float:
    return float(100.0 * (np.percentile(simulated, quantile) / np.percentile(real, quantile) - 1.0))


def _spread(runs: Sequence[Floats], quantile: float) -> float | None:
    if len(runs) < 2:
        return None
    values = np.array([np.percentile(run, quantile) for run in runs if len(run)])
    return float(100.0 * np.abs(values / values.mean() - 1.0).max())


def _redraws(count: int, rng: np.random.Generator) -> list[NDArray[np.int64]]:
    """Whole stretches of time with replacement: requests near in time share their fate."""
    edges = np.linspace(0, count, min(_BLOCKS, count) + 1).astype(np.int64).tolist()
    blocks = [np.arange(a, b) for a, b in pairwise(edges)]
    return [
        np.concatenate([blocks[k] for k in rng.integers(len(blocks), size=len(blocks))])
        for _ in range(_DRAWS)
    ]
