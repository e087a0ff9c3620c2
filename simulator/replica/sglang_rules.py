"""SGLang's own arithmetic, used by both engines (SGLang 0.5: schedule_policy.py, scheduler.py)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from simulator.replica.config import ReplicaConfig
from simulator.replica.job import Job
from simulator.replica.kv_cache import KvPool

CLIP_MAX_NEW_TOKENS = 4_096
"""Longest output that admission reserves memory for."""
INIT_NEW_TOKEN_RATIO = 0.7
MIN_RATIO_FACTOR = 0.14
RATIO_DECAY_STEPS = 600
RETRACT_DECODE_STEPS = 20
LPM_QUEUE_LIMIT = 128
"""Above this queue length matching every prefix costs too much, and lpm becomes fcfs."""
IN_BATCH_TOKENS = 32
"""Prompts with no longer match that share this much with another waiting one are deferred."""


class NewTokenRatio:
    """Share of the outputs still to come that SGLang keeps memory for.

    Falls with every decode step, and is set anew when the guess proved wrong (retraction). Kept
    as a start and a count of steps, so that a jump over many steps computes the same number.
    """

    __slots__ = ("_decay", "_init", "_least", "_start", "_steps")

    def __init__(self, conservativeness: float) -> None:
        self._init = min(INIT_NEW_TOKEN_RATIO * conservativeness, 1.0)
        self._least = self._init * MIN_RATIO_FACTOR
        self._decay = (self._init - self._least) / RATIO_DECAY_STEPS
        self.reset()

    @property
    def value(self) -> float:
        """The ratio now."""
        if not self._steps:
            return self._start
        return max(self._start - self._decay * self._steps, self._least)

    def reset(self) -> None:
        """The engine is idle: start over."""
        self._start, self._steps = self._init, 0

    def decay(self, steps: int) -> None:
        """``steps`` decode iterations went by without memory trouble."""
        self._steps += steps

    def retracted(self, generated: int, kept: int, max_new: int) -> None:
        """Requests were retracted; those kept had ``generated`` of ``max_new`` tokens."""
        self._start = min(1.0, (generated + RETRACT_DECODE_STEPS * kept) / (max_new + 1))
        self._steps = 0


def max_new_tokens(job: Job, longest_job_tokens: int) -> int:
    """The client's limit, cut to what the context leaves."""
    room = longest_job_tokens - job.prompt_tokens
    return max(min(job.max_tokens or room, room), job.output_tokens)


class PrefillBudget:
    """What one prefill batch may still take: the arithmetic of SGLang's ``PrefillAdder``.

    Args:
        free_tokens: KV tokens free now, idle cached ones included.
        reserved_tokens: what the running requests are expected still to need.

    Attributes:
        out_of_tokens: whether memory, not the size of the batch, was the limit.
    """

    __slots__ = ("_empty", "_page", "_rem_chunk", "_rem_input", "_rem_total", "out_of_tokens")

    def __init__(self, config: ReplicaConfig, free_tokens: int, reserved_tokens: float) -> None:
        self._page = config.block_tokens
        self._rem_total = free_tokens - reserved_tokens
        self._rem_input = config.max_prefill_tokens
        self._rem_chunk = config.max_num_batched_tokens
        self._empty = True
        self.out_of_tokens = False

    @property
    def has_room(self) -> bool:
        """Whether another request may be tried."""
        return not self.out_of_tokens and self._rem_input > 0 and self._rem_chunk > 0

    def resume(self, remaining: int, max_new: int) -> int:
        """Tokens of the next chunk of a prompt of which ``remaining`` are not computed."""
        limit = min(self._rem_chunk, int(self._rem_total))
        if limit <= 0:
            limit = self._rem_chunk
        tokens = min(remaining, limit)
        self._charge(tokens, max_new if tokens == remaining else 0)
        return tokens

    def admit(self, extend: int, to_come: int, max_new: int, revived_tokens: int) -> int:
        """Tokens of the first chunk of a waiting prompt, 0 if it does not fit.

        Args:
            extend: its tokens that are not cached.
            to_come: output tokens it may still generate.
            max_new: output tokens it may generate in all.
            revived_tokens: cached tokens it uses and nobody else does.
        """
        room = self._rem_total - revived_tokens
        if extend + min(to_come, CLIP_MAX_NEW_TOKENS) >= room:
            self.out_of_tokens = True
            return 0
        if not self._empty and self._paged(extend) >= self._rem_input:
            return 0
        tokens = extend
        if self._paged(extend) > self._rem_chunk:
            tokens = self._rem_chunk // self._page * self._page
        if tokens > 0:
            self._rem_total = room
            self._charge(tokens, max_new if tokens == extend else 0)
            self.out_of_tokens = self._rem_total <= 0
        return max(tokens, 0)

    def _charge(self, tokens: int, max_new: int) -> None:
        paged = self._paged(tokens)
        self._empty = False
        self._rem_total -= paged + min(max_new, CLIP_MAX_NEW_TOKENS)
        self._rem_input -= paged
        self._rem_chunk -= paged

    def _paged(self, tokens: int) -> int:
        return -(-tokens // self._page) * self._page


class Queued(Protocol):
    """A waiting request of either engine."""

    job: Job


Q = TypeVar("Q", bound=Queued)


def longest_prefix_first(queue: Sequence[Q], pool: KvPool) -> list[Q]:
    """``lpm``: the longest cached prefix first, ties in order of arrival.

    A prompt that is hardly cached but shares its beginning with an earlier waiting one goes last:
    once that one is computed, it will hit.
    """
    if not pool.caching or len(queue) > LPM_QUEUE_LIMIT:
        return list(queue)
    seen: set[int] = set()
    rank: dict[int, float] = {}
    for entry in queue:
        job = entry.job
        matched = len(pool.match(job)) * job.prefix_block_tokens
        rank[id(entry)] = -float(matched)
        if matched <= IN_BATCH_TOKENS:
            if _leading(job, seen) * job.prefix_block_tokens >= IN_BATCH_TOKENS:
                rank[id(entry)] = float("inf")
            else:
                seen.update(job.prefix_hashes[: job.shareable_blocks])
    return sorted(queue, key=lambda entry: rank[id(entry)])


def _leading(job: Job, seen: set[int]) -> int:
    """How many leading blocks of the prompt are in ``seen``."""
    for index in range(job.shareable_blocks):
        if job.prefix_hashes[index] not in seen:
            return index
    return job.shareable_blocks
