"""ORCA: load figures that ride on an engine's answer, for free.

vLLM answers a request that carries ``endpoint-load-metrics-format: TEXT`` (or ``JSON``) with a
header ``endpoint-load-metrics``; Triton with TensorRT-LLM does the same. It costs no scrape and
is as fresh as the answer (Envoy's Open Request Cost Aggregation).
"""

from __future__ import annotations

import msgspec

from router.domain.state import EngineSignals
from telemetry.engine_metrics import MOST_TOKENS, share, whole
from telemetry.exposition import Problems, checked

REQUEST_HEADER = "endpoint-load-metrics-format"
RESPONSE_HEADER = "endpoint-load-metrics"
MAX_HEADER_BYTES = 8192

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
