"""Nouns of the catalogue: a GPU, a model, a weight format. Frozen facts with units.

All three have plain constructors, so that a card or a model that the catalogue does not know can
be described in the fleet file and handed to ``Catalog.extended``.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

Capability = tuple[int, int]
"""CUDA compute capability, major and minor: (8, 0) for an A100."""


@dataclass(frozen=True, slots=True)
class GpuSpec:
    """One GPU type.

    Attributes:
        name: key of the catalogue.
        architecture: "volta", "turing", "ampere", "ada", "hopper".
        compute_capability: major and minor.
        memory_gib: total memory as CUDA reports it.
        bandwidth_gb_per_s: peak memory bandwidth, 1e9 bytes per second.
        fp16_tflops, int8_tops, fp8_tflops: dense tensor-core peaks; 0 where there is none.
        nvlink_gb_per_s: both directions; 0 without NVLink.
        tdp_w, idle_w: board power limit, and power of a loaded and idle engine.
        price_usd_per_hour: on-demand default for one card.
        mfu, mfu_tp: share of the fp16 peak reached by prefill GEMMs, on one card and on several.
        mfu_v0: the same with the kernels of vLLM V0.
        mfu_attn: share of the peak reached by causal prefill attention.
        mbu, mbu_kv: share of the bandwidth reached by weight streaming and by KV reads.
        allreduce_us: latency of one all-reduce between the cards of one engine.
        link_gb_per_s: effective bus bandwidth between them.
        confidence: how well the shares are known, in words.
        sources: where each figure comes from.
    """

    name: str
    architecture: str
    compute_capability: Capability
    memory_gib: float
    bandwidth_gb_per_s: float
    fp16_tflops: float
    int8_tops: float
    fp8_tflops: float
    nvlink_gb_per_s: float
    tdp_w: float
    idle_w: float
    price_usd_per_hour: float
    mfu: float
    mfu_tp: float
    mfu_v0: float
    mfu_attn: float
    mbu: float
    mbu_kv: float
    allreduce_us: float
    link_gb_per_s: float
    confidence: str = "unknown"
    sources: Mapping[str, str] = field(default_factory=dict)

    @property
    def supports_bf16(self) -> bool:
        """bfloat16 tensor cores: Ampere and later."""
        return self.compute_capability >= (8, 0)


@dataclass(frozen=True, slots=True)
class ModelSpec:
    """One dense decoder-only transformer with gated MLPs.

    Only the first five are needed to describe a model of your own; the rest have the values most
    models share, or are derived.

    Attributes:
        name: key of the catalogue, and the name clients ask for.
        parameters: total, embeddings included.
        layers: transformer blocks.
        hidden_size: width of the residual stream.
        kv_heads: key-value heads (grouped-query attention).
        heads: query heads; 0 means ``hidden_size / head_dim``.
        head_dim: width of one head.
        intermediate_size: width of the gated MLP; 0 means 3.5 times the hidden size.
        vocab_size: rows of the embedding.
        tied_embeddings: whether the output head is the embedding itself.
        max_context_tokens: longest prompt plus output it was made for.
        dtype: native format ("bf16", "fp16").
        fp16_ok: whether engines accept float16 for it.
        also: other names of the same shape.
    """

    name: str
    parameters: int
    layers: int
    hidden_size: int
    kv_heads: int
    heads: int = 0
    head_dim: int = 128
    intermediate_size: int = 0
    vocab_size: int = 32_000
    tied_embeddings: bool = False
    max_context_tokens: int = 8_192
    dtype: str = "bf16"
    fp16_ok: bool = True
    also: tuple[str, ...] = ()

    @property
    def query_size(self) -> int:
        """Width of all query heads together; the hidden size for most models."""
        return self.heads * self.head_dim if self.heads else self.hidden_size

    @property
    def mlp_size(self) -> int:
        """Width of the gated MLP."""
        return self.intermediate_size or round(3.5 * self.hidden_size)

    @property
    def embedding_parameters(self) -> int:
        """Parameters of one embedding matrix."""
        return self.vocab_size * self.hidden_size

    @property
    def block_parameters(self) -> int:
        """Parameters of the transformer blocks: what a weight format compresses."""
        matrices = 1 if self.tied_embeddings else 2
        return self.parameters - matrices * self.embedding_parameters

    @property
    def active_parameters(self) -> int:
        """Parameters multiplied for every token: the blocks and the output head."""
        return self.block_parameters + self.embedding_parameters

    def kv_bytes_per_token(self, tensor_parallel: int = 1) -> float:
        """Bytes of 16-bit keys and values of one token *on one card*.

        Heads are spread over the cards; with more cards than heads they are replicated.
        """
        heads_per_card = max(1.0, self.kv_heads / tensor_parallel)
        return 2.0 * self.layers * heads_per_card * self.head_dim * 2.0


@dataclass(frozen=True, slots=True)
class QuantizationSpec:
    """One weight format.

    Attributes:
        name: key ("fp16", "bf16", "fp8", "int8", "awq", "gptq").
        bytes_per_weight: inside the transformer blocks.
        compute: "fp16", "fp8" or "int8": the unit that multiplies.
        min_compute_capability: no kernel below it.
        native_from: weight-only below it, multiplying in fp16.
        bandwidth_efficiency, compute_efficiency: what unpacking leaves of the shares that 16-bit
            weights reach.
    """

    name: str
    bytes_per_weight: float
    compute: str
    min_compute_capability: Capability
    native_from: Capability
    bandwidth_efficiency: float = 1.0
    compute_efficiency: float = 1.0

    def weight_bytes(self, model: ModelSpec) -> float:
        """Bytes of all weights in memory, over all cards."""
        head = model.parameters - model.block_parameters
        return model.block_parameters * self.bytes_per_weight + head * 2.0

    def streamed_bytes(self, model: ModelSpec) -> float:
        """Bytes of weights read by one iteration: the blocks and the output head."""
        return model.block_parameters * self.bytes_per_weight + model.embedding_parameters * 2.0

    def peak_flops(self, gpu: GpuSpec) -> float:
        """Peak of the unit that multiplies, in floating-point operations per second."""
        native = gpu.compute_capability >= self.native_from
        peaks = {"fp8": gpu.fp8_tflops, "int8": gpu.int8_tops}
        tflops = peaks.get(self.compute, 0.0) if native else 0.0
        return (tflops or gpu.fp16_tflops) * 1e12
