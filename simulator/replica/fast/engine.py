"""The fast engine's face: ``Replica``, on top of the clockwork of ``clockwork.py``."""

from __future__ import annotations

import math

from router.domain.state import EngineSignals
from simulator.replica.checks import check_job, hit_ratio
from simulator.replica.fast.batch import Member
from simulator.replica.fast.clockwork import Clockwork
from simulator.replica.job import Event, Job


class FastEngine(Clockwork):
    """Jumps from change to change; implements ``Replica``."""

    __slots__ = ()

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
        self._cut(now, 0)
        if member.entered:
            self._batch.end_at(member, self._batch.iteration + self._run * self._decodes)
        elif not any(member is chunk for chunk, _ in self._chunks):
            self._waiting.remove(member)  # and whoever is next in the queue may be smaller
        return True

    def next_event_s(self) -> float:
        """See ``Replica.next_event_s``."""
        return self._events[0].at_s if self._events else self._end

    def advance(self, now: float) -> list[Event]:
        """See ``Replica.advance``."""
        while self._end <= now:
            self._complete()
        events = self._events
        if events:
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
        step = 0
        if self._bounds is not None:
            self._pass_chunks(self._step_at(now) - 1)
        elif self._run and not self._grown:
            step = self._step_at(now)
            if step > 1 and (self._leaving or self._uncached):
                self._commit(step - 1)
                step = 1
        used = self._pool.used + self._batch.growth(step)
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
