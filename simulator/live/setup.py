"""What a live engine tells, completed by what its kind does by default."""

from __future__ import annotations

from dataclasses import dataclass, replace

from router.domain.errors import ConfigError, UnknownNameError
from router.domain.fleet import BackendSpec
from router.perf.catalog import Catalog, default_catalog
from router.perf.hardware import Hardware
from router.perf.specs import GpuSpec, ModelSpec
from simulator.live.facts import EngineFacts
from simulator.replica.config import V0_WATERMARK, QueueOrder, ReplicaConfig

CPU = "cpu"
"""Name of a machine without GPU; not in the catalogue, because nothing is known of it before it
is measured."""
LIVE = "live"


@dataclass(frozen=True, slots=True)
class Named:
    """What only the user can tell of an engine.

    Attributes:
        gpu: of the catalogue, or "cpu".
        tensor_parallel: cards of one engine.
        quantization: weight format; empty for the model's own.
        max_num_seqs, max_num_batched_tokens, kv_capacity_tokens: its flags, where it does not
            tell them.
    """

    gpu: str
    tensor_parallel: int = 1
    quantization: str = ""
    max_num_seqs: int | None = None
    max_num_batched_tokens: int | None = None
    kv_capacity_tokens: int | None = None


@dataclass(frozen=True, slots=True)
class EngineSetup:
    """A live engine as the simulator needs it.

    Attributes:
        spec: as a backend.
        hardware: the catalogue, with what it lacks of this engine added.
        config: of its simulated twin.
        assumed: sentences on what was taken to be the engine's default.
    """

    spec: BackendSpec
    hardware: Hardware
    config: ReplicaConfig
    assumed: tuple[str, ...]


def set_up(facts: EngineFacts, named: Named, url: str) -> EngineSetup:
    """Complete what is known of an engine.

    Raises:
        UnknownNameError: no such GPU.
        ConfigError: neither engine nor user tell the size of the KV cache of an unlisted card.
    """
    catalog = _with_gpu(_with_model(default_catalog(), facts), named.gpu)
    kv_tokens = facts.kv_capacity_tokens or named.kv_capacity_tokens
    if kv_tokens is None and named.gpu == CPU:
        raise ConfigError(f"{url} does not tell the size of its KV cache: pass --kv-tokens")
    spec = BackendSpec(
        name=LIVE,
        gpu=named.gpu,
        engine=facts.engine,
        model=catalog.model(facts.model).name,
        tensor_parallel=named.tensor_parallel,
        url=url,
        zone=LIVE,
        engine_version=_plain_version(facts.version),
        quantization=named.quantization,
        max_model_len=facts.max_model_len,
        kv_capacity_tokens=kv_tokens,
        max_num_seqs=named.max_num_seqs or facts.max_num_seqs,
        max_num_batched_tokens=named.max_num_batched_tokens or facts.max_num_batched_tokens,
    )
    hardware = Hardware(catalog)
    config = _config(facts, spec, hardware)
    return EngineSetup(spec, hardware, config, tuple(_assumptions(spec, config)))


def _config(facts: EngineFacts, spec: BackendSpec, hardware: Hardware) -> ReplicaConfig:
    stock = hardware.engine_defaults(spec)
    ahead = facts.schedule_ahead
    if ahead is None:  # vLLM turns it off on a CPU (vllm/platforms/cpu.py)
        ahead = bool(stock.schedule_ahead) and spec.gpu != CPU
    context = hardware.max_context_tokens(spec)
    budget = stock.max_num_batched_tokens
    caching = stock.prefix_caching if facts.prefix_caching is None else facts.prefix_caching
    order: QueueOrder = "lpm" if facts.queue_order == "lpm" else "fcfs"
    return ReplicaConfig(
        scheduler=stock.scheduler,
        kv_capacity_tokens=hardware.kv_capacity_tokens(spec),
        max_context_tokens=context,
        block_tokens=facts.block_tokens or stock.block_tokens,
        max_num_seqs=stock.max_num_seqs,
        max_num_batched_tokens=budget if stock.chunked_prefill else max(budget, context),
        chunked_prefill=stock.chunked_prefill,
        prefix_caching=caching,
        schedule_ahead=int(ahead),
        reserve_full_isl=stock.reserves_full_prompt,
        watermark=V0_WATERMARK if stock.scheduler == "vllm-v0" else 0.0,
        queue_order=order,
        max_prefill_tokens=stock.max_prefill_tokens or 16_384,
    )


def _assumptions(spec: BackendSpec, config: ReplicaConfig) -> list[str]:
    """The scheduler's limits change everything under load, and vLLM does not tell them."""
    found = []
    for name in ("max_num_seqs", "max_num_batched_tokens"):
        if getattr(spec, name) is None:
            flag = f"--{name.replace('_', '-')}"
            found.append(
                f"{name} taken to be {getattr(config, name):,}, the default; the engine does not "
                f"tell, so pass {flag} if it was started with another"
            )
    return found


def _plain_version(version: str) -> str:
    """``0.18.1`` of ``0.18.1rc2.dev5+gabc``; empty (the newest) when there is nothing like it."""
    parts = []
    for part in version.removeprefix("v").split("+")[0].split(".")[:3]:
        digits = part[: len(part) - len(part.lstrip("0123456789"))]
        if not digits:
            break
        parts.append(digits)
    return ".".join(parts) if len(parts) >= 2 else ""


def _with_gpu(catalog: Catalog, name: str) -> Catalog:
    if name != CPU:
        if name not in catalog.gpus:
            raise UnknownNameError("GPU", name, [*catalog.gpus, CPU])
        return catalog
    # Nothing reads these once the iteration is measured and the KV cache told.
    return catalog.extended(
        gpus=[
            GpuSpec(
                name=CPU,
                architecture="cpu",
                compute_capability=(8, 0),
                memory_gib=1.0,
                bandwidth_gb_per_s=1.0,
                fp16_tflops=1.0,
                int8_tops=0.0,
                fp8_tflops=0.0,
                nvlink_gb_per_s=0.0,
                tdp_w=0.0,
                idle_w=0.0,
                price_usd_per_hour=0.0,
                mfu=1.0,
                mfu_tp=1.0,
                mfu_v0=1.0,
                mfu_attn=1.0,
                mbu=1.0,
                mbu_kv=1.0,
                allreduce_us=0.0,
                link_gb_per_s=1.0,
            )
        ]
    )


def _with_model(catalog: Catalog, facts: EngineFacts) -> Catalog:
    """A model that the catalogue does not know needs no figures: its engine is measured."""
    try:
        known = catalog.model(facts.model)
    except UnknownNameError:
        known = ModelSpec(facts.model, parameters=1, layers=1, hidden_size=1, kv_heads=1)
    # What the engine accepts beats what the model was made for.
    return catalog.extended(models=[replace(known, max_context_tokens=facts.max_model_len)])
