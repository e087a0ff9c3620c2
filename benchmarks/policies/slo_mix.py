"""Four tenants of three service classes on one fleet, each with arrivals and lengths of its own.

Half of the requests are an interactive chat, a fifth another chat that only wants throughput, a
fifth an interactive code assistant (long prompts, short answers, bursts), and a tenth summaries in
bulk, which have no target. Chats and code are windows of the Azure traces; summaries are drawn.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np

from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord
from simulator.traces.transform import mix

NAME = "slo-mix"
JUDGED = "interactive"
"""The class whose P99s stand for the scenario; every class's attainment is told besides."""
BULK_SHARE = 0.1


@dataclass(frozen=True, slots=True)
class Part:
    """One tenant's traffic: where it is taken from, its class, its share of all requests."""

    tenant: str
    source: str
    slo_class: str
    share: float

    def of(self, requests: int) -> int:
        return max(int(self.share * requests), 2)


PARTS = (
    Part("chat", "azure-conv", "interactive", 0.5),
    Part("research", "azure-conv", "throughput", 0.2),
    Part("code", "azure-code", "interactive", 0.2),
)


def merged(windows: Sequence[Trace], requests: int, seed: int) -> Trace:
    """The windows of ``PARTS`` over one another, and summaries: one request a second in all."""
    rng = np.random.default_rng([seed, 0xB01C])
    span_s = float(requests)
    traces = [_laid(part, trace, span_s, rng) for part, trace in zip(PARTS, windows, strict=True)]
    return mix([*traces, _summaries(int(BULK_SHARE * requests), span_s, rng)], NAME)


def _laid(part: Part, window: Trace, span_s: float, rng: np.random.Generator) -> Trace:
    """Stretched to the common span, and begun anywhere: two parts may be of the same trace."""
    factor = span_s / window.span_s
    begin_s = float(rng.uniform(0.0, span_s))
    moved = [
        replace(
            record,
            arrival_s=(record.arrival_s * factor + begin_s) % span_s,
            tenant=part.tenant,
            slo_class=part.slo_class,
        )
        for record in window.records()
    ]
    return Trace(part.tenant).extend(sorted(moved, key=lambda record: record.arrival_s))


def _summaries(count: int, span_s: float, rng: np.random.Generator) -> Trace:
    trace = Trace("summaries")
    for at in np.sort(rng.uniform(0.0, span_s, count)):
        prompt = min(int(3_000.0 * math.exp(0.5 * rng.standard_normal())), 12_000)
        output = int(200.0 * math.exp(0.6 * rng.standard_normal())) + 1
        trace.append(TraceRecord(float(at), prompt, output, tenant="summaries", slo_class="bulk"))
    return trace
