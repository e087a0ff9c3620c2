"""SGLang 0.5.23's ``/metrics``: the names, labels and buckets a router may read."""

from __future__ import annotations

from collections.abc import Iterable

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from router.domain.state import EngineSignals
from simulator.engine_server.exposition import EngineFacts
from simulator.engine_server.stats import Bounds, EngineStats, Histogram

_COARSE = (0.1, 0.2, 0.4, 0.6, 0.8, 1.0, 2.0, 4.0, 6.0, 8.0)
_FINE = (0.002, 0.004, 0.006, 0.008, 0.01, 0.015, 0.02, 0.025, 0.03, 0.035, 0.04, 0.06, 0.08)
_LONG = (*_COARSE, 10.0, 20.0, 40.0, 60.0, 80.0, 100.0, 200.0, 400.0)
_RANK = ("moe_ep_rank", "pp_rank", "tp_rank")


class SglangMetrics:
    """See ``exposition.MetricsPage``."""

    content_type = b"text/plain; version=0.0.4; charset=utf-8"
    bounds = Bounds(
        ttft=_LONG,
        itl=(*_FINE, *_COARSE),
        tpot=(*_FINE, *_COARSE),
        e2e=(*_LONG, 600.0, 1200.0, 1800.0, 2400.0),
    )

    def families(
        self, facts: EngineFacts, stats: EngineStats, signals: EngineSignals
    ) -> Iterable[Metric]:
        """Every family of a scrape; gauges and counters are those of rank 0."""
        return [
            *_gauges(facts, stats, signals),
            *_counters(facts, stats, signals),
            *_histograms(facts, stats),
        ]


def used_tokens(facts: EngineFacts, signals: EngineSignals) -> int:
    """KV tokens in use."""
    return round((signals.kv_usage or 0.0) * facts.kv_capacity_tokens)


def hit_rate(stats: EngineStats) -> float:
    """Share of prompt tokens found in the cache so far."""
    return stats.cached_tokens / max(1, stats.cached_tokens + stats.computed_tokens)


def utilization(facts: EngineFacts, signals: EngineSignals) -> float:
    """Running requests over the limit."""
    return (signals.running or 0) / max(1, facts.max_running)


def _gauges(facts: EngineFacts, stats: EngineStats, signals: EngineSignals) -> Iterable[Metric]:
    used = used_tokens(facts, signals)
    told: dict[str, tuple[str, float]] = {
        "max_total_num_tokens": ("Tokens in the KV cache pool.", facts.kv_capacity_tokens),
        "context_len": ("Maximum context length.", facts.max_model_len),
        "num_running_reqs": ("The number of running requests.", signals.running or 0),
        "num_queue_reqs": ("Requests in the waiting queue.", signals.waiting or 0),
        "cache_hit_rate": ("The prefix cache hit rate.", hit_rate(stats)),
        "token_usage": ("The token usage.", signals.kv_usage or 0.0),
        "full_token_usage": ("Usage of full attention layers.", signals.kv_usage or 0.0),
        "num_used_tokens": ("The number of used tokens.", used),
        "kv_used_tokens": ("Actively used token slots.", used),
        "utilization": ("The utilization.", utilization(facts, signals)),
    }
    for name, (help_, value) in told.items():
        family = GaugeMetricFamily(
            f"sglang:{name}", help_, labels=("engine_type", "model_name", *_RANK)
        )
        family.add_metric(("unified", facts.model, "0", "0", "0"), value)
        yield family


def _counters(facts: EngineFacts, stats: EngineStats, signals: EngineSignals) -> Iterable[Metric]:
    by_stream = stats.traffic.items()
    shown = {
        "prompt_tokens": {s: t.prompt_tokens for s, t in by_stream},
        "generation_tokens": {s: t.generation_tokens for s, t in by_stream},
        "num_requests": {s: t.requests for s, t in by_stream},
    }
    for name, values in shown.items():
        labels = ("engine_type", "is_streaming", "model_name")
        family = CounterMetricFamily(f"sglang:{name}", f"Total {name}.", labels=labels)
        for stream, value in values.items():
            family.add_metric(("unified", _flag(stream), facts.model), value)
        yield family
    effective = CounterMetricFamily(
        "sglang:prefill_effective_tokens",
        "Effective prefill tokens.",
        labels=("engine_type", "mode", "model_name", *_RANK),
    )
    modes = {"input": stats.computed_tokens, "device_hit": stats.cached_tokens}
    for mode, value in (modes | {"host_hit": 0, "storage_hit": 0}).items():
        effective.add_metric(("unified", mode, facts.model, "0", "0", "0"), value)
    yield effective
    cached = CounterMetricFamily(
        "sglang:cached_tokens",
        "Number of cached prompt tokens by source.",
        labels=("cache_source", "engine_type", "model_name"),
    )
    cached.add_metric(("device", "unified", facts.model), stats.cached_tokens)
    yield cached
    aborted = CounterMetricFamily(
        "sglang:num_aborted_requests",
        "Number of requests aborted.",
        labels=("engine_type", "model_name"),
    )
    aborted.add_metric(("unified", facts.model), stats.aborted)
    yield aborted
    retracted = CounterMetricFamily(
        "sglang:num_retracted_requests",
        "Number of retracted requests.",
        labels=("engine_type", "model_name", *_RANK),
    )
    retracted.add_metric(("unified", facts.model, "0", "0", "0"), signals.preemptions or 0)
    yield retracted


def _histograms(facts: EngineFacts, stats: EngineStats) -> Iterable[Metric]:
    by_stream = stats.traffic.items()
    shown: dict[str, dict[bool, Histogram]] = {
        "time_to_first_token_seconds": {s: t.ttft_s for s, t in by_stream},
        "e2e_request_latency_seconds": {s: t.e2e_s for s, t in by_stream},
        "request_time_per_output_token_seconds": {s: t.tpot_s for s, t in by_stream},
    }
    for name, values in shown.items():
        labels = ("engine_type", "is_streaming", "model_name")
        family = HistogramMetricFamily(f"sglang:{name}", _help(name), labels=labels)
        for stream, histogram in values.items():
            where = ("unified", _flag(stream), facts.model)
            family.add_metric(where, histogram.buckets(), histogram.total)
        yield family
    itl = "inter_token_latency_seconds"
    gaps = HistogramMetricFamily(f"sglang:{itl}", _help(itl), labels=("engine_type", "model_name"))
    gaps.add_metric(("unified", facts.model), stats.itl_s.buckets(), stats.itl_s.total)
    yield gaps


def _help(name: str) -> str:
    return f"Histogram of {name.replace('_', ' ')}."


def _flag(stream: bool) -> str:
    return "true" if stream else "false"
