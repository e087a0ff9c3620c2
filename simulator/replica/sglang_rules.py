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


def max_new_tokens(job: Job, config: ReplicaConfig) -> int:
    """The client's limit, cut to what the context leaves."""
    room = config.longest_job_tokens - job.prompt_tokens
    return max(min(job.max_tokens or room, room), job.output_tokens)


class Queued(Protocol):
    """A waiting request of either engine."""

    job: Job


Q = TypeVar("Q", bound=Queued)


def longest_prefix_first(queue: Sequence[Q], pool: KvPool) -> list[Q]:
    """``lpm``: the longest cached prefix first, ties in order of arrival.

    A prompt that is hardly cached but shares its beginning with an earlier waiting one goes last:
    once that one is computed, it will hit.
    """
    if pool.cache is None or len(queue) > LPM_QUEUE_LIMIT:
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
