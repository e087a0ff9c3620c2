"""ORCA: load figures that ride on an engine's answer, for free.

vLLM answers a request that carries ``endpoint-load-metrics-format: TEXT`` (or ``JSON``) with a
header ``endpoint-load-metrics``; Triton with TensorRT-LLM does the same. It costs no scrape and
is as fresh as the answer (Envoy's Open Request Cost Aggregation).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import fields, replace

import msgspec

from router.domain.state import EngineSignals
from telemetry.engine_metrics import MOST_TOKENS, share, whole
from telemetry.exposition import Problems, checked

MAX_HEADER_BYTES = 8192
PAUSE_S = 0.1
"""A busy engine answers a hundred times a second; its load is worth a look ten times."""

_FIGURES = tuple(f.name for f in fields(EngineSignals) if f.name != "observed_s")

_KV_USAGE = ("kv_cache_usage_perc", "kv_cache_utilization")
_WAITING = ("num_requests_waiting",)
_RUNNING = ("num_requests_running",)
_CAPACITY = ("max_token_capacity",)


class _Report(msgspec.Struct):
    named_metrics: dict[str, object] = msgspec.field(default_factory=dict)


def parse_orca(
    header: str, observed_s: float, problems: Problems | None = None
) -> EngineSignals | None:
    """Read one ``endpoint-load-metrics`` header; ``None`` if it says nothing usable.

    Both native forms are read: ``TEXT named_metrics.a=0.5, named_metrics.b=3`` and
    ``JSON {"named_metrics": {"a": 0.5}}``.
    """
    noted = problems if problems is not None else Problems()
    if len(header) > MAX_HEADER_BYTES:
        noted.note("too_large")
        return None
    kind, _, body = header.strip().partition(" ")
    named = _from_json(body, noted) if kind.upper() == "JSON" else _from_text(body)
    signals = EngineSignals(
        observed_s=observed_s,
        running=whole(_pick(named, _RUNNING, noted), noted),
        waiting=whole(_pick(named, _WAITING, noted), noted),
        kv_usage=share(_pick(named, _KV_USAGE, noted), noted),
        kv_capacity_tokens=whole(_pick(named, _CAPACITY, noted) or None, noted, MOST_TOKENS),
    )
    return None if signals == EngineSignals(observed_s) else signals


def _from_text(body: str) -> dict[str, object]:
    named: dict[str, object] = {}
    for entry in body.split(","):
        key, equals, value = entry.strip().partition("=")
        if equals and key.startswith("named_metrics."):
            named[key.removeprefix("named_metrics.")] = value
    return named


def _from_json(body: str, problems: Problems) -> dict[str, object]:
    try:
        return msgspec.json.decode(body, type=_Report).named_metrics
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        problems.note("not_json")
        return {}


def _pick(named: dict[str, object], names: tuple[str, ...], problems: Problems) -> float | None:
    for name in names:
        if name in named:
            return checked(named[name], problems)
    return None


class OrcaMerge:
    """Puts the few figures of an ORCA header into what the last scrape told.

    Args:
        latest: the signals that a backend has now; ``None`` without any.
        sink: takes (backend, signals), as for a scrape.
        fresh_s: signals older than this are not built upon.
        pause_s: least time between two merges of one backend; headers in between are left out.
    """

    def __init__(
        self,
        latest: Callable[[str], EngineSignals | None],
        sink: Callable[[str, EngineSignals], None],
        *,
        fresh_s: float,
        pause_s: float = PAUSE_S,
    ) -> None:
        self._latest, self._sink = latest, sink
        self._fresh_s, self._pause_s = fresh_s, pause_s
        self._merged_s: dict[str, float] = {}
        self.read: dict[str, int] = {}
        self.problems = Problems()

    def see(self, backend: str, header: bytes, now: float) -> None:
        """Take one header that came with an answer of ``backend``."""
        if 0.0 <= now - self._merged_s.get(backend, -math.inf) < self._pause_s:
            return
        self._merged_s[backend] = now
        told = parse_orca(header.decode("latin-1"), now, self.problems)
        if told is None:
            return
        self.read[backend] = self.read.get(backend, 0) + 1
        before = self._latest(backend)
        if before is not None and 0.0 <= now - before.observed_s <= self._fresh_s:
            told = _merged(before, told)
        self._sink(backend, told)

    def forget(self, backend: str) -> None:
        """Drop a backend that left."""
        self._merged_s.pop(backend, None)
        self.read.pop(backend, None)


def _merged(before: EngineSignals, told: EngineSignals) -> EngineSignals:
    """What ORCA tells over what was scraped; figures of two ages bear the older one's."""
    given = {name: getattr(told, name) for name in _FIGURES if getattr(told, name) is not None}
    old = any(getattr(before, name) is not None for name in _FIGURES if name not in given)
    return replace(before, **given, observed_s=before.observed_s if old else told.observed_s)
