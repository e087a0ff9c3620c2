"""What a trace is like: lengths, load, burstiness, what its prompts share."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from simulator.traces.columns import Ints, Trace

_WINDOWS_S = (1.0, 10.0, 60.0)


@dataclass(frozen=True, slots=True)
class LengthStats:
    """Mean and quantiles of a length, in tokens."""

    mean: float
    p50: float
    p90: float
    p99: float
    max: int


@dataclass(frozen=True, slots=True)
class TraceStats:
    """Figures of one trace.

    Attributes:
        requests: how many.
        span_s: first to last arrival.
        rate_per_s: mean.
        input_tokens, output_tokens: lengths.
        gap_cv: coefficient of variation of the gaps between arrivals (1 = Poisson).
        dispersion: variance over mean of counts per window of 1, 10 and 60 s (1 = Poisson).
        peak_to_mean: busiest minute over the mean minute.
        shared_ratio: share of input tokens one infinite prefix cache would find; an upper
            bound, because any split over backends lowers it. ``None`` without prefixes.
    """

    requests: int
    span_s: float
    rate_per_s: float
    input_tokens: LengthStats
    output_tokens: LengthStats
    gap_cv: float
    dispersion: dict[float, float]
    peak_to_mean: float
    shared_ratio: float | None


def describe(trace: Trace) -> TraceStats:
    """Compute the figures of a trace that holds at least one request."""
    arrivals = trace.arrivals()
    span_s = float(arrivals[-1] - arrivals[0])
    gaps = np.diff(arrivals)
    minutes = _counts(arrivals, 60.0)
    inputs, outputs = trace.lengths()
    return TraceStats(
        requests=len(trace),
        span_s=span_s,
        rate_per_s=len(trace) / span_s if span_s > 0 else float("inf"),
        input_tokens=_lengths(inputs),
        output_tokens=_lengths(outputs),
        gap_cv=float(gaps.std() / gaps.mean()) if len(gaps) and gaps.mean() > 0 else 0.0,
        dispersion={window: _dispersion(arrivals, window) for window in _WINDOWS_S},
        peak_to_mean=float(minutes.max() / minutes.mean()),
        shared_ratio=_shared(trace, float(inputs.sum())),
    )


def _lengths(tokens: Ints) -> LengthStats:
    p50, p90, p99 = (float(value) for value in np.percentile(tokens, [50, 90, 99]))
    return LengthStats(float(tokens.mean()), p50, p90, p99, int(tokens.max()))


def _counts(arrivals: np.ndarray[tuple[int], np.dtype[np.float64]], window_s: float) -> Ints:
    """Arrivals per whole window; a last, partial one would pass for a lull."""
    since = arrivals - arrivals[0]
    counts = np.bincount((since // window_s).astype(np.int64)).astype(np.int64)
    return counts[: max(1, int(since[-1] // window_s))]


def _dispersion(arrivals: np.ndarray[tuple[int], np.dtype[np.float64]], window_s: float) -> float:
    counts = _counts(arrivals, window_s)
    return float(counts.var() / counts.mean())


def _shared(trace: Trace, input_tokens: float) -> float | None:
    if not trace.has_prefixes:
        return None
    seen: set[int] = set()
    hit_tokens = 0
    for i in range(len(trace)):
        hashes = trace.prefix_hashes(i)
        hits = next((k for k, block in enumerate(hashes) if block not in seen), len(hashes))
        hit_tokens += hits * trace.prefix_block_tokens[i]
        seen.update(hashes)
    return hit_tokens / input_tokens
