"""vLLM 0.32.0's ``/metrics``: the names, labels and buckets a router may read."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from prometheus_client.metrics_core import (
    CounterMetricFamily,
    GaugeMetricFamily,
    HistogramMetricFamily,
    Metric,
)

from router.domain.state import EngineSignals
from simulator.engine_server.exposition import EngineFacts, merged
from simulator.engine_server.stats import Bounds, EngineStats, Histogram

_TPOT = (0.01, 0.025, 0.05, 0.075, 0.1, 0.15, 0.2, 0.3, 0.4, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
_TTFT = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5)
_E2E = (0.3, 0.5, 0.8, 1.0, 1.5, 2.0, 2.5, 5.0, 10.0, 15.0, 20.0, 30.0, 40.0, 50.0, 60.0, 120.0)


class VllmMetrics:
    """See ``exposition.MetricsPage``."""

    content_type = b"text/plain; version=1.0.0; charset=utf-8"
    bounds = Bounds(
        ttft=(*_TTFT, 10.0, 20.0, 40.0, 80.0, 160.0, 640.0, 2560.0),
        itl=(*_TPOT, 20.0, 40.0, 80.0),
        tpot=(*_TPOT, 20.0, 40.0, 80.0),
        e2e=(*_E2E, 240.0, 480.0, 960.0, 1920.0, 7680.0),
    )

    def families(
        self, facts: EngineFacts, stats: EngineStats, signals: EngineSignals
    ) -> Iterable[Metric]:
        """Every family of a scrape."""
        return [
            _process(facts),
            *_gauges(facts, signals),
            *_counters(facts, stats, signals),
            *_histograms(facts, stats),
            _cache_config(facts),
        ]


def _process(facts: EngineFacts) -> Metric:
    """By this a scraper sees that the engine was restarted."""
    family = GaugeMetricFamily("process_start_time_seconds", "Start time of the process.")
    family.add_metric((), facts.started_unix_s)
    return family


def _gauges(facts: EngineFacts, signals: EngineSignals) -> Iterable[Metric]:
    waiting = signals.waiting or 0
    yield _gauge(facts, "num_requests_running", "Number of requests running.", signals.running)
    yield _gauge(facts, "num_requests_waiting", "Number of requests waiting.", waiting)
    by_reason = GaugeMetricFamily(
        "vllm:num_requests_waiting_by_reason",
        "Number of waiting requests by reason.",
        labels=("engine", "model_name", "reason"),
    )
    by_reason.add_metric(("0", facts.model, "capacity"), waiting)
    by_reason.add_metric(("0", facts.model, "deferred"), 0)
    yield by_reason
    usage = "KV-cache usage. 1 means 100 percent usage."
    yield _gauge(facts, "kv_cache_usage_perc", usage, signals.kv_usage)


def _counters(facts: EngineFacts, stats: EngineStats, signals: EngineSignals) -> Iterable[Metric]:
    cached, prompt = stats.cached_tokens, stats.prompt_tokens
    plain = {
        "prefix_cache_queries": ("Tokens looked up.", prompt if facts.prefix_caching else 0),
        "prefix_cache_hits": ("Tokens found.", cached),
        "num_preemptions": ("Preemptions.", signals.preemptions or 0),
        "prompt_tokens": ("Prefill tokens processed.", prompt),
        "prompt_tokens_cached": ("Cached prompt tokens.", cached),
        "generation_tokens": ("Generation tokens processed.", stats.generation_tokens),
    }
    for name, (help_, value) in plain.items():
        yield _counter(facts, name, help_, {"": value})
    sources = {"local_compute": stats.computed_tokens, "local_cache_hit": cached}
    sources["external_kv_transfer"] = 0
    yield _counter(facts, "prompt_tokens_by_source", "Prompt tokens.", sources, "source")
    # A client that leaves is not counted, seen on the real engine: "abort" stays at 0.
    reasons: dict[str, float] = {"abort": 0, "error": 0, "repetition": 0}
    reasons |= {str(reason): count for reason, count in stats.finished.items()}
    yield _counter(facts, "request_success", "Requests done.", reasons, "finished_reason")
    yield _rejections(facts, stats)


def _rejections(facts: EngineFacts, stats: EngineStats) -> Metric:
    refused = CounterMetricFamily(
        "vllm:admission_rejections",
        "Number of admission attempts rejected by a queue limit, by reason.",
        labels=("model_name", "reason"),
    )
    started = facts.started_unix_s
    refused.add_metric((facts.model, "max_num_queued_reqs"), stats.rejected, created=started)
    refused.add_metric((facts.model, "max_num_queued_tokens"), 0, created=started)
    return refused


def _histograms(facts: EngineFacts, stats: EngineStats) -> Iterable[Metric]:
    traffic = list(stats.traffic.values())
    shown = {
        "time_to_first_token_seconds": [t.ttft_s for t in traffic],
        "inter_token_latency_seconds": [stats.itl_s],
        "request_time_per_output_token_seconds": [t.tpot_s for t in traffic],
        "e2e_request_latency_seconds": [t.e2e_s for t in traffic],
    }
    for name, histograms in shown.items():
        yield _histogram(facts, name, histograms)


def _gauge(facts: EngineFacts, name: str, help_: str, value: float | None) -> Metric:
    family = GaugeMetricFamily(f"vllm:{name}", help_, labels=("engine", "model_name"))
    family.add_metric(("0", facts.model), value or 0)
    return family


def _counter(
    facts: EngineFacts, name: str, help_: str, values: Mapping[str, float], label: str = ""
) -> Metric:
    """``values`` by the value of ``label``; without a label, one value under ``""``."""
    names = ("engine", "model_name", label) if label else ("engine", "model_name")
    family = CounterMetricFamily(f"vllm:{name}", help_, labels=names)
    for key, value in values.items():
        labels = ("0", facts.model, key) if label else ("0", facts.model)
        family.add_metric(labels, value, created=facts.started_unix_s)
    return family


def _histogram(facts: EngineFacts, name: str, histograms: list[Histogram]) -> Metric:
    words = name.replace("_", " ")
    family = HistogramMetricFamily(
        f"vllm:{name}", f"Histogram of {words}.", labels=("engine", "model_name")
    )
    buckets, total = merged(histograms)
    family.add_metric(("0", facts.model), buckets, total)
    return family


def _cache_config(facts: EngineFacts) -> Metric:
    """Capacity, told only here: ``num_gpu_blocks`` times ``block_size`` tokens."""
    labels = {
        "block_size": str(facts.block_tokens),
        "cache_dtype": "auto",
        "enable_prefix_caching": str(facts.prefix_caching),
        "engine": "0",
        "kv_cache_size_tokens": str(facts.kv_capacity_tokens),
        "num_gpu_blocks": str(facts.kv_capacity_tokens // facts.block_tokens),
    }
    family = GaugeMetricFamily(
        "vllm:cache_config_info",
        "Information of the LLMEngine CacheConfig",
        labels=list(labels),
    )
    family.add_metric(list(labels.values()), 1)
    return family
