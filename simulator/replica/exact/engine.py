"""The clockwork around a scheduler: plan an iteration, let it run, hand out its tokens.

With ``schedule_ahead`` the plan of iteration k+1 is made when k starts. Seen from the plan, three
things are then one iteration old, and nothing else: arrivals, finished requests (they still hold
their memory and their slot, and those that ended by a stop token are computed once more for
nothing) and cancellations. So the plan is made at the start of its own iteration here, from
state that lags by one iteration: ``_arrived`` and ``_leaving`` are the lag.
"""

from __future__ import annotations

import math
from collections.abc import Callable

from router.domain.protocols import PerfModel
from router.domain.state import EngineSignals
from simulator.replica.checks import check_job, hit_ratio
from simulator.replica.config import ReplicaConfig
from simulator.replica.exact.scheduler import Scheduler, Sequence, Step
from simulator.replica.job import Event, EventKind, Job
from simulator.replica.kv_cache import KvPool
from simulator.replica.timing import IterationTimes


class ExactEngine:
    """Steps through every iteration; implements ``Replica``.

    Args:
        make_scheduler: one of the schedulers of this package.
        token_events: report every token, for the real-time server.
    """

    def __init__(
        self,
        config: ReplicaConfig,
        truth: PerfModel,
        make_scheduler: Callable[[ReplicaConfig], Scheduler],
        *,
        token_events: bool = False,
    ) -> None:
        self.config = config
        self._make_scheduler = make_scheduler
        self._times = IterationTimes(truth, config.decode_graph_sizes)
        self._token_events = token_events
        self._speed = 1.0
        self._events: list[Event] = []
        self._boot()

    def _boot(self) -> None:
        self._scheduler = self._make_scheduler(self.config)
        self._arrived: list[Sequence] = []
        self._sequences: dict[str, Sequence] = {}
        self._step = Step()
        self._step_end = math.inf

    @property
    def running(self) -> int:
        """Jobs being prefilled or decoded."""
        return len(self._scheduler.running)

    @property
    def waiting(self) -> int:
        """Jobs queued inside the engine."""
        return len(self._scheduler.waiting) + len(self._arrived)

    @property
    def preemptions(self) -> int:
        """Jobs that lost their KV cache to others."""
        return self._scheduler.preemptions

    def submit(self, job: Job, now: float) -> bool:
        """See ``Replica.submit``."""
        check_job(job, self._sequences)
        self._run_to(now)
        limit = self.config.max_num_queued_reqs
        if limit is not None and self.waiting >= limit:
            return False
        job.submitted_s = now
        if job.prompt_tokens + job.output_tokens > self.config.longest_job_tokens:
            self._tell("aborted", job, now)
            return True
        seq = self._sequences[job.job_id] = Sequence(job)
        self._arrived.append(seq)
        if self._step_end == math.inf:
            self._begin(now)
        return True

    def cancel(self, job_id: str, now: float) -> bool:
        """See ``Replica.cancel``."""
        self._run_to(now)
        seq = self._sequences.pop(job_id, None)
        if seq is None:
            return False
        seq.cancelled = True
        for queue in (self._arrived, self._scheduler.waiting):
            if seq in queue:
                queue.remove(seq)
        return True

    def next_event_s(self) -> float:
        """See ``Replica.next_event_s``."""
        return self._events[0].at_s if self._events else self._step_end

    def advance(self, now: float) -> list[Event]:
        """See ``Replica.advance``."""
        self._run_to(now)
        events, self._events = self._events, []
        return events

    @property
    def pool(self) -> KvPool:
        """The KV cache; another one after ``kill``."""
        return self._scheduler.pool

    def snapshot(self, now: float) -> EngineSignals:
        """See ``Replica.snapshot``."""
        self._run_to(now)
        pool = self._scheduler.pool
        return EngineSignals(
            observed_s=now,
            running=self.running,
            waiting=self.waiting,
            kv_usage=pool.used / pool.total,
            kv_capacity_tokens=pool.total * pool.block_tokens,
            prefix_hit_ratio=hit_ratio(pool),
            preemptions=self.preemptions,
        )

    def kv_blocks(self, now: float) -> tuple[int, int]:
        """See ``Replica.kv_blocks``."""
        self._run_to(now)
        return self._scheduler.pool.used, self._scheduler.pool.free

    def set_speed(self, factor: float, now: float) -> None:
        """See ``Replica.set_speed``."""
        self._run_to(now)
        self._speed = factor

    def kill(self, now: float) -> list[Job]:
        """See ``Replica.kill``."""
        self._run_to(now)
        scheduler = self._scheduler
        inside = scheduler.running + scheduler.waiting + self._arrived
        self._boot()
        return [seq.job for seq in inside if not seq.cancelled]

    def _run_to(self, now: float) -> None:
        while self._step_end <= now:
            at = self._step_end
            self._complete(at)
            self._begin(at)

    def _begin(self, now: float) -> None:
        """Start the next iteration, or come to rest."""
        scheduler = self._scheduler
        if not self.config.schedule_ahead:
            self._join_queue()
        step = scheduler.plan()
        if not step:
            # Nothing in flight any more, so nothing lags.
            scheduler.settle()
            self._join_queue()
            step = scheduler.plan()
        self._join_queue()
        self._step = step
        if not step:
            scheduler.idle()
            self._step_end = math.inf
        else:
            self._step_end = now + self._speed * self._duration(step)

    def _join_queue(self) -> None:
        self._scheduler.waiting += self._arrived
        self._arrived = []

    def _duration(self, step: Step) -> float:
        readers = step.decodes + step.wasted
        context = sum(seq.tokens for seq in readers)
        if not step.chunks:
            return self._times.decode_s(len(readers), context)
        tokens = sum(n for _, n in step.chunks)
        pairs = sum(n * (seq.computed + n / 2) for seq, n in step.chunks)
        return self._times.mixed_s(tokens, len(readers), context, pairs)

    def _complete(self, now: float) -> None:
        """Hand out the tokens of the iteration that ended, and let go of who is done."""
        scheduler = self._scheduler
        scheduler.settle()
        scheduler.computed(self._step)
        emitted = set(self._step.decodes)
        for seq, tokens in self._step.chunks:
            seq.computed += tokens
            if seq.computed >= seq.tokens:
                emitted.add(seq)
        for seq in self._step.decodes:
            seq.computed += 1
        gone = []
        for seq in scheduler.running:
            if seq in emitted:
                self._emit(seq, now)
            if seq.cancelled or seq.done:
                gone.append(seq)
        for seq in gone:
            scheduler.running.remove(seq)
            scheduler.leaving.append(seq)
        if not self.config.schedule_ahead:
            scheduler.settle()

    def _emit(self, seq: Sequence, now: float) -> None:
        seq.generated += 1
        seq.prefilling = False
        if seq.cancelled:
            return
        job = seq.job
        if job.first_token_s is None:
            job.first_token_s = now
            self._tell("first_token", job, now)
        elif self._token_events:
            self._tell("token", job, now)
        if seq.done:
            job.finished_s = now
            del self._sequences[job.job_id]
            self._tell("finished", job, now)

    def _tell(self, kind: EventKind, job: Job, now: float) -> None:
        self._events.append(Event(kind, job, now))
