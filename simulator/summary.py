"""A run in figures: the JSON contract of ``motley simulate``."""

from __future__ import annotations

from collections import Counter
from typing import Any

import numpy as np

from simulator.classes import class_figures, qoe_column
from simulator.figures import Figures, figures
from simulator.results import Floats, RunResult, Status, latencies

__all__ = ["Figures", "Summary", "figures", "observed_s", "share_by_gpu", "summarize"]
Summary = dict[str, Any]
"""One entry of ``runs`` in the JSON; a document for the door, so its values are of any type."""


def summarize(result: RunResult) -> Summary:
    """Return one entry of ``runs``: plain JSON values.

    Latencies are of completed requests; SLO attainment is over all that arrived, so a rejected,
    failed or cancelled request is a miss. Goodput is attainment times the offered rate.
    """
    columns = latencies(result)
    arrived = len(result.records)
    met = int(columns.slo_met.sum())
    span_s = observed_s(result)
    qoe = qoe_column(result, columns)
    return {
        "policy": result.policy,
        "trace": result.trace.name,
        "fleet": result.fleet_name,
        "rate_scale": result.rate_scale,
        "seed": result.seed,
        "arrived": arrived,
        "completed": result.count(Status.COMPLETED),
        "rejected": result.count(Status.REJECTED),
        "failed": result.count(Status.FAILED),
        "cancelled": result.count(Status.CANCELLED),
        "ttft_s": figures(columns.ttft_s),
        "tpot_s": figures(columns.tpot_s),
        "e2e_s": figures(columns.e2e_s),
        "slo_attainment": met / arrived,
        "goodput_per_s": met / span_s,
        "offered_per_s": arrived / span_s,
        "qoe_mean": _known_mean(qoe),
        "classes": class_figures(result, columns, span_s, qoe),
        "share_by_gpu": share_by_gpu(result),
        "cached_token_ratio": _cached_ratio(result),
        "preemptions": result.preemptions,
        "reasons": dict(sorted(result.reasons.items())),
        "notes": list(result.notes),
        "options": dict(result.options),
        "wall_s": result.wall_s,
        "cpu_s": result.cpu_s,
    }


def _known_mean(values: Floats) -> float | None:
    known = values[~np.isnan(values)]
    return float(known.mean()) if len(known) else None


def observed_s(result: RunResult) -> float:
    """Time over which requests were offered; the makespan when all came at once."""
    span_s = result.trace.span_s
    if span_s > 0:
        return span_s
    finished = [t for t in result.records.finished_s if t == t]  # noqa: PLR0124 - NaN
    return max(finished, default=1.0) or 1.0


def share_by_gpu(result: RunResult) -> dict[str, float]:
    """Share of the requests sent anywhere that were (last) sent to each kind of GPU."""
    gpus = [spec.gpu for spec in result.backends]
    sent = Counter(result.records.backend)
    sent.pop(-1, None)
    total = sum(sent.values()) or 1
    shares = dict.fromkeys(gpus, 0.0)
    for backend, count in sent.items():
        shares[gpus[backend]] += count / total
    return shares


def _cached_ratio(result: RunResult) -> float | None:
    if not result.trace.has_prefixes:
        return None
    done = np.array(result.records.status, dtype=np.int8) == Status.COMPLETED
    inputs, _ = result.trace.lengths()
    cached = np.array(result.records.cached_tokens, dtype=np.int64)
    return float(cached[done].sum() / max(1, int(inputs[done].sum())))
