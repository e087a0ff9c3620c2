"""The clockwork of the fast engine: one pending event, valid until something changes.

The pending event is either one iteration with prompt chunks in it, or a run of ``_run`` decode
iterations in which nobody comes or goes. A run ends where the next member ends or the KV cache
is full; an arrival that might be admitted, a cancellation and a change of speed cut it short.
Whether a run is cut or not never shows: the same iterations follow.

With ``schedule_ahead`` plans see arrivals and free places one iteration late (see
``simulator.replica.exact.engine``). Here that is ``_leaving``, whose places are freed when the
first iteration of a run is over, and ``horizon``, the start of the last iteration: who came later
is not seen yet.
"""

from __future__ import annotations

import math
from collections import deque

from router.domain.protocols import PerfModel
from router.domain.state import EngineSignals
from simulator.replica.checks import check_job, hit_ratio
from simulator.replica.config import ReplicaConfig
from simulator.replica.fast.batch import DecodeBatch, Member, elapsed_until, iteration_at
from simulator.replica.job import Event, Job
from simulator.replica.kv_cache import KvPool
from simulator.replica.prefix_cache import CachedBlock
from simulator.replica.timing import IterationTimes


class FastEngine:
    """Jumps from change to change; implements ``Replica``. Subclasses schedule."""

    merges_duplicates = False
    stops_unseen = False
    """Whether even a job that reaches its own limit is computed once more in vain."""

    def __init__(self, config: ReplicaConfig, truth: PerfModel) -> None:
        self.config = config
        self._times = IterationTimes(truth, config.decode_graph_sizes)
        self._ahead = config.schedule_ahead
        self._longest = config.longest_job_tokens
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
        self._leaving: list[Member] = []
        self._uncached: list[tuple[Member, int]] = []
        self._wasted = self._wasted_context = 0
        self.preemptions = 0
        self._partial: Member | None = None
        self._rest()

    def _rest(self) -> None:
        """Nothing is running."""
        self._chunks: list[tuple[Member, int]] = []
        self._run = 0
        self._grown = False
        self._began = 0.0
        self._first = self._increment = self._extra = 0.0
        self._end = math.inf

    @property
    def running(self) -> int:
        """Jobs being prefilled or decoded."""
        return self._batch.count + len(self._chunks)

    @property
    def waiting(self) -> int:
        """Jobs queued inside the engine."""
        return len(self._waiting)

    def submit(self, job: Job, now: float) -> bool:
        """See ``Replica.submit``."""
        check_job(job, self._members)
        if self._end <= now:
            self._run_to(now)
        waiting = self._waiting
        limit = self.config.max_num_queued_reqs
        if limit is not None and len(waiting) >= limit:
            return False
        job.submitted_s = now
        if job.prompt_tokens + job.output_tokens > self._longest:
            self._events.append(Event("aborted", job, now))
            return True
        member = self._members[job.job_id] = Member(job, now)
        waiting.append(member)
        if self._end == math.inf:
            self._began = now
            self._begin(now, math.inf)
        elif self._run > 1 and len(waiting) == 1 and self._may_admit():
            self._cut(now, self._ahead)
        return True

    def cancel(self, job_id: str, now: float) -> bool:
        """See ``Replica.cancel``."""
        self._run_to(now)
        member = self._members.pop(job_id, None)
        if member is None:
            return False
        member.cancelled = True
        if member.entered > 0:
            self._cut(now, 0)
            self._batch.end_at(member, self._batch.iteration + self._run)
        elif not any(member is chunk for chunk, _ in self._chunks):
            self._waiting.remove(member)
            self._cut(now, 0)  # whoever is next in the queue may be smaller
        return True

    def next_event_s(self) -> float:
        """See ``Replica.next_event_s``."""
        return self._events[0].at_s if self._events else self._end

    def advance(self, now: float) -> list[Event]:
        """See ``Replica.advance``."""
        while self._end <= now:
            self._complete()
        events = self._events
        self._events = []
        return events

    def snapshot(self, now: float) -> EngineSignals:
        """See ``Replica.snapshot``."""
        used, _ = self.kv_blocks(now)
        pool = self._pool
        return EngineSignals(
            observed_s=now,
            running=self.running,
            waiting=self.waiting,
            kv_usage=used / pool.total,
            kv_capacity_tokens=pool.total * pool.block_tokens,
            prefix_hit_ratio=hit_ratio(pool),
            preemptions=self.preemptions,
        )

    def kv_blocks(self, now: float) -> tuple[int, int]:
        """See ``Replica.kv_blocks``."""
        self._run_to(now)
        used = self._pool.used
        if self._run and not self._grown:
            step = self._step_at(now)
            if step > 1 and (self._leaving or self._uncached):
                self._commit(step - 1)
                used, step = self._pool.used, 1
            used += self._batch.growth(step)
        return used, self._pool.total - used

    def set_speed(self, factor: float, now: float) -> None:
        """See ``Replica.set_speed``."""
        self._run_to(now)
        self._speed = factor
        self._cut(now, 0)

    def kill(self, now: float) -> list[Job]:
        """See ``Replica.kill``."""
        self._run_to(now)
        inside = [*self._batch.members, *(member for member, _ in self._chunks), *self._waiting]
        self._boot()
        return [member.job for member in inside if not member.cancelled]

    # What a scheduler decides.

    def _begin(self, at: float, horizon: float) -> None:
        """Start the next iteration or run at ``at``; may see who came before ``horizon``."""
        raise NotImplementedError

    def _may_admit(self) -> bool:
        """Whether a newcomer to the empty queue might be admitted before the run ends."""
        return self._batch.count < self.config.max_num_seqs

    def _computed(self, chunks: list[tuple[Member, int]]) -> None:
        """Take note that these chunks are in the KV cache."""

    # Time.

    def _run_to(self, now: float) -> None:
        while self._end <= now:
            self._complete()

    def _step_at(self, now: float) -> int:
        """Which iteration of the run is in progress, counted from 1."""
        if self._run <= 1:
            return 1
        elapsed = now - self._began - self._extra
        return min(iteration_at(elapsed, self._first, self._increment), self._run)

    def _cut(self, now: float, further: int) -> None:
        """End the run ``further`` iterations after the one in progress."""
        if self._run <= 1:
            return
        steps = self._step_at(now) + further
        if steps < self._run:
            self._run = steps
            self._end = self._time_at(steps)

    def _time_at(self, steps: int) -> float:
        """When the first ``steps`` iterations of the run are over."""
        return self._began + self._extra + elapsed_until(steps, self._first, self._increment)

    def _commit(self, steps: int) -> None:
        """Book the first ``steps`` iterations of the run, without ending it."""
        self._began = self._time_at(steps)
        self._first += self._increment * steps
        self._extra = 0.0
        self._book(1)
        self._settle(self._run)
        self._book(steps - 1)
        self._run -= steps

    def _book(self, steps: int) -> None:
        """Advance the batch by ``steps`` iterations and pay for their KV blocks."""
        batch, pool = self._batch, self._pool
        if not self._grown:
            pool.used += batch.growth(steps)
            if pool.cache is not None and pool.cache.idle_size:
                pool.trim()
        batch.iteration += steps

    # The end of an iteration or run.

    def _complete(self) -> None:
        at, run, chunks = self._end, self._run, self._chunks
        horizon = math.inf
        if self._ahead and self._waiting:
            horizon = self._began if run <= 1 else self._time_at(run - 1)
        if self._leaving or self._uncached:
            if run:
                self._book(1)
            self._settle(run)
            run -= 1
        if run > 0:
            self._book(run)
        if chunks:
            self._computed(chunks)
        for member in self._batch.ended():
            self._end_decode(member, at)
        if chunks:
            self._chunks = []
            for member, tokens in chunks:
                member.computed += tokens
                self._end_chunk(member, at)
        self._began = at
        self._begin(at, horizon)

    def _end_decode(self, member: Member, at: float) -> None:
        """A member of the batch got its last token, or its client has left."""
        tokens = member.base + self._batch.iteration
        member.blocks = self._pool.blocks_for(tokens - 1)
        if not member.cancelled:
            self._finish(member, at)
        self._let_go(member, tokens)

    def _end_chunk(self, member: Member, at: float) -> None:
        """A chunk of a prompt is computed; the last one gives a token."""
        if member.computed < member.target:
            if member.cancelled:
                self._partial = None
                self._let_go(member, member.target)
            return
        job = member.job
        member.remaining -= 1
        if not member.cancelled:
            if job.first_token_s is None:
                job.first_token_s = at
                self._events.append(Event("first_token", job, at))
            if member.remaining:
                self._batch.join(member, member.target + 1)
                return
            self._finish(member, at)
        self._let_go(member, member.target + 1)

    def _finish(self, member: Member, at: float) -> None:
        job = member.job
        job.finished_s = at
        del self._members[job.job_id]
        self._events.append(Event("finished", job, at))

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
        """Let go of those that ended one iteration ago; a run of ``run`` has just passed."""
        del run
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
        self._run = 1 if mixed else 0
        self._grown = True
        self._end = at + self._speed * self._times.mixed_s(tokens, seqs, context, pairs)

    def _start_run(self, at: float, steps: int, *, grown: bool = False) -> None:
        """Start ``steps`` decode iterations; those still leaving are computed in the first."""
        batch, speed = self._batch, self._speed
        count, context = batch.count, batch.base_sum + batch.count * batch.iteration
        base, slope = self._times.affine(count)
        first = self._first = speed * (base + slope * context)
        increment = self._increment = speed * slope * count
        extra = 0.0
        if self._wasted:
            base, slope = self._times.affine(count + self._wasted)
            extra = speed * (base + slope * (context + self._wasted_context)) - first
        self._extra = extra
        self._run, self._grown = steps, grown
        self._end = at + extra + steps * first + increment * (steps * (steps - 1) * 0.5)

    def _sees(self, horizon: float) -> bool:
        """Whether a plan with this horizon sees anybody waiting."""
        return bool(self._waiting) and self._waiting[0].queued_s < horizon

    # Getting and losing memory.

    def _take(self, member: Member, found: list[CachedBlock], hit: int) -> None:
        """Give an admitted member what the prefix cache has of it."""
        pool, job = self._pool, member.job
        if found:
            pool.take(member, found)
        member.computed = hit
        if pool.cache is not None:
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
