"""SGLang's ``GET /v1/loads``: the load of every data-parallel rank, and what card it runs on.

A tenth of the bytes of ``/metrics``, and there without ``--enable-metrics``. Like the gauges it
moves only every ``decode_log_interval`` steps, so the router's own counts remain the fresher.
"""

from __future__ import annotations

import msgspec

from router.domain.state import EngineSignals
from telemetry.engine_metrics import (
    MOST_REQUESTS,
    MOST_TOKENS,
    Reading,
    share,
    whole,
)
from telemetry.exposition import MAX_BYTES, Problems, checked


class _Rank(msgspec.Struct):
    """One data-parallel rank; anything may be absent or of the wrong type."""

    num_running_reqs: object = None
    num_waiting_reqs: object = None
    token_usage: object = None
    max_total_num_tokens: object = None
    cache_hit_rate: object = None
    gen_throughput: object = None


class _Loads(msgspec.Struct):
    loads: list[_Rank]
    accelerator: object = None
    num_accelerators: object = None


def read_loads(text: str | bytes, observed_s: float, problems: Problems | None = None) -> Reading:
    """Read the signals out of one ``/v1/loads`` answer; never raises, whatever the text."""
    noted = problems if problems is not None else Problems()
    if len(text) > MAX_BYTES:
        noted.note("too_large")
        return Reading(EngineSignals(observed_s))
    try:
        answer = msgspec.json.decode(text, type=_Loads)
    except (msgspec.DecodeError, UnicodeError, RecursionError):
        noted.note("not_json")
        return Reading(EngineSignals(observed_s))
    ranks = answer.loads
    usage, hit_ratio = _all(ranks, "token_usage", noted), _all(ranks, "cache_hit_rate", noted)
    signals = EngineSignals(
        observed_s=observed_s,
        running=whole(_sum(_all(ranks, "num_running_reqs", noted)), noted, MOST_REQUESTS),
        waiting=whole(_sum(_all(ranks, "num_waiting_reqs", noted)), noted, MOST_REQUESTS),
        kv_usage=share(_mean(usage), noted),
        kv_capacity_tokens=whole(
            _sum(_all(ranks, "max_total_num_tokens", noted)) or None, noted, MOST_TOKENS
        ),
        prefix_hit_ratio=share(_mean(hit_ratio), noted),
        gen_tokens_per_s=_sum(_all(ranks, "gen_throughput", noted)),
    )
    card = answer.accelerator
    return Reading(signals, engine="sglang", accelerator=card if isinstance(card, str) else "")


def _all(ranks: list[_Rank], name: str, problems: Problems) -> list[float] | None:
    """The figure of every rank; ``None`` if one of them does not say, as a part is no total."""
    values: list[float] = []
    for rank in ranks:
        given = getattr(rank, name)
        number = None if given is None else checked(given, problems)
        if number is None:
            return None
        values.append(number)
    return values or None


def _sum(values: list[float] | None) -> float | None:
    return None if values is None else sum(values)


def _mean(values: list[float] | None) -> float | None:
    return None if values is None else sum(values) / len(values)
