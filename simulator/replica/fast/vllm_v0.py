"""vLLM V0 in jumps; the rules are those of ``exact/vllm_v0.py``."""

from __future__ import annotations

from simulator.replica.fast.batch import Member
from simulator.replica.fast.engine import FastEngine


class FastVllmV0(FastEngine):
    """Prefill first, whole prompts, preemption of the youngest by recompute."""

    __slots__ = ()

    def _begin(self, at: float, horizon: float) -> None:
        del horizon  # V0 plans nothing ahead
        if self._prefill(at):
            return
        if self._batch.count:
            self._decode(at)
        if not self._batch.count and not self._prefill(at):
            self._rest()

    def _decode(self, at: float) -> None:
        batch, pool = self._batch, self._pool
        # Every request wants a free block in its turn, so one is left over after each iteration.
        fitting = batch.furthest(pool.total - pool.used - 1, batch.until_next_end())
        if fitting:
            self._start_run(at, fitting)
            return
        self._squeeze(always_one_free=True)
        if batch.count:
            self._start_run(at, 1, grown=True)

    def _prefill(self, at: float) -> bool:
        """Start a batch of prompts; ``False`` if none can be admitted."""
        config, pool, waiting = self.config, self._pool, self._waiting
        budget, kept_free = config.max_num_batched_tokens, config.watermark_blocks
        chunks: list[tuple[Member, int]] = []
        while waiting and self._batch.count + len(chunks) < config.max_num_seqs:
            member = waiting[0]
            found, hit = pool.lookup(member.job, member.target)
            tokens = member.target - hit
            if tokens > budget:
                break
            if pool.missing(member.target, found) > pool.total - pool.used - kept_free:
                break
            waiting.popleft()
            self._take(member, found, hit)
            pool.grow(member, member.target)
            pool.cover(member, member.job, member.target)
            chunks.append((member, tokens))
            budget -= tokens
        if chunks:
            self._start_chunks(chunks, at, mixed=False)
        return bool(chunks)
