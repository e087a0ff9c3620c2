"""What a backend can do, as its card, engine and model say before anything was seen of it."""

from __future__ import annotations

from dataclasses import dataclass

from router.domain.state import LinearCost


@dataclass(frozen=True, slots=True)
class Capability:
    """What the backend's hardware and engine can do, as believed before any telemetry.

    Attributes:
        cost: prior of the iteration cost.
        kv_capacity_tokens: KV tokens it can hold.
        max_context_tokens: longest prompt plus output it accepts, if its KV holds that.
        chunk_tokens: prompt tokens per iteration at most.
        max_num_seqs: requests running at once at most.
        kv_bytes_per_token: keys and values of one token, on all its cards together.
        prefix_caching: whether its settings have it keep finished prompts for reuse.
    """

    cost: LinearCost
    kv_capacity_tokens: int
    max_context_tokens: int
    chunk_tokens: int
    max_num_seqs: int
    kv_bytes_per_token: float = 0.0
    prefix_caching: bool = True
