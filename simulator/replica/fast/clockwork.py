"""The clockwork of the fast engine: one pending event, valid until something changes.

The pending event is one iteration with prompt chunks in it, or a run of iterations in which
nobody comes or goes: decodes, or the chunks of one long prompt that leave no room for others. A
run ends where the next member ends or the KV cache is full; an arrival that might be admitted, a
cancellation and a change of speed cut it short. Whether a run is cut or not never shows: the same
iterations follow.

With ``schedule_ahead`` plans see arrivals and free places one iteration late (see
``simulator.replica.exact.engine``). Here that is ``_leaving``, whose places are freed when the
first iteration of a run is over, and ``horizon``, the start of the last iteration: who came later
is not seen yet.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from simulator.replica.fast.batch import Member
from simulator.replica.fast.state import EngineState


class Clockwork(EngineState):
    """Carries an engine from change to change; subclasses schedule."""

    __slots__ = ()

    # What a scheduler decides.

    def _begin(self, at: float, horizon: float) -> None:
        """Start the next iteration or run at ``at``; may see who came before ``horizon``."""
        raise NotImplementedError

    def _may_admit(self) -> bool:
        """Whether a newcomer to the empty queue can change how the run goes on."""
        return self._batch.count < self.config.max_num_seqs

    def _computed(self, chunks: list[tuple[Member, int]]) -> None:
        """Take note that these chunks are in the KV cache."""

    # The end of an iteration or run.

    def _run_to(self, now: float) -> None:
        while self._end <= now:
            self._complete()

    def _complete(self) -> None:
        """End the pending iteration or run, and start the next one."""
        at, batch = self._end, self._batch
        if self._bounds is not None:
            self._pass_chunks(self._run - 1)
        run, chunks = self._run, self._chunks
        horizon = self._last_start() if self._ahead and self._waiting else math.inf
        steps = run if self._decodes else 0
        if self._leaving or self._uncached:
            steps = self._pass_lag(steps)
        if steps:
            self._book(steps)
        if chunks:
            self._computed(chunks)
        if batch.ends and batch.ends[0][0] <= batch.iteration:
            for member in batch.ended():
                self._end_decode(member, at)
        if chunks:
            self._end_chunks(chunks, at)
        self._began = at
        self._begin(at, horizon)

    def _last_start(self) -> float:
        """When the last iteration of the run began."""
        return self._began if self._run <= 1 else self._time_at(self._run - 1)

    def _pass_lag(self, run: int) -> int:
        """What lags by one iteration happens; returns the iterations of ``run`` still to book."""
        if run and self._pool.cache.idle_size:
            # What the first iteration took may have been evicted before.
            self._book(1)
            self._settle(run)
            return run - 1
        self._settle(run)
        return run

    def _end_chunks(self, chunks: list[tuple[Member, int]], at: float) -> None:
        self._chunks = []
        for member, tokens in chunks:
            member.computed += tokens
            if member.computed >= member.target:
                self._prefilled(member, at)
            elif member.cancelled:
                self._partial = None
                self._let_go(member, member.target)

    def _book(self, steps: int) -> None:
        """Advance the batch by ``steps`` iterations and pay for their KV blocks."""
        batch = self._batch
        if not self._grown:
            pool = self._pool
            pool.used += batch.growth(steps)
            if pool.cache.idle_size:
                pool.trim()
        batch.iteration += steps

    def _commit(self, steps: int) -> None:
        """Book the first ``steps`` iterations of a run of decodes, without ending it."""
        self._began = self._time_at(steps)
        self._first += self._increment * steps
        self._extra = 0.0
        booked = self._run - self._pass_lag(self._run)
        self._book(steps - booked)
        self._run -= steps

    def _pass_chunks(self, steps: int) -> None:
        """Book the first ``steps`` iterations of a prompt's run, but not its last.

        Each ends like any other iteration; then the next one takes its memory.
        """
        passed = 0
        while passed < steps:
            together = steps - passed if self._eventless() else 1
            self._pass_equal_chunks(together)
            passed += together
        if steps:
            self._began = self._time_at(steps)
        self._run -= steps
        assert self._bounds is not None
        self._bounds = self._bounds[steps:] if self._run > 1 else None

    def _eventless(self) -> bool:
        """Whether the order in which the rest of a prompt takes its memory cannot matter.

        It can where blocks are about to be freed, or where the prompt's next blocks are cached by
        now: whether they are still there when it is computed depends on what was evicted before.
        """
        if self._leaving or self._uncached:
            return False
        member, _ = self._chunks[0]
        if not member.job.prefix_hashes:
            return True
        return not self.merges_duplicates and self._pool.all_new(member, member.job)

    def _pass_equal_chunks(self, steps: int) -> None:
        batch, pool, (member, tokens) = self._batch, self._pool, self._chunks[0]
        if self._leaving or self._uncached:
            self._settle(1)
        self._computed(self._chunks)
        member.computed += steps * tokens
        if self._decodes:
            batch.iteration += 1
            pool.used += batch.growth(steps)
            batch.iteration += steps - 1
        pool.trim()
        self._give(member, member.computed + tokens)

    # The start of an iteration or run.

    def _start_chunks(self, chunks: list[tuple[Member, int]], at: float, *, mixed: bool) -> None:
        """Start one iteration with prompt chunks, together with the decodes or alone."""
        tokens, pairs = 0, 0.0
        for member, n in chunks:
            tokens += n
            pairs += n * (member.computed + n / 2)
        seqs = context = 0
        if mixed:
            batch = self._batch
            seqs = batch.count + self._wasted
            context = batch.base_sum + batch.count * batch.iteration + self._wasted_context
        self._chunks = chunks
        self._run = 1
        self._decodes = mixed
        self._grown = True
        self._end = at + self._speed * self._times.mixed_s(tokens, seqs, context, pairs)

    def _repeat_chunk(self, fits: Callable[[int], bool]) -> None:
        """Let more chunks of the same size follow the only one of the pending iteration.

        As long as the prompt does not end, no member ends, memory is there, and
        ``fits(KV blocks used before the iteration)``.
        """
        member, tokens = self._chunks[0]
        batch, pool, at, used = self._batch, self._pool, self._end, self._pool.used
        done = member.computed + tokens
        steps = (member.target - member.computed - 1) // tokens
        seqs, context = 0, 0
        if self._decodes and batch.count:
            steps = min(steps, batch.until_next_end())
            seqs, context = batch.count, batch.context
        bounds = [at]
        while len(bounds) < steps and fits(used):
            context += seqs
            if seqs:
                used += batch.growth_at(len(bounds))
            used += pool.blocks_for(done + tokens) - pool.blocks_for(done)
            if used > pool.total:
                break
            pairs = tokens * (done + tokens / 2)
            at += self._speed * self._times.mixed_s(tokens, seqs, context, pairs)
            bounds.append(at)
            done += tokens
        if len(bounds) > 1:
            self._bounds, self._run, self._end = bounds, len(bounds), at

    def _start_run(self, at: float, steps: int, *, grown: bool = False) -> None:
        """Start ``steps`` decode iterations; those still leaving are computed in the first."""
        batch, speed, times = self._batch, self._speed, self._times
        count = batch.count
        context = batch.base_sum + count * batch.iteration
        if count + self._wasted >= len(times.base):
            times.extend(count + self._wasted)
        base, slope = times.base[count], times.slope[count]
        first = self._first = speed * (base + slope * context)
        increment = self._increment = speed * slope * count
        extra = 0.0
        if self._wasted:
            count += self._wasted
            context += self._wasted_context
            extra = speed * (times.base[count] + times.slope[count] * context) - first
        self._extra = extra
        self._run, self._decodes, self._grown = steps, True, grown
        self._end = at + extra + steps * first + increment * (steps * (steps - 1) * 0.5)

    def _sees(self, horizon: float) -> bool:
        """Whether a plan with this horizon sees anybody waiting."""
        return bool(self._waiting) and self._waiting[0].queued_s < horizon
