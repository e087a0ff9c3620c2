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

    __slots__ = ("_fickle", "_kept_free")

    def _boot(self) -> None:
        super()._boot()
        self._kept_free = self.config.watermark_blocks
        # In a run memory only gets scarcer, so a head of the queue that did not fit does not fit
        # later; except where a first chunk is all that must fit, and that chunk gets shorter
        # because the cached prefix before it was evicted.
        self._fickle = self.config.prefix_caching and not self.config.reserve_full_isl

    def _begin(self, at: float, horizon: float) -> None:
        waiting = self._waiting
        if (self._partial is not None or (waiting and waiting[0].queued_s < horizon)) and self._mix(
            at, horizon
        ):
            return
        if self._batch.count:
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
        if self._waiting and (self._leaving or self._fickle or not self._sees(horizon)):
            steps = 1
        fitting = batch.furthest(pool.total - pool.used, steps)
        if not fitting:
            self._preempt(at)
        elif fitting < steps and self._leaving:
            # Their blocks are free from the second iteration on.
            self._start_run(at, 1)
        else:
            self._start_run(at, fitting)

    def _preempt(self, at: float) -> None:
        self._squeeze(always_one_free=False)
        if self._batch.count or self._wasted:
            self._start_run(at, 1, grown=True)
        else:
            self._drained(at)

    def _mix(self, at: float, horizon: float) -> bool:
        """Start one iteration of decodes and prompt chunks; ``False`` if there is no chunk."""
        batch, pool = self._batch, self._pool
        grown = batch.next_growth()
        if grown > pool.total - pool.used:
            self._preempt(at)
            return True
        pool.used += grown
        if pool.cache.idle_size:
            pool.trim()
        budget = self.config.max_num_batched_tokens - batch.count - self._wasted
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
        if budget > 0 and self._waiting:
            self._admit(chunks, budget, horizon)
        if not chunks:
            pool.used -= grown
            return False
        self._start_chunks(chunks, at, mixed=True)
        whole = self.config.max_num_batched_tokens - batch.count
        if self._partial is not None and chunks[0][1] == whole:
            self._repeat_chunk(_always)
        return True

    def _may_admit(self) -> bool:
        # A prompt in chunks leaves nobody any of the budget.
        return self._bounds is None and super()._may_admit()

    def _give(self, member: Member, tokens: int) -> None:
        self._pool.grow(member, tokens)
        if member.job.prefix_hashes:
            self._pool.cover(member, member.job, tokens)

    def _admit(self, chunks: list[tuple[Member, int]], budget: int, horizon: float) -> None:
        """Admit from the head of the queue; the first one that does not fit blocks the rest."""
        config, pool, waiting = self.config, self._pool, self._waiting
        admitted = self._batch.count + len(self._leaving) + len(chunks)
        most = config.max_num_seqs
        while waiting and budget > 0 and admitted < most:
            member = waiting[0]
            if member.queued_s >= horizon:
                return
            found, hit = pool.lookup(member.job, member.target)
            rest = member.target - hit
            tokens = rest if rest <= budget else budget
            if tokens < rest and not config.chunked_prefill:
                return
            room_for = member.target if config.reserve_full_isl else hit + tokens
            free = pool.total - pool.used - (self._kept_free if admitted else 0)
            if pool.missing(room_for, found) > free:
                return
            waiting.popleft()
            admitted += 1
            self._take(member, found, hit)
            budget -= self._compute(member, tokens, chunks)

    def _compute(self, member: Member, tokens: int, chunks: list[tuple[Member, int]]) -> int:
        end = member.computed + tokens
        self._partial = member if end < member.target else None
        self._give(member, end)
        chunks.append((member, tokens))
        return tokens


def _always(used: int) -> bool:
    del used
    return True
