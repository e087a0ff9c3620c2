"""What cannot run, why, by how much, and what would.

The first obstacle found is raised as ``ImpossibleFleetError``; the message names the backend, the
obstacle and a remedy.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from router.domain.errors import ImpossibleFleetError, UnknownNameError
from router.domain.fleet import ENGINES, BackendSpec
from router.perf.catalog import Catalog
from router.perf.engines import (
    NEWEST_VLLM_ON_VOLTA,
    context_limit_tokens,
    resolve_engine,
    resolve_version,
)
from router.perf.memory import MemoryBudget, memory_budget
from router.perf.specs import GpuSpec, ModelSpec, QuantizationSpec

MIN_CONTEXT_TOKENS = 2_048
"""Least KV capacity worth calling a server, where the file sets no ``max_model_len``."""

_TENSOR_PARALLEL = (1, 2, 4, 8)


def quantization_of(spec: BackendSpec, catalog: Catalog) -> QuantizationSpec:
    """The weight format a backend uses: its own, else the model's, cast where bf16 is missing.

    Raises:
        UnknownNameError: no such format, GPU or model.
    """
    if spec.quantization:
        return catalog.quantization(spec.quantization)
    native = catalog.model(spec.model).dtype
    supported = native != "bf16" or catalog.gpu(spec.gpu).supports_bf16
    return catalog.quantization(native if supported else "fp16")


def check(spec: BackendSpec, catalog: Catalog) -> None:
    """Raise if the backend cannot run.

    Raises:
        UnknownNameError: a GPU, model, engine or weight format that does not exist.
        ConfigError: an engine version that cannot be read.
        ImpossibleFleetError: says what does not work and what would.
    """
    if spec.engine not in ENGINES:
        raise UnknownNameError("engine", spec.engine, ENGINES)
    gpu, model = catalog.gpu(spec.gpu), catalog.model(spec.model)
    obstacle = (
        _tensor_parallel_obstacle(spec, model)
        or _engine_obstacle(spec, gpu)
        or _format_obstacle(gpu, model, quantization_of(spec, catalog))
        or _context_obstacle(spec, model)
        or _memory_obstacle(spec, catalog)
    )
    if obstacle:
        raise ImpossibleFleetError(f"backend {spec.name!r}: {obstacle}")


def budget_of(spec: BackendSpec, catalog: Catalog) -> MemoryBudget:
    """Memory of one card of the backend."""
    gpu, model = catalog.gpu(spec.gpu), catalog.model(spec.model)
    engine = resolve_engine(spec, gpu, model)
    quantization = quantization_of(spec, catalog)
    return memory_budget(gpu, model, quantization, engine, spec.tensor_parallel)


def _tensor_parallel_obstacle(spec: BackendSpec, model: ModelSpec) -> str:
    if _divides(spec.tensor_parallel, model):
        return ""
    fine = [str(cards) for cards in _TENSOR_PARALLEL if _divides(cards, model)]
    return (
        f"tensor_parallel: {spec.tensor_parallel} does not divide {model.name} "
        f"({_query_heads(model)} query heads, {model.kv_heads} KV heads); use {', '.join(fine)}"
    )


def _divides(cards: int, model: ModelSpec) -> bool:
    if cards < 1 or cards & (cards - 1):
        return False
    heads = model.kv_heads % cards == 0 or cards % model.kv_heads == 0
    return heads and _query_heads(model) % cards == 0


def _query_heads(model: ModelSpec) -> int:
    return model.query_size // model.head_dim


def _engine_obstacle(spec: BackendSpec, gpu: GpuSpec) -> str:
    if spec.engine == "sglang" and gpu.compute_capability < (8, 0):
        return (
            f"SGLang does not run on {gpu.name} (its kernels need compute capability 8.0, this "
            f"card has {_dotted(gpu.compute_capability)}); set engine: vllm"
        )
    version = resolve_version(spec, gpu)
    volta = gpu.architecture == "volta" and spec.engine == "vllm"
    if volta and version[:2] > NEWEST_VLLM_ON_VOLTA[:2]:
        return (
            f"vLLM {spec.engine_version} does not run on {gpu.name}: after 0.18 vLLM needs compute "
            f"capability 7.5; set engine_version: {_dotted(NEWEST_VLLM_ON_VOLTA)} (a CUDA 12 "
            "build, --dtype float16, --attention-backend TRITON_ATTN)"
        )
    return ""


def _format_obstacle(gpu: GpuSpec, model: ModelSpec, quantization: QuantizationSpec) -> str:
    if gpu.compute_capability < quantization.min_compute_capability:
        remedy = "gptq" if quantization.bytes_per_weight < 2 else "fp16"
        return (
            f"quantization: {quantization.name} needs compute capability "
            f"{_dotted(quantization.min_compute_capability)}, {gpu.name} has "
            f"{_dotted(gpu.compute_capability)}; set quantization: {remedy}"
        )
    if not model.fp16_ok and (quantization.name == "fp16" or not gpu.supports_bf16):
        where = "" if gpu.supports_bf16 else f", which {gpu.name} lacks; use an Ampere or later GPU"
        return f"{model.name} is unstable in float16 and needs bfloat16{where}"
    return ""


def _context_obstacle(spec: BackendSpec, model: ModelSpec) -> str:
    wanted = spec.max_model_len
    if wanted is None or 0 < wanted <= model.max_context_tokens:
        return ""
    return (
        f"max_model_len: {wanted} is outside what {model.name} was made for; "
        f"use 1 to {model.max_context_tokens}"
    )


def _memory_obstacle(spec: BackendSpec, catalog: Catalog) -> str:
    wanted = _wanted_tokens(spec, catalog)
    measured = spec.kv_capacity_tokens
    if measured is not None:
        if measured >= wanted:
            return ""
        return (
            f"max_model_len: {wanted} exceeds the measured kv_capacity_tokens: {measured}; "
            f"lower max_model_len to {measured}"
        )
    budget = budget_of(spec, catalog)
    short_gib = budget.short_gib(wanted)
    if short_gib <= 0:
        return ""
    remedies = "; ".join(_remedies(spec, catalog, budget))
    return (
        f"{spec.model} does not fit on {spec.tensor_parallel} x {spec.gpu}: short by "
        f"{short_gib:.1f} GiB per card (usable {budget.usable_gib:.1f} GiB, weights "
        f"{budget.weights_gib:.1f}, activations and runtime {budget.overhead_gib:.1f}, "
        f"KV for {wanted} tokens {wanted * budget.kv_bytes_per_token / 1024**3:.1f}). "
        f"What would fit: {remedies or 'nothing in the catalogue'}"
    )


def _wanted_tokens(spec: BackendSpec, catalog: Catalog) -> int:
    if spec.max_model_len is not None:
        return spec.max_model_len
    limit = context_limit_tokens(spec, catalog.gpu(spec.gpu), catalog.model(spec.model))
    return min(limit, MIN_CONTEXT_TOKENS)


def _remedies(spec: BackendSpec, catalog: Catalog, budget: MemoryBudget) -> Iterator[str]:
    """Single changes to the backend that make it run, cheapest first."""
    tokens = budget.kv_tokens(16)
    if spec.max_model_len is not None and tokens >= MIN_CONTEXT_TOKENS:
        yield f"max_model_len: {tokens}"
    for cards in _TENSOR_PARALLEL:
        if cards > spec.tensor_parallel and _runs(replace(spec, tensor_parallel=cards), catalog):
            yield f"tensor_parallel: {cards}"
            break
    for name in catalog.quantizations:
        if _runs(replace(spec, quantization=name), catalog):
            yield f"quantization: {name}"
    yield from _other_gpus(spec, catalog)


def _other_gpus(spec: BackendSpec, catalog: Catalog) -> Iterator[str]:
    """Other GPU types, with as many cards as now or, if none is enough, with more."""
    for cards in _TENSOR_PARALLEL:
        if cards < spec.tensor_parallel:
            continue
        tried = replace(spec, tensor_parallel=cards, engine_version="")
        names = [name for name in catalog.gpus if _runs(replace(tried, gpu=name), catalog)]
        if names:
            more = "" if cards == spec.tensor_parallel else f" with tensor_parallel: {cards}"
            yield f"gpu: {' or '.join(names)}{more}"
            return


def _runs(spec: BackendSpec, catalog: Catalog) -> bool:
    gpu, model = catalog.gpu(spec.gpu), catalog.model(spec.model)
    obstacle = (
        _tensor_parallel_obstacle(spec, model)
        or _engine_obstacle(spec, gpu)
        or _format_obstacle(gpu, model, quantization_of(spec, catalog))
    )
    return not obstacle and budget_of(spec, catalog).short_gib(_wanted_tokens(spec, catalog)) <= 0


def _dotted(version: tuple[int, ...]) -> str:
    return ".".join(map(str, version))
