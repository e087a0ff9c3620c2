"""Which series of which engine means what: one table, six vocabularies, three vLLM generations.

Names were read off real scrapes (vLLM 0.32, SGLang 0.5.23, llama.cpp's build 10434), the engines'
sources and, for TGI and TensorRT-LLM, their documentation. The V100 of a mixed fleet runs an old
vLLM, so old names are not history: they are the other half of the fleet.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

from telemetry.exposition import Exposition, Series

RANK_LABELS = frozenset({"tp_rank", "pp_rank", "moe_ep_rank", "pid"})
"""Ranks of one engine report the same queue: their series are copies, not parts."""


@dataclass(frozen=True, slots=True)
class Source:
    """Where a figure comes from.

    Attributes:
        names: families that are added up; the figure exists if the first of them does.
        where: label that must hold one of these values, e.g. ``("mode", {"input"})``.
    """

    names: tuple[str, ...]
    where: tuple[str, frozenset[str]] | None = None


Alternatives = tuple[Source, ...]
"""Tried in order, the newest name first; the first that exists counts."""


@dataclass(frozen=True, slots=True)
class Adapter:
    """How to read one vocabulary; an empty tuple means that it has no such signal."""

    engine: str
    marker: str
    running: Alternatives = ()
    waiting: Alternatives = ()
    waiting_by_reason: Alternatives = ()
    kv_usage: Alternatives = ()
    prefix_hits: Alternatives = ()
    prefix_queries: Alternatives = ()
    prefix_hit_ratio: Alternatives = ()
    preemptions: Alternatives = ()
    gen_rate: Alternatives = ()
    started: Alternatives = ()
    kv_capacity: Callable[[Exposition], float | None] = lambda _: None


def total(expo: Exposition, alternatives: Alternatives) -> float | None:
    """Add up the first source that exists: over data-parallel ranks, once per rank group."""
    for source in alternatives:
        parts = _parts(expo, source)
        if parts is not None:
            return sum(parts)
    return None


def mean(expo: Exposition, alternatives: Alternatives) -> float | None:
    """Average of a share over data-parallel ranks, which have equal KV caches."""
    for source in alternatives:
        parts = _parts(expo, source)
        if parts:
            return sum(parts) / len(parts)
    return None


def by_label(expo: Exposition, alternatives: Alternatives, label: str) -> dict[str, float]:
    """Split of a figure by the values of one label; empty when there is none."""
    split: dict[str, float] = {}
    for source in alternatives:
        for series in expo.series(source.names[0]):
            if label in series.labels:
                value = series.labels[label]
                split[value] = split.get(value, 0.0) + series.value
        if split:
            break
    return split


def _parts(expo: Exposition, source: Source) -> list[float] | None:
    first = _distinct(expo, source.names[0], source.where)
    if not first:
        return None
    parts = list(first.values())
    for name in source.names[1:]:
        parts.extend(_distinct(expo, name, source.where).values())
    return parts


def _distinct(
    expo: Exposition, name: str, where: tuple[str, frozenset[str]] | None
) -> dict[frozenset[tuple[str, str]], float]:
    """Values by label set, copies from other ranks of the same engine merged."""
    merged: dict[frozenset[tuple[str, str]], float] = {}
    found = _totals_only(expo, expo.series(name))
    if where is not None:
        found = [series for series in found if series.labels.get(where[0]) in where[1]]
    if len(found) == 1:
        return {frozenset(): found[0].value}
    for series in found:
        key = frozenset((k, v) for k, v in series.labels.items() if k not in RANK_LABELS)
        merged[key] = max(series.value, merged.get(key, 0.0))
    return merged


def _totals_only(expo: Exposition, found: Sequence[Series]) -> Sequence[Series]:
    """With priority scheduling SGLang adds one series per priority to the total ``""``."""
    if not any("priority" in series.labels for series in found):
        return found
    totals = [series for series in found if series.labels.get("priority", "") == ""]
    if not totals:
        expo.problems.note("no_total")
    return totals


def _info_capacity(
    name: str, tokens: str, blocks: str, block_tokens: str
) -> Callable[[Exposition], float | None]:
    """KV tokens from an info series, whose figures are label values."""

    def capacity(expo: Exposition) -> float | None:
        sizes = [
            _label_number(series.labels, tokens)
            or _label_number(series.labels, blocks) * _label_number(series.labels, block_tokens)
            for series in expo.series(name)
        ]
        return sum(sizes) or None

    return capacity


def _label_number(labels: Mapping[str, str], name: str) -> float:
    """A label as a whole number; 0 for absent, ``"None"`` and worse."""
    value = labels.get(name, "")
    return float(value) if value.isascii() and value.isdigit() and len(value) < 16 else 0.0


def _gauge_capacity(alternatives: Alternatives) -> Callable[[Exposition], float | None]:
    return lambda expo: total(expo, alternatives) or None


def _one(*names: str) -> Alternatives:
    return tuple(Source((name,)) for name in names)


def _sglang(prefix: str) -> Adapter:
    hit_modes = frozenset({"device_hit", "host_hit", "storage_hit"})
    computed = f"{prefix}prefill_effective_tokens_total"
    return Adapter(
        engine="sglang",
        marker=prefix,
        running=_one(f"{prefix}num_running_reqs"),
        waiting=(Source((f"{prefix}num_queue_reqs", f"{prefix}num_grammar_queue_reqs")),),
        kv_usage=_one(f"{prefix}token_usage"),
        prefix_hits=(
            Source((computed,), ("mode", hit_modes)),
            Source((f"{prefix}cached_tokens_total",)),
        ),
        prefix_queries=(
            Source((computed,), ("mode", hit_modes | {"input"})),
            Source((f"{prefix}prompt_tokens_total",)),
        ),
        prefix_hit_ratio=_one(f"{prefix}cache_hit_rate"),
        preemptions=_one(f"{prefix}num_retracted_requests_total"),
        gen_rate=_one(f"{prefix}gen_throughput"),
        kv_capacity=_gauge_capacity(_one(f"{prefix}max_total_num_tokens")),
    )


def _triton_capacity(expo: Exposition) -> float | None:
    family = "nv_trt_llm_kv_cache_block_metrics"
    kind = "kv_cache_block_type"
    blocks = total(expo, (Source((family,), (kind, frozenset({"max"}))),))
    size = mean(expo, (Source((family,), (kind, frozenset({"tokens_per"}))),))
    return blocks * size if blocks and size else None


def _triton(kind: str) -> Source:
    return Source(("nv_trt_llm_request_metrics",), ("request_type", frozenset({kind})))


_LLAMACPP_CACHED = "llamacpp:prompt_tokens_cached_total"
ADAPTERS: tuple[Adapter, ...] = (
    Adapter(
        engine="vllm",
        marker="vllm:",
        running=_one("vllm:num_requests_running"),
        # V0 swapped sequences out to the CPU: they wait for KV like any other.
        waiting=(
            Source(("vllm:num_requests_waiting", "vllm:num_requests_swapped")),
            Source(("vllm:num_requests_waiting_by_reason",)),
        ),
        waiting_by_reason=_one("vllm:num_requests_waiting_by_reason"),
        kv_usage=_one("vllm:kv_cache_usage_perc", "vllm:gpu_cache_usage_perc"),
        prefix_hits=_one(
            "vllm:prefix_cache_hits_total",
            "vllm:gpu_prefix_cache_hits_total",
            "vllm:prefix_cache_hits",
            "vllm:gpu_prefix_cache_hits",
        ),
        prefix_queries=_one(
            "vllm:prefix_cache_queries_total",
            "vllm:gpu_prefix_cache_queries_total",
            "vllm:prefix_cache_queries",
            "vllm:gpu_prefix_cache_queries",
        ),
        prefix_hit_ratio=_one("vllm:gpu_prefix_cache_hit_rate"),
        preemptions=_one("vllm:num_preemptions_total", "vllm:num_preemptions"),
        started=_one("process_start_time_seconds"),
        kv_capacity=_info_capacity(
            "vllm:cache_config_info", "kv_cache_size_tokens", "num_gpu_blocks", "block_size"
        ),
    ),
    _sglang("sglang:"),
    _sglang("sglang_"),
    Adapter(
        engine="llamacpp",
        marker="llamacpp:",
        running=_one("llamacpp:requests_processing"),
        waiting=_one("llamacpp:requests_deferred"),
        kv_usage=_one("llamacpp:kv_cache_usage_ratio"),  # until 2025
        prefix_hits=_one(_LLAMACPP_CACHED),
        prefix_queries=(Source((_LLAMACPP_CACHED, "llamacpp:prompt_tokens_total")),),
        gen_rate=_one("llamacpp:predicted_tokens_seconds"),
    ),
    Adapter(
        engine="tgi",
        marker="tgi_",
        running=_one("tgi_batch_current_size"),
        waiting=_one("tgi_queue_size"),
    ),
    Adapter(
        engine="trtllm",
        marker="trtllm_",
        running=_one("trtllm_num_requests_running"),
        waiting=_one("trtllm_num_requests_waiting"),
        kv_usage=_one("trtllm_kv_cache_utilization"),
        prefix_hit_ratio=_one("trtllm_kv_cache_hit_rate"),
    ),
    Adapter(
        engine="trtllm",
        marker="nv_trt_llm_",
        running=(_triton("scheduled"), _triton("active")),
        waiting=(_triton("waiting"),),
        kv_usage=(
            Source(
                ("nv_trt_llm_kv_cache_block_metrics",),
                ("kv_cache_block_type", frozenset({"fraction"})),
            ),
        ),
        kv_capacity=_triton_capacity,
    ),
)
"""Every vocabulary known, the commonest first."""
