"""SGLang in jumps; the rules are those of ``exact/sglang.py``."""

from __future__ import annotations

import math
from collections import deque

from simulator.replica.fast.batch import DecodeBatch, Member
from simulator.replica.fast.engine import FastEngine
from simulator.replica.sglang_rules import (
    CLIP_MAX_NEW_TOKENS,
    NewTokenRatio,
    PrefillBudget,
    longest_prefix_first,
    max_new_tokens,
)


class ReservingBatch(DecodeBatch):
    """A decode batch that knows how many tokens its members may still generate.

    A member that may generate ``m`` tokens has ``prompt + m - (base + i)`` to come at iteration
    ``i``: the sum over all members is closed form too, but for the few with more than the clip.
    """

    __slots__ = ("_limit_sum", "_long", "_longest")

    def __init__(self, block_tokens: int, longest_job_tokens: int) -> None:
        super().__init__(block_tokens)
        self._longest = longest_job_tokens
        self._limit_sum = 0
        self._long: dict[Member, int] = {}

    @property
    def pending(self) -> int:
        """Output tokens still to come at most, each member's clipped."""
        at = self.iteration
        pending = self._limit_sum - self.base_sum - self.count * at
        for limit in self._long.values():
            pending -= max(0, limit - at - CLIP_MAX_NEW_TOKENS)
        return pending

    def join(self, member: Member, context: int) -> None:
        """Add a member that will read ``context`` tokens in its first iteration."""
        super().join(member, context)
        max_new = max_new_tokens(member.job, self._longest)
        limit = member.job.prompt_tokens + max_new
        self._limit_sum += limit
        if max_new > CLIP_MAX_NEW_TOKENS:
            self._long[member] = limit - member.base

    def leave(self, member: Member) -> None:
        """Take a member out."""
        super().leave(member)
        self._limit_sum -= member.job.prompt_tokens + max_new_tokens(member.job, self._longest)
        self._long.pop(member, None)


class FastSglang(FastEngine):
    """Prefill first and alone, output reservation, retraction, radix cache."""

    __slots__ = ("_decays", "_full", "_ratio", "_shrunk")

    merges_duplicates = True
    stops_unseen = True
    _batch: ReservingBatch

    def _boot(self) -> None:
        super()._boot()
        self._batch = ReservingBatch(self.config.block_tokens, self._longest)
        self._ratio = NewTokenRatio(self.config.schedule_conservativeness)
        self._full = self._shrunk = self._decays = False

    def _begin(self, at: float, horizon: float) -> None:
        tries = self._partial is not None or (not self._full and self._sees(horizon))
        if tries and self._prefill(at, horizon):
            return
        batch = self._batch
        if self._shrunk or not batch.count:
            self._full = self._shrunk = False
        if batch.count:
            self._decode(at, horizon)
        elif self._wasted:
            self._decays = False
            self._start_run(at, 1)
        else:
            self._drained(at)

    def _drained(self, at: float) -> None:
        """Nothing is in flight, so nothing lags."""
        self._settle(0)
        if self._waiting and self._prefill(at, math.inf):
            return
        self._full = self._shrunk = False
        self._ratio.reset()
        self._rest()

    def _may_admit(self) -> bool:
        return not self._full

    def _book(self, steps: int) -> None:
        super()._book(steps)
        if self._decays:
            self._ratio.decay(steps)

    def _settle(self, run: int) -> None:
        # In a longer run the plan of its second iteration has seen the batch shrink already.
        self._shrunk = self._shrunk or (run <= 1 and bool(self._leaving))
        super()._settle(run)

    def _let_go(self, member: Member, tokens: int) -> None:
        super()._let_go(member, tokens)
        if not self._ahead:
            self._shrunk = True

    def _computed(self, chunks: list[tuple[Member, int]]) -> None:
        if not self._pool.caching:
            return
        self._uncached = [
            (member, member.computed + tokens)
            for member, tokens in chunks
            if member.job.prefix_hashes
        ]
        if not self._ahead:
            for member, tokens in self._uncached:
                self._pool.cover(member, member.job, tokens)
            self._uncached = []

    def _decode(self, at: float, horizon: float) -> None:
        """Run until a member ends, memory runs short or a plan could admit somebody."""
        batch, pool = self._batch, self._pool
        steps = batch.until_next_end()
        if self._may_change():
            steps = 1
        self._decays = True
        fitting = batch.furthest(pool.total - pool.used, steps)
        if not fitting:
            self._retract(horizon)
            if batch.growth(1) <= pool.free:
                self._start_run(at, 1)
            else:
                self._start_stalled(at)
        elif fitting < steps and self._leaving:
            # Their memory is free from the second iteration on.
            self._start_run(at, 1)
        else:
            self._start_run(at, fitting)

    def _may_change(self) -> bool:
        """Whether the plan of the iteration after the next can differ from the next one's."""
        if self._waiting and not self._full:
            return True
        return bool(self._leaving) and (self._full or bool(self._waiting))

    def _retract(self, horizon: float) -> None:
        """Send the least advanced back to the queue until one more decode step fits."""
        batch, pool = self._batch, self._pool
        kept = sorted(batch.members, key=self._progress, reverse=True)
        need = batch.growth(1)
        while len(kept) > 1 and need > pool.free:
            victim = kept.pop()
            need -= batch.grows(victim)
            self._lose(victim, keep=False)
            self._waiting.insert(self._visible(horizon), victim)
            self._full = False
        generated = sum(self._progress(member)[0] for member in kept)
        limits = sum(max_new_tokens(member.job, self._longest) for member in kept)
        self._ratio.retracted(generated, len(kept), limits)
        self._decays = False

    def _start_stalled(self, at: float) -> None:
        """The last member waits for the memory of those that just ended."""
        seconds = self._times.decode_s(self._wasted, self._wasted_context)
        self._run, self._decodes, self._grown = 1, False, True
        self._end = at + self._speed * seconds

    def _progress(self, member: Member) -> tuple[int, int]:
        prompt = member.job.prompt_tokens
        return member.base + self._batch.iteration - prompt, -prompt

    def _visible(self, horizon: float) -> int:
        """How many of the queue were there before ``horizon``."""
        for position, member in enumerate(self._waiting):
            if member.queued_s >= horizon:
                return position
        return len(self._waiting)

    def _prefill(self, at: float, horizon: float) -> bool:
        """Start a batch of prompts; ``False`` if none can be admitted."""
        pool, config = self._pool, self.config
        if config.queue_order == "lpm":
            self._sort(horizon)
        chunks: list[tuple[Member, int]] = []
        reserved = self._ratio.value * self._batch.pending
        budget = PrefillBudget(config, (pool.total - pool.used) * config.block_tokens, reserved)
        partial = self._partial
        if partial is not None:
            self._partial = None
            max_new = max_new_tokens(partial.job, self._longest)
            tokens = budget.resume(partial.target - partial.computed, max_new)
            self._compute(partial, tokens, chunks)
        self._admit(budget, chunks, horizon)
        self._full = self._full or budget.out_of_tokens
        if chunks:
            self._start_chunks(chunks, at, mixed=False)
            self._go_on(chunks, reserved)
        return bool(chunks)

    def _go_on(self, chunks: list[tuple[Member, int]], reserved: float) -> None:
        """Let the next chunks of a long prompt follow, if nobody waits to be tried in between."""
        whole, page, pool = self.config.max_num_batched_tokens, self._unit, self._pool
        tried = self._waiting and (not self._full or self.config.queue_order == "lpm")
        if self._partial is not None and chunks[0][1] == whole and not tried:
            self._repeat_chunk(lambda used: int((pool.total - used) * page - reserved) >= whole)

    def _sort(self, horizon: float) -> None:
        queue = [*self._waiting]
        seen = self._visible(horizon)
        self._waiting = deque(longest_prefix_first(queue[:seen], self._pool) + queue[seen:])

    def _admit(
        self, budget: PrefillBudget, chunks: list[tuple[Member, int]], horizon: float
    ) -> None:
        pool, waiting = self._pool, self._waiting
        most = self.config.max_num_seqs
        while not self._full and waiting and waiting[0].queued_s < horizon:
            if self._batch.count + len(self._leaving) + len(chunks) >= most:
                self._full = True
                return
            member = waiting[0]
            job = member.job
            found, hit = pool.lookup(job, member.target)
            max_new = max_new_tokens(job, self._longest)
            generated = job.output_tokens - member.remaining
            revived = pool.revived_tokens(found, hit) if found else 0
            tokens = budget.admit(member.target - hit, max_new - generated, max_new, revived)
            if not tokens:
                return
            waiting.popleft()
            self._take(member, found, hit)
            self._compute(member, tokens, chunks)
            if not budget.has_room:
                return

    def _compute(self, member: Member, tokens: int, chunks: list[tuple[Member, int]]) -> None:
        end = member.computed + tokens
        self._pool.grow(member, end)
        chunks.append((member, tokens))
        if end < member.target:
            self._partial = member
