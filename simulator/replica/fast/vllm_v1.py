"""vLLM V1 in jumps; the rules are those of ``exact/vllm_v1.py``."""

from __future__ import annotations

import math

from simulator.replica.fast.batch import Member
from simulator.replica.fast.engine import FastEngine


class FastVllmV1(FastEngine):
    """Decode first, chunked prefill, preemption of the youngest by recompute.

    At most one prompt is in the middle of its chunks (``_partial``): it took all of the budget,
    so nobody was admitted after it, and it is the youngest.
    """

    __slots__ = ()

    def _begin(self, at: float, horizon: float) -> None:
        if (self._partial is not None or self._sees(horizon)) and self._mix(at, horizon):
            return
        batch = self._batch
        if batch.count:
            self._decode(at, horizon)
        elif self._wasted:
            self._start_run(at, 1)
        else:
            self._drained(at)

    def _drained(self, at: float) -> None:
        """Nothing is in flight, so nothing lags."""
        self._settle(0)
        if not (self._waiting and self._mix(at, math.inf)):
            self._rest()

    def _decode(self, at: float, horizon: float) -> None:
        """Run until a member ends, memory runs short or a plan could admit somebody."""
        batch, pool = self._batch, self._pool
        steps = batch.until_next_end()
        if self._waiting and (self._leaving or self._may_fit_later or not self._sees(horizon)):
            steps = 1
        fitting = batch.furthest(pool.total - pool.used, steps)
        if not fitting:
            self._preempt(at)
        elif fitting < steps and self._leaving:
            # Their blocks are free from the second iteration on.
            self._start_run(at, 1)
        else:
            self._start_run(at, fitting)

    @property
    def _may_fit_later(self) -> bool:
        """Whether a head of the queue that did not fit may fit while nobody leaves.

        A run only takes memory, so it may not; except where a first chunk is all that must fit,
        and that chunk gets shorter because the cached prefix before it was evicted.
        """
        return self._pool.caching and not self.config.reserve_full_isl and self._may_admit()

    def _preempt(self, at: float) -> None:
        self._squeeze(always_one_free=False)
        if self._batch.count or self._wasted:
            self._start_run(at, 1, grown=True)
        else:
            self._drained(at)

    def _mix(self, at: float, horizon: float) -> bool:
        """Start one iteration of decodes and prompt chunks; ``False`` if there is no chunk."""
        batch, pool = self._batch, self._pool
        grown = batch.growth(1) if batch.count else 0
        if grown > pool.total - pool.used:
            self._preempt(at)
            return True
        pool.used += grown
        pool.trim()
        budget = self.config.max_num_batched_tokens - batch.count
        chunks: list[tuple[Member, int]] = []
        partial = self._partial
        if partial is not None:
            tokens = min(partial.target - partial.computed, budget)
            need = pool.blocks_for(partial.computed + tokens) - partial.blocks
            if need > pool.total - pool.used:
                pool.used -= grown
                self._preempt(at)
                return True
            budget -= self._compute(partial, tokens, chunks)
        if budget > 0:
            self._admit(chunks, budget, horizon)
        if not chunks:
            pool.used -= grown
            return False
        self._start_chunks(chunks, at, mixed=True)
        return True

    def _admit(self, chunks: list[tuple[Member, int]], budget: int, horizon: float) -> None:
        """Admit from the head of the queue; the first one that does not fit blocks the rest."""
        config, pool, waiting = self.config, self._pool, self._waiting
        admitted = self._batch.count + len(self._leaving) + len(chunks)
        while waiting and budget > 0 and admitted < config.max_num_seqs:
            member = waiting[0]
            if member.queued_s >= horizon:
                return
            job = member.job
            found = pool.match(job)
            hit = pool.matched_tokens(job, len(found), member.target)
            rest = member.target - hit
            tokens = min(rest, budget)
            if tokens < rest and not config.chunked_prefill:
                return
            kept_free = config.watermark_blocks if admitted else 0
            room_for = member.target if config.reserve_full_isl else hit + tokens
            if pool.missing(room_for, found) > pool.total - pool.used - kept_free:
                return
            waiting.popleft()
            admitted += 1
            self._take(member, found, hit)
            budget -= self._compute(member, tokens, chunks)

    def _compute(self, member: Member, tokens: int, chunks: list[tuple[Member, int]]) -> int:
        end = member.computed + tokens
        self._partial = member if end < member.target else None
        self._pool.grow(member, end)
        self._pool.cover(member, member.job, end)
        chunks.append((member, tokens))
        return tokens
