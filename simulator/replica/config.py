"""How one simulated engine is set up: the flags its operator would pass, resolved."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec
from router.perf.hardware import Hardware

SchedulerName = Literal["vllm-v1", "vllm-v0", "sglang"]
QueueOrder = Literal["fcfs", "lpm"]

V0_WATERMARK = 0.01
"""Share of its blocks that vLLM V0 keeps free of new prompts."""


@dataclass(frozen=True, slots=True)
class ReplicaConfig:
    """One engine, all defaults resolved.

    Attributes:
        scheduler: which engine's scheduling rules apply.
        kv_capacity_tokens: size of the KV cache; whole blocks of it are used.
        max_context_tokens: longest prompt plus output; longer jobs are aborted on arrival.
        block_tokens: tokens per KV block (SGLang: its page size).
        max_num_seqs: most requests running at once.
        max_num_batched_tokens: token budget of one iteration (SGLang: ``chunked_prefill_size``).
        chunked_prefill: whether a prompt may be split over iterations.
        prefix_caching: whether prompts and answers stay in the KV cache for reuse.
        schedule_ahead: 1 where iteration k+1 is planned while k runs, so that arrivals wait one
            iteration longer and finished requests hold their place one iteration longer.
        reserve_full_isl: vLLM V1 admits a prompt only if all of it fits (since 0.20), not just
            its first chunk.
        watermark: share of the blocks that new prompts must leave free (vLLM).
        max_num_queued_reqs: queue length at which the server answers 503; ``None``: no limit.
        queue_order: SGLang ``schedule_policy``: first come first served, or longest cached
            prefix first.
        max_prefill_tokens: SGLang's cap on the prompts of one prefill batch.
        schedule_conservativeness: SGLang: scales what it reserves for outputs.
        decode_graph_sizes: batch sizes with a captured CUDA graph; a pure decode iteration is
            padded to the next one. Empty: no staircase.
    """

    scheduler: SchedulerName = "vllm-v1"
    kv_capacity_tokens: int = 65_536
    max_context_tokens: int = 32_768
    block_tokens: int = 16
    max_num_seqs: int = 256
    max_num_batched_tokens: int = 2_048
    chunked_prefill: bool = True
    prefix_caching: bool = True
    schedule_ahead: int = 0
    reserve_full_isl: bool = True
    watermark: float = 0.0
    max_num_queued_reqs: int | None = None
    queue_order: QueueOrder = "fcfs"
    max_prefill_tokens: int = 16_384
    schedule_conservativeness: float = 1.0
    decode_graph_sizes: tuple[int, ...] = ()

    def __post_init__(self) -> None:
        self._check_sizes()
        self._check_budget()

    @property
    def total_blocks(self) -> int:
        """KV blocks of the cache."""
        return self.kv_capacity_tokens // self.block_tokens

    @property
    def watermark_blocks(self) -> int:
        """KV blocks that new prompts must leave free."""
        return int(self.watermark * self.total_blocks)

    @property
    def longest_job_tokens(self) -> int:
        """Prompt plus output above which a job can never run: the context limit or the memory.

        SGLang compares with "more than" and keeps one token over.
        """
        memory = (self.total_blocks - self.watermark_blocks) * self.block_tokens
        return min(self.max_context_tokens, memory - (self.scheduler == "sglang"))

    def _check_sizes(self) -> None:
        sizes = ("block_tokens", "max_num_seqs", "max_num_batched_tokens", "max_context_tokens")
        for name in sizes:
            if getattr(self, name) < 1:
                raise ConfigError(f"{name} must be at least 1, not {getattr(self, name)}")
        if not 0.0 <= self.watermark < 1.0:
            raise ConfigError(f"watermark must be in [0, 1), not {self.watermark}")
        if self.longest_job_tokens < 1:
            raise ConfigError(
                f"a KV cache of {self.kv_capacity_tokens} tokens does not hold one block of "
                f"{self.block_tokens}; raise kv_capacity_tokens"
            )
        if self.scheduler == "vllm-v0" and self.schedule_ahead:
            raise ConfigError("vLLM V0 cannot schedule ahead; set schedule_ahead to 0")
        if self.schedule_ahead not in {0, 1}:
            raise ConfigError(f"schedule_ahead must be 0 or 1, not {self.schedule_ahead}")

    def _check_budget(self) -> None:
        budget = self.max_num_batched_tokens
        # vLLM refuses to start otherwise, too: a running request might never get its token.
        if self.scheduler == "vllm-v1" and budget < self.max_num_seqs:
            raise ConfigError(
                f"max_num_batched_tokens ({budget}) must be at least max_num_seqs "
                f"({self.max_num_seqs})"
            )
        if not self._splits_prompts and budget < self.longest_job_tokens:
            raise ConfigError(
                f"without chunked prefill max_num_batched_tokens ({budget}) must be at least the "
                f"context limit ({self.longest_job_tokens} tokens)"
            )

    @property
    def _splits_prompts(self) -> bool:
        return self.scheduler == "sglang" or (self.scheduler == "vllm-v1" and self.chunked_prefill)


def replica_config(
    spec: BackendSpec,
    *,
    hardware: Hardware | None = None,
    max_num_queued_reqs: int | None = None,
    queue_order: QueueOrder | None = None,
) -> ReplicaConfig:
    """The engine of ``spec`` with its stock defaults for that GPU and version, and its flags.

    Args:
        spec: the backend.
        hardware: the catalogue with the user's own models; the stock one by default.
        max_num_queued_reqs, queue_order: see ``ReplicaConfig``; they beat the flags.

    Raises:
        UnknownNameError: a GPU or model that is in no catalogue.
        ConfigError: settings with which the real engine would not start.
    """
    known = hardware or Hardware()
    engine = known.engine_defaults(spec)
    context = known.max_context_tokens(spec)
    budget = engine.max_num_batched_tokens
    watermark = V0_WATERMARK if engine.scheduler == "vllm-v0" else 0.0
    if not engine.chunked_prefill:
        budget = max(budget, context)
    try:
        return ReplicaConfig(
            scheduler=engine.scheduler,
            kv_capacity_tokens=known.kv_capacity_tokens(spec),
            max_context_tokens=context,
            block_tokens=engine.block_tokens,
            max_num_seqs=engine.max_num_seqs,
            max_num_batched_tokens=budget,
            chunked_prefill=engine.chunked_prefill,
            prefix_caching=engine.prefix_caching,
            schedule_ahead=engine.schedule_ahead,
            reserve_full_isl=engine.reserves_full_prompt,
            watermark=watermark if engine.watermark is None else engine.watermark,
            max_num_queued_reqs=(
                engine.max_num_queued_reqs if max_num_queued_reqs is None else max_num_queued_reqs
            ),
            queue_order=queue_order or engine.queue_order,
            max_prefill_tokens=engine.max_prefill_tokens or 16_384,
            schedule_conservativeness=engine.schedule_conservativeness,
        )
    except ConfigError as error:
        raise ConfigError(f"backend {spec.name!r}: {error}") from error
