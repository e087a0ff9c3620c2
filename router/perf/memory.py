"""How many KV tokens fit beside the weights.

    vLLM:    KV = total * gpu_memory_utilization - weights - activations - runtime - graphs
    SGLang:  KV = total * mem_fraction_static - weights

Everything is per card. The middle terms are estimates, checked against published logs (see the
tests): a measured capacity (``vllm:cache_config_info``, the engine's log) always beats them.
"""

from __future__ import annotations

from dataclasses import dataclass

from router.perf.engines import FIRST_VLLM_092, EngineDefaults
from router.perf.specs import GpuSpec, ModelSpec, QuantizationSpec

GIB = 1024.0**3

RUNTIME_GIB = 0.3
"""CUDA libraries and fragmentation, beyond what the driver already withholds."""
COMMUNICATION_GIB = 0.4
"""NCCL and all-reduce buffers of one card of a tensor-parallel engine."""
GRAPH_GIB = 0.5
"""CUDA graphs; counted inside the memory limit from the releases with 0.92."""
LOGIT_COPIES = 3
"""Float32 copies of the logits of ``max_num_seqs`` sequences alive in vLLM's profiling run."""


@dataclass(frozen=True, slots=True)
class MemoryBudget:
    """Memory of one card, in GiB.

    Attributes:
        usable_gib: what the engine may claim.
        weights_gib: this card's share of the weights.
        overhead_gib: activations, runtime, communication, graphs.
        kv_bytes_per_token: bytes of one token's keys and values on this card.
    """

    usable_gib: float
    weights_gib: float
    overhead_gib: float
    kv_bytes_per_token: float

    @property
    def kv_gib(self) -> float:
        """What is left for the KV cache; negative when the model does not fit."""
        return self.usable_gib - self.weights_gib - self.overhead_gib

    def kv_tokens(self, block_tokens: int) -> int:
        """Capacity in tokens, whole blocks, not below zero."""
        blocks = int(self.kv_gib * GIB / (self.kv_bytes_per_token * block_tokens))
        return max(0, blocks) * block_tokens

    def short_gib(self, tokens: int) -> float:
        """Memory missing to hold ``tokens`` of KV; zero or less when they fit."""
        return tokens * self.kv_bytes_per_token / GIB - self.kv_gib


def memory_budget(
    gpu: GpuSpec,
    model: ModelSpec,
    quantization: QuantizationSpec,
    engine: EngineDefaults,
    tensor_parallel: int,
) -> MemoryBudget:
    """Memory of one card of a backend."""
    overhead_gib = 0.0
    if engine.scheduler != "sglang":
        overhead_gib = activation_gib(model, engine, tensor_parallel) + RUNTIME_GIB
        overhead_gib += COMMUNICATION_GIB if tensor_parallel > 1 else 0.0
        overhead_gib += GRAPH_GIB if engine.version >= FIRST_VLLM_092 else 0.0
    return MemoryBudget(
        usable_gib=gpu.memory_gib * engine.gpu_memory_utilization,
        weights_gib=quantization.weight_bytes(model) / tensor_parallel / GIB,
        overhead_gib=overhead_gib,
        kv_bytes_per_token=model.kv_bytes_per_token(tensor_parallel),
    )


def activation_gib(model: ModelSpec, engine: EngineDefaults, tensor_parallel: int) -> float:
    """Peak of vLLM's profiling run: one full iteration, then sampling ``max_num_seqs`` rows."""
    width = 3 * model.mlp_size / tensor_parallel + 4 * model.hidden_size
    hidden_bytes = engine.max_num_batched_tokens * width * 2.0
    logit_bytes = engine.max_num_seqs * model.vocab_size * 4.0 * LOGIT_COPIES
    return (hidden_bytes + logit_bytes) / GIB
