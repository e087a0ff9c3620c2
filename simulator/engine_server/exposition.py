"""Prometheus text from families made at scrape time."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Protocol

from prometheus_client import generate_latest
from prometheus_client.metrics_core import Metric

from router.domain.state import EngineSignals
from simulator.engine_server.stats import Bounds, EngineStats, Histogram


@dataclass(frozen=True, slots=True)
class EngineFacts:
    """What an engine tells besides its counts.

    Attributes:
        model: the served name.
        max_model_len: context limit in tokens.
        max_running: most requests it runs at once.
        kv_capacity_tokens: KV cache size in tokens.
        block_tokens: KV tokens per block.
        prefix_caching: whether prompts are kept for reuse.
        tensor_parallel: cards.
        started_unix_s: when it started.
    """

    model: str
    max_model_len: int
    max_running: int
    kv_capacity_tokens: int
    block_tokens: int
    prefix_caching: bool
    tensor_parallel: int
    started_unix_s: float


class MetricsPage(Protocol):
    """How one engine words its metrics."""

    content_type: bytes
    bounds: Bounds

    def families(
        self, facts: EngineFacts, stats: EngineStats, signals: EngineSignals
    ) -> Iterable[Metric]:
        """Every family of a scrape."""


def render(families: Iterable[Metric]) -> bytes:
    """Prometheus text format."""
    return generate_latest(_Once(list(families)))


def merged(histograms: Sequence[Histogram]) -> tuple[list[tuple[str, float]], float]:
    """Buckets and sum of several histograms with the same bounds."""
    columns = zip(*[h.buckets() for h in histograms], strict=True)
    buckets = [(column[0][0], sum(count for _, count in column)) for column in columns]
    return buckets, sum(h.total for h in histograms)


class _Once:
    """A collector of ready families."""

    def __init__(self, families: list[Metric]) -> None:
        self._families = families

    def collect(self) -> Iterable[Metric]:
        return self._families
