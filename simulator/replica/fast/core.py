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
from collections import deque
from collections.abc import Callable, Sequence

from router.domain.protocols import PerfModel
from simulator.replica.config import ReplicaConfig
from simulator.replica.fast.batch import DecodeBatch, Member
from simulator.replica.fast.run import PendingRun
from simulator.replica.job import Event
from simulator.replica.kv_cache import KvPool
from simulator.replica.prefix_cache import CachedBlock
from simulator.replica.timing import IterationTimes


class FastCore(PendingRun):
    """Carries a batch from change to change; subclasses schedule.

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
