"""What a fast engine holds: queue, batch and memory, and how jobs pass through them."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Sequence

from router.domain.protocols import PerfModel
from simulator.replica.config import ReplicaConfig
from simulator.replica.fast.batch import DecodeBatch, Member
from simulator.replica.fast.run import PendingRun
from simulator.replica.job import Event
from simulator.replica.kv_cache import KvPool
from simulator.replica.prefix_cache import CachedBlock
from simulator.replica.timing import IterationTimes


class EngineState(PendingRun):
    """Queue, batch, memory and the pending event of one engine.

    Attributes:
        config: how the engine is set up.
        preemptions: jobs that lost their KV cache to others.
    """

    __slots__ = (
        "_ahead",
        "_batch",
        "_chunks",
        "_decodes",
        "_events",
        "_grown",
        "_leaving",
        "_longest",
        "_members",
        "_partial",
        "_pool",
        "_speed",
        "_times",
        "_uncached",
        "_unit",
        "_waiting",
        "_wasted",
        "_wasted_context",
        "config",
        "preemptions",
    )

    merges_duplicates = False
    stops_unseen = False
    """Whether even a job that reaches its own limit is computed once more in vain."""

    def __init__(self, config: ReplicaConfig, truth: PerfModel) -> None:
        self.config = config
        self._times = IterationTimes(truth, config.decode_graph_sizes)
        self._ahead = config.schedule_ahead
        self._longest = config.longest_job_tokens
        self._unit = config.block_tokens
        self._speed = 1.0
        self._events: list[Event] = []
        self._boot()

    def _boot(self) -> None:
        config = self.config
        self._pool = KvPool(
            config.total_blocks,
            config.block_tokens,
            caching=config.prefix_caching,
            merges_duplicates=self.merges_duplicates,
        )
        self._batch = DecodeBatch(config.block_tokens)
        self._waiting: deque[Member] = deque()
        self._members: dict[str, Member] = {}
        self._chunks: list[tuple[Member, int]] = []
        self._leaving: list[Member] = []
        self._uncached: list[tuple[Member, int]] = []
        self._wasted = self._wasted_context = 0
        self._partial: Member | None = None
        self.preemptions = 0
        # Whether the batch takes part in the pending iterations, and has its blocks for them.
        self._decodes = self._grown = False
        self._rest()

    # The end of a job.

    def _end_decode(self, member: Member, at: float) -> None:
        """A member of the batch got its last token, or its client has left."""
        tokens = member.base + self._batch.iteration
        member.blocks = -(-(tokens - 1) // self._unit)
        if not member.cancelled:
            job = member.job
            job.finished_s = at
            del self._members[job.job_id]
            self._events.append(Event("finished", job, at))
        self._let_go(member, tokens)

    def _prefilled(self, member: Member, at: float) -> None:
        """The last chunk of a prompt is computed: it gives a token."""
        job = member.job
        if not member.cancelled:
            if job.first_token_s is None:
                job.first_token_s = at
                self._events.append(Event("first_token", job, at))
            if member.remaining > 1:
                member.remaining -= 1
                self._batch.join(member, member.target + 1)
                return
            job.finished_s = at
            del self._members[job.job_id]
            self._events.append(Event("finished", job, at))
        self._let_go(member, member.target + 1)

    def _let_go(self, member: Member, tokens: int) -> None:
        """Free the memory of a member ``tokens`` long, at once or one iteration late."""
        member.target = tokens
        if not self._ahead:
            self._release(member)
            return
        self._leaving.append(member)
        job = member.job
        if self.stops_unseen or member.cancelled or job.max_tokens != job.output_tokens:
            self._wasted += 1
            self._wasted_context += tokens

    def _settle(self, run: int) -> None:
        """Let go of those that ended before the pending ``run`` began; its first step is over."""
        del run
        if self._uncached:
            for member, tokens in self._uncached:
                if member.computed >= tokens:
                    self._pool.cover(member, member.job, tokens)
            self._uncached = []
        for member in self._leaving:
            self._release(member)
        self._leaving = []
        self._wasted = self._wasted_context = 0

    def _release(self, member: Member) -> None:
        job = member.job
        if job.output_hashes and not member.cancelled:
            self._pool.cover_output(member, job, member.target - 1)
        self._pool.release(member)

    # Getting and losing memory.

    def _give(self, member: Member, tokens: int) -> None:
        """Give a prompt the memory to compute it up to ``tokens``."""
        self._pool.grow(member, tokens)

    def _take(self, member: Member, found: Sequence[CachedBlock], hit: int) -> None:
        """Give an admitted member what the prefix cache has of it."""
        pool, job = self._pool, member.job
        if found:
            pool.take(member, found)
        member.computed = hit
        if pool.caching:
            pool.queried_tokens += member.target
            pool.hit_tokens += hit
        if not job.preemptions:
            job.cached_tokens = hit

    def _lose(self, member: Member, *, keep: bool) -> None:
        """Take all memory from a running member; it will be computed again."""
        batch = self._batch
        if member is self._partial:
            self._partial = None
        else:
            member.target = member.base + batch.iteration
            member.remaining = member.ends_at - batch.iteration
            member.blocks = self._pool.blocks_for(member.target - 1)
            batch.leave(member)
        self._pool.release(member, keep=keep)
        member.computed = 0
        member.queued_s = -math.inf
        member.job.preemptions += 1
        self.preemptions += 1

    def _squeeze(self, *, always_one_free: bool) -> None:
        """Let the next iteration take its blocks in order, preempting the youngest.

        Args:
            always_one_free: every member wants a free block in its turn, needed or not (V0).
        """
        batch, pool, partial = self._batch, self._pool, self._partial
        order = [*batch.members] if partial is None else [*batch.members, partial]
        position = 0
        while position < len(order):
            member = order[position]
            need = int(member is not partial and batch.grows(member))
            # A prompt in chunks is the youngest: whoever lacks memory, it goes first.
            ask = pool.total + 1 if member is partial else max(need, int(always_one_free))
            while pool.free < ask:
                victim = order.pop()
                self._lose(victim, keep=True)
                self._waiting.appendleft(victim)
                if victim is member:
                    return
            pool.used += need
            pool.trim()
            position += 1
