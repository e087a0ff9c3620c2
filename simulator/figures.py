"""Mean, quantiles and maximum of a latency column."""

from __future__ import annotations

import numpy as np

from simulator.results import Floats

Figures = dict[str, float | None]

_QUANTILES = {"p50": 50.0, "p90": 90.0, "p95": 95.0, "p99": 99.0}


def figures(values: Floats) -> Figures:
    """Mean, quantiles and maximum of the values that exist; ``None`` where none does."""
    known = values[~np.isnan(values)]
    if not len(known):
        return dict.fromkeys(("mean", *_QUANTILES, "max"))
    quantiles = np.percentile(known, list(_QUANTILES.values())).tolist()
    named = dict(zip(_QUANTILES, quantiles, strict=True))
    return {"mean": float(known.mean()), **named, "max": float(known.max())}
