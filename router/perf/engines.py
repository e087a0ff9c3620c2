"""What each engine does when its user sets nothing, by version and GPU.

Sources: vLLM 0.10.2 to 0.33.0 and SGLang 0.5.23, read from their source; vLLM's feature table
(docs/features/README.md) for what Volta lacks; llama-server's help (tools/server/README.md).
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Literal

from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec
from router.perf.engine_args import settings_of
from router.perf.specs import GpuSpec, ModelSpec

Version = tuple[int, int, int]
Scheduler = Literal["vllm-v0", "vllm-v1", "sglang"]

NEWEST: dict[str, Version] = {"vllm": (0, 33, 0), "sglang": (0, 5, 23)}
ANY: Version = (0, 0, 0)
"""Of llama.cpp: builds have numbers (b6500), and none is known to schedule otherwise."""
LLAMACPP_SLOTS, LLAMACPP_BATCH, LLAMACPP_SPARE_GIB = 4, 2_048, 1.0
NEWEST_VLLM_ON_VOLTA: Version = (0, 18, 1)
"""Last release reported working on a V100 (Triton attention, float16, CUDA 12 build)."""

FIRST_VLLM_V1: Version = (0, 8, 0)
FIRST_VLLM_V1_BELOW_AMPERE: Version = (0, 10, 2)
"""V1 is the default from here on; V0 left the code in 0.11."""
FIRST_VLLM_ASYNC: Version = (0, 16, 0)
FIRST_VLLM_092: Version = (0, 19, 0)
"""0.90 of the memory up to 0.18.1, 0.92 in 0.20.0; 0.19 was not checked."""
FIRST_VLLM_RESERVES_PROMPT: Version = (0, 20, 0)

UNCHUNKED_CONTEXT_TOKENS = 16_384
"""Context limit assumed where the engine cannot chunk a prompt and the file sets none: the whole
prompt is one iteration, so its operator has to bound it (and its activations)."""


@dataclass(frozen=True, slots=True)
class EngineDefaults:
    """Settings of one engine, resolved for one backend.

    Attributes:
        max_num_seqs: most requests running at once.
        max_num_batched_tokens: token budget of one iteration (SGLang: of one prefill chunk).
        block_tokens: tokens per KV block (SGLang pages hold one token).
        chunked_prefill: whether a prompt may be split over iterations.
        prefix_caching: whether finished prompts are kept for reuse.
        schedule_ahead: iterations scheduled before the running one ends (0 or 1).
        gpu_memory_utilization: share of the memory the engine claims. vLLM: weights,
            activations and KV; SGLang (``mem_fraction_static``): weights and KV only.
        scheduler: which of the three schedulers runs.
        version: the release these hold for.
        reserves_full_prompt: whether admission needs KV blocks for the whole prompt.
        max_prefill_tokens: SGLang's cap on one prefill batch; 0 where there is none.
        kv_blocks, kv_tokens: size of the KV cache where its operator set it.
        most_kv_tokens: it takes no more, however much memory there is (llama.cpp: one context,
            which its slots share); ``None``: all that is left.
        watermark: share of the KV blocks that new prompts must leave free (vLLM); ``None``: as
            the scheduler has it.
        queue_order: SGLang's ``schedule_policy``.
        schedule_conservativeness: SGLang: scales what it reserves for outputs.
        max_num_queued_reqs: queue length at which the engine answers 503; ``None``: no limit.
    """

    max_num_seqs: int
    max_num_batched_tokens: int
    block_tokens: int
    chunked_prefill: bool
    prefix_caching: bool
    schedule_ahead: int
    gpu_memory_utilization: float
    scheduler: Scheduler
    version: Version
    reserves_full_prompt: bool
    max_prefill_tokens: int = 0
    kv_blocks: int | None = None
    kv_tokens: int | None = None
    most_kv_tokens: int | None = None
    watermark: float | None = None
    queue_order: Literal["fcfs", "lpm"] = "fcfs"
    schedule_conservativeness: float = 1.0
    max_num_queued_reqs: int | None = None

    @property
    def set_kv_tokens(self) -> int | None:
        """Size of the KV cache in tokens, where its operator set it."""
        return self.kv_tokens if self.kv_blocks is None else self.kv_blocks * self.block_tokens


def resolve_version(spec: BackendSpec, gpu: GpuSpec) -> Version:
    """The release a backend runs; an empty version means the newest that runs on its GPU.

    Raises:
        ConfigError: the version is not of the form 0.18.1.
    """
    if spec.engine == "llamacpp":
        return ANY
    if spec.engine_version:
        return _parse_version(spec.name, spec.engine_version)
    if spec.engine == "vllm" and gpu.architecture == "volta":
        return NEWEST_VLLM_ON_VOLTA
    return NEWEST[spec.engine]


def resolve_engine(spec: BackendSpec, gpu: GpuSpec, model: ModelSpec) -> EngineDefaults:
    """The engine's defaults with the settings of ``spec`` laid over them.

    Raises:
        ConfigError: a version or a flag that makes no sense.
    """
    version = resolve_version(spec, gpu)
    settings = settings_of(spec)
    if spec.engine == "sglang":
        chunk = settings.get("max_num_batched_tokens") or spec.max_num_batched_tokens
        return replace(_sglang(spec, gpu, version, chunk), **settings)
    if spec.engine == "llamacpp":
        return replace(_llamacpp(spec, gpu, model), **settings)
    return replace(_vllm(spec, gpu, model, version), **settings)


def context_limit_tokens(spec: BackendSpec, gpu: GpuSpec, model: ModelSpec) -> int:
    """Longest prompt plus output, before KV capacity is considered."""
    limit = spec.max_model_len or model.max_context_tokens
    whole = spec.engine == "vllm" and not _chunks_prefill(resolve_scheduler(spec, gpu), gpu)
    if spec.max_model_len is None and whole:
        return min(limit, UNCHUNKED_CONTEXT_TOKENS)
    return limit


def resolve_scheduler(spec: BackendSpec, gpu: GpuSpec) -> Scheduler:
    """Which scheduler the backend's engine and version run.

    llama.cpp's batches are like vLLM V1's: a token of every running request, and what is left of
    the batch for prompts.
    """
    if spec.engine == "sglang":
        return "sglang"
    if spec.engine == "llamacpp":
        return "vllm-v1"
    first_v1 = FIRST_VLLM_V1 if gpu.supports_bf16 else FIRST_VLLM_V1_BELOW_AMPERE
    return "vllm-v1" if resolve_version(spec, gpu) >= first_v1 else "vllm-v0"


def _vllm(spec: BackendSpec, gpu: GpuSpec, model: ModelSpec, version: Version) -> EngineDefaults:
    scheduler = resolve_scheduler(spec, gpu)
    chunked = _chunks_prefill(scheduler, gpu)
    # vLLM's large tier: 70 GiB or more, the A100 excluded by name.
    large = gpu.memory_gib >= 70 and not gpu.name.startswith("a100")
    budget = 8_192 if large else 2_048
    if not chunked:
        budget = max(budget, context_limit_tokens(spec, gpu, model))
    return EngineDefaults(
        max_num_seqs=spec.max_num_seqs or (1_024 if large else 256),
        max_num_batched_tokens=spec.max_num_batched_tokens or budget,
        block_tokens=16,
        chunked_prefill=chunked,
        prefix_caching=chunked,
        schedule_ahead=1 if version >= FIRST_VLLM_ASYNC else 0,
        gpu_memory_utilization=0.92 if version >= FIRST_VLLM_092 else 0.90,
        scheduler=scheduler,
        version=version,
        reserves_full_prompt=version >= FIRST_VLLM_RESERVES_PROMPT,
    )


def _sglang(
    spec: BackendSpec, gpu: GpuSpec, version: Version, chunk_tokens: int | None
) -> EngineDefaults:
    chunk = chunk_tokens or _sglang_chunk_tokens(gpu)
    return EngineDefaults(
        max_num_seqs=spec.max_num_seqs or 2_048,
        max_num_batched_tokens=chunk,
        block_tokens=1,
        chunked_prefill=True,
        prefix_caching=True,
        schedule_ahead=1,
        gpu_memory_utilization=_sglang_memory_fraction(gpu, chunk, spec.tensor_parallel),
        scheduler="sglang",
        version=version,
        reserves_full_prompt=True,
        max_prefill_tokens=16_384,
    )


def _llamacpp(spec: BackendSpec, gpu: GpuSpec, model: ModelSpec) -> EngineDefaults:
    return EngineDefaults(
        max_num_seqs=spec.max_num_seqs or LLAMACPP_SLOTS,
        max_num_batched_tokens=spec.max_num_batched_tokens or LLAMACPP_BATCH,
        block_tokens=1,
        chunked_prefill=True,
        prefix_caching=True,
        schedule_ahead=0,
        gpu_memory_utilization=round(1.0 - LLAMACPP_SPARE_GIB / gpu.memory_gib, 3),
        scheduler="vllm-v1",
        version=ANY,
        reserves_full_prompt=True,
        most_kv_tokens=context_limit_tokens(spec, gpu, model),
    )


def _sglang_chunk_tokens(gpu: GpuSpec) -> int:
    if gpu.memory_gib < 20:
        return 2_048
    if gpu.memory_gib < 60:
        return 4_096
    return 8_192 if gpu.memory_gib < 160 else 16_384


def _sglang_memory_fraction(gpu: GpuSpec, chunk_tokens: int, tensor_parallel: int) -> float:
    """``mem_fraction_static``: what is left after activations, graphs and communication."""
    graph_batch = _sglang_graph_batch(gpu)
    reserved_mib = 512 + 1.5 * chunk_tokens + 2.0 * graph_batch + tensor_parallel / 8 * 1024
    if gpu.memory_gib > 60:
        reserved_mib = max(reserved_mib, 10 * 1024)
    return round(1.0 - reserved_mib / 1024 / gpu.memory_gib, 3)


def _sglang_graph_batch(gpu: GpuSpec) -> int:
    if gpu.memory_gib < 20:
        return 8
    if gpu.memory_gib < 35:
        return 48
    return 32 if gpu.memory_gib < 60 else 256


def _chunks_prefill(scheduler: Scheduler, gpu: GpuSpec) -> bool:
    # vllm#2729 and vllm#3687: neither chunked prefill nor prefix caching on Volta; V0 has both
    # off by default.
    return scheduler != "vllm-v0" and gpu.architecture != "volta"


def _parse_version(backend: str, text: str) -> Version:
    parts = text.removeprefix("v").split(".")
    numbers = [int(part) for part in parts if part.isdigit()]
    if len(numbers) < 2 or len(numbers) != len(parts) or len(numbers) > 3:
        raise ConfigError(f"{backend}: engine_version {text!r} is not of the form 0.18.1")
    major, minor, patch = (*numbers, 0)[:3]
    return major, minor, patch
