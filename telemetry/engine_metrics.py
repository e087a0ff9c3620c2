"""Exposition text to ``EngineSignals``, for every engine generation of a mixed fleet.

``parse`` is the whole of it; ``read`` also tells where the figures came from and gives the raw
counters, from which the scraper derives what happened since its last visit. Unknown is ``None``:
a router that reads a missing gauge as zero sends everything to the engine it knows least about.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.domain.state import EngineSignals
from telemetry.adapters import ADAPTERS, Adapter, by_label, mean, total
from telemetry.exposition import Exposition, Problems

MOST_REQUESTS = 1_000_000
"""More requests than this inside one engine is a broken gauge."""

MOST_TOKENS = 10_000_000_000

SIGNALS = (
    "running",
    "waiting",
    "kv_usage",
    "kv_capacity_tokens",
    "prefix_hit_ratio",
    "preemptions",
)
"""The figures of ``EngineSignals`` that one should expect of an engine. (The generation rate is
not among them: vLLM has none since V1.)"""


@dataclass(frozen=True, slots=True)
class Reading:
    """One scrape, with what is needed to compare it with the one before.

    Attributes:
        signals: what goes to the dispatcher.
        engine: whose vocabulary was found; empty when none was.
        model: the model name on the engine's own labels, where it tells.
        prefix_hits, prefix_queries: lifetime tokens, for the ratio since the last scrape.
        started_s: start of the engine's process on its own clock, where it tells.
        waiting_by_reason: why requests wait inside the engine, where it tells.
        accelerator: GPU name, where the engine tells it (SGLang ``/v1/loads``).
    """

    signals: EngineSignals
    engine: str = ""
    model: str = ""
    prefix_hits: float | None = None
    prefix_queries: float | None = None
    started_s: float | None = None
    waiting_by_reason: Mapping[str, int] = field(default_factory=dict)
    accelerator: str = ""

    @property
    def known(self) -> tuple[str, ...]:
        """Names of the signals that this scrape gave."""
        return tuple(name for name in SIGNALS if getattr(self.signals, name) is not None)


def parse(
    text: str | bytes, engine: str, observed_s: float, problems: Problems | None = None
) -> EngineSignals:
    """Read the signals out of one exposition; never raises, whatever the text.

    Args:
        text: body of ``GET /metrics``.
        engine: "vllm", "sglang", "llamacpp", "tgi" or "trtllm": whose names to try first. An
            engine that turns out to be another one is read all the same.
        observed_s: when, on the caller's clock.
        problems: counts what was wrong with the text.
    """
    return read(text, engine, observed_s, problems).signals


def read(
    text: str | bytes, engine: str, observed_s: float, problems: Problems | None = None
) -> Reading:
    """Like ``parse``, with the raw counters and the provenance."""
    expo = Exposition(text, problems if problems is not None else Problems())
    adapter = _adapter(expo, engine)
    if adapter is None:
        return Reading(EngineSignals(observed_s))
    hits, queries = total(expo, adapter.prefix_hits), total(expo, adapter.prefix_queries)
    signals = EngineSignals(
        observed_s=observed_s,
        running=whole(total(expo, adapter.running), expo.problems),
        waiting=whole(total(expo, adapter.waiting), expo.problems),
        kv_usage=share(mean(expo, adapter.kv_usage), expo.problems),
        kv_capacity_tokens=whole(adapter.kv_capacity(expo), expo.problems, MOST_TOKENS),
        prefix_hit_ratio=_hit_ratio(expo, adapter, hits, queries),
        preemptions=whole(total(expo, adapter.preemptions), expo.problems, MOST_TOKENS),
        gen_tokens_per_s=total(expo, adapter.gen_rate),
    )
    reasons = by_label(expo, adapter.waiting_by_reason, "reason")
    return Reading(
        signals=signals,
        engine=adapter.engine,
        model=_model(expo, adapter),
        prefix_hits=hits,
        prefix_queries=queries,
        started_s=total(expo, adapter.started),
        waiting_by_reason={reason: int(count) for reason, count in reasons.items()},
    )


def whole(value: float | None, problems: Problems, most: float = MOST_REQUESTS) -> int | None:
    """A count, or ``None`` if it is unknown or absurd."""
    if value is None or value <= most:
        return None if value is None else int(value)
    problems.note("out_of_range")
    return None


def share(value: float | None, problems: Problems) -> float | None:
    """A share from 0 to 1, or ``None`` if it is unknown or absurd.

    SGLang counts reserved tokens and can step a hair over 1; more than 5% over is not a share.
    """
    if value is None or value <= 1.05:
        return None if value is None else min(value, 1.0)
    problems.note("out_of_range")
    return None


def ratio(hits: float | None, queries: float | None) -> float | None:
    """Share of looked-up tokens that were found; unknown before the first look-up."""
    if hits is None or queries is None or queries <= 0 or hits > queries:
        return None
    return hits / queries


def _hit_ratio(
    expo: Exposition, adapter: Adapter, hits: float | None, queries: float | None
) -> float | None:
    """Counters beat the gauge: vLLM V0's gauge is -1 without a prefix cache, SGLang's is of
    the last batch only."""
    if hits is not None and queries is not None:
        return ratio(hits, queries)
    return share(mean(expo, adapter.prefix_hit_ratio), expo.problems)


def _model(expo: Exposition, adapter: Adapter) -> str:
    for source in adapter.running:
        for series in expo.series(source.names[0]):
            return series.labels.get("model_name", "")
    return ""


def _adapter(expo: Exposition, engine: str) -> Adapter | None:
    """The vocabulary that the text speaks, the configured engine's tried first."""
    ordered = sorted(ADAPTERS, key=lambda adapter: adapter.engine != engine)
    return next((adapter for adapter in ordered if expo.mentions(adapter.marker)), None)
