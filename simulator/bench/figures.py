"""Percentiles of a load test; failed requests are kept apart and never in a percentile."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from typing import Any

import numpy as np

from simulator.bench.answer import Sample

QUANTILES = {"p50": 50.0, "p90": 90.0, "p99": 99.0}
LATE_S = 0.05
"""Requests sent this much too late say that the client, not the server, was the bottleneck."""


@dataclass(frozen=True, slots=True)
class Spread:
    """Mean and percentiles of one figure; ``None`` without data."""

    mean: float | None
    p50: float | None
    p90: float | None
    p99: float | None
    maximum: float | None


@dataclass(frozen=True, slots=True)
class Figures:
    """What a load test found.

    Attributes:
        requests, completed, failed: how many.
        seconds: first request sent to last answer ended.
        ttft_s, tpot_s, itl_s, e2e_s: of the completed. ITL is the gap between chunks with content.
        tokens_per_s: of one stream after its first token (1 / TPOT).
        output_tokens_per_s, total_tokens_per_s, requests_per_s: of the server, completed only.
        input_tokens, output_tokens: means, as the server counted.
        counted: share of the completed whose tokens the server counted.
        late: requests sent more than ``LATE_S`` after their time.
        errors: failures by kind.
        backends: completed by who served them, where a gateway tells.
    """

    requests: int
    completed: int
    failed: int
    seconds: float
    ttft_s: Spread
    tpot_s: Spread
    itl_s: Spread
    e2e_s: Spread
    tokens_per_s: Spread
    requests_per_s: float
    output_tokens_per_s: float
    total_tokens_per_s: float
    input_tokens: float
    output_tokens: float
    counted: float
    late: int
    errors: dict[str, int]
    backends: dict[str, int]

    def document(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self)


def figures(samples: Sequence[Sample]) -> Figures:
    """Sum a run up."""
    done = [sample for sample in samples if sample.ok]
    ends = [s.last_s if s.last_s is not None else s.sent_s for s in samples]
    seconds = max(ends) - min(s.sent_s for s in samples) if samples else 0.0
    per_s = 1.0 / seconds if seconds > 0 else 0.0
    out = sum(s.output_tokens for s in done)
    total = out + sum(s.input_tokens for s in done)
    return Figures(
        requests=len(samples),
        completed=len(done),
        failed=len(samples) - len(done),
        seconds=seconds,
        ttft_s=spread(s.ttft_s for s in done),
        tpot_s=spread(s.tpot_s for s in done),
        itl_s=spread(gap for s in done for gap in s.gaps_s),
        e2e_s=spread(s.e2e_s for s in done),
        tokens_per_s=spread(1.0 / s.tpot_s if s.tpot_s else None for s in done),
        requests_per_s=len(done) * per_s,
        output_tokens_per_s=out * per_s,
        total_tokens_per_s=total * per_s,
        input_tokens=(total - out) / len(done) if done else 0.0,
        output_tokens=out / len(done) if done else 0.0,
        counted=sum(s.counted for s in done) / len(done) if done else 0.0,
        late=sum(s.sent_s - s.due_s > LATE_S for s in samples),
        errors=dict(Counter(_kind(s.error) for s in samples if s.error).most_common()),
        backends=dict(sorted(Counter(s.backend for s in done if s.backend).items())),
    )


def spread(values: Iterable[float | None]) -> Spread:
    """Of the values that exist."""
    known = [value for value in values if value is not None]
    if not known:
        return Spread(None, None, None, None, None)
    p50, p90, p99 = np.percentile(known, list(QUANTILES.values())).tolist()
    return Spread(float(np.mean(known)), p50, p90, p99, max(known))


def _kind(error: str) -> str:
    return error.split(":", 1)[0]
