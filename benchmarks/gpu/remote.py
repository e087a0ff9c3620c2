"""An engine in another process, as the emulated engines' HTTP server knows engines."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable
from multiprocessing.connection import Connection

from benchmarks.gpu.words import Cancel, Gained, Log, Submit, TakeLog
from router.domain.state import EngineSignals
from simulator.replica.config import ReplicaConfig
from simulator.replica.job import Event, Job

Rows = list[tuple[float, ...]]


class RemoteReplica:
    """See ``simulator.replica.interface.Replica``; nothing here is simulated.

    What the process says comes by ``hear``; what it means is told by the next ``advance``.
    """

    def __init__(self, connection: Connection, config: ReplicaConfig) -> None:
        self.config = config
        self.preemptions = 0
        self._connection = connection
        self._jobs: dict[str, Job] = {}
        self._left: dict[str, int] = {}
        self._state = Gained([], 0, 0, 0)
        self._heard: deque[Gained | Log] = deque()
        self._wants_log: deque[Callable[[Rows], object]] = deque()

    @property
    def running(self) -> int:
        return self._state.running

    @property
    def waiting(self) -> int:
        return max(0, len(self._jobs) - self._state.running)

    def hear(self, word: Gained | Log) -> None:
        """Take what the process said."""
        self._heard.append(word)

    def submit(self, job: Job, now: float) -> bool:
        job.submitted_s = now
        self._jobs[job.job_id], self._left[job.job_id] = job, job.output_tokens
        self._connection.send(Submit(job.job_id, job.prompt_tokens, job.output_tokens))
        return True

    def cancel(self, job_id: str, now: float) -> bool:  # noqa: ARG002
        if self._jobs.pop(job_id, None) is None:
            return False
        self._connection.send(Cancel(job_id))
        return True

    def next_event_s(self) -> float:
        return math.inf

    def advance(self, now: float) -> list[Event]:
        events: list[Event] = []
        while self._heard:
            word = self._heard.popleft()
            if isinstance(word, Log):
                self._wants_log.popleft()(word.rows)
                continue
            self._state = word
            for name in word.names:
                if (job := self._jobs.get(name)) is not None:
                    self._gained(job, now, events)
        return events

    def _gained(self, job: Job, now: float, events: list[Event]) -> None:
        first = job.first_token_s is None
        if first:
            job.first_token_s = now
        events.append(Event("first_token" if first else "token", job, now))
        self._left[job.job_id] -= 1
        if not self._left[job.job_id]:
            job.finished_s = now
            events.append(Event("finished", job, now))
            del self._jobs[job.job_id], self._left[job.job_id]

    def take_log(self, told: Callable[[Rows], object]) -> None:
        """Have ``told`` called with the iterations since the last time."""
        self._wants_log.append(told)
        self._connection.send(TakeLog())

    def snapshot(self, now: float) -> EngineSignals:
        capacity = self.config.total_blocks * self.config.block_tokens
        held = self._state.held_tokens if self._jobs else 0
        running = min(self._state.running, len(self._jobs))
        return EngineSignals(
            now,
            running=running,
            waiting=len(self._jobs) - running,
            kv_usage=min(1.0, held / capacity),
            kv_capacity_tokens=capacity,
            preemptions=0,
        )

    def kv_blocks(self, now: float) -> tuple[int, int]:
        total = self.config.total_blocks
        used = min(total, -(-self._state.held_tokens // self.config.block_tokens))
        del now
        return used, total - used

    def set_speed(self, factor: float, now: float) -> None:
        del now
        if factor != 1.0:
            raise NotImplementedError("a real engine is as fast as it is")

    def kill(self, now: float) -> list[Job]:
        lost = list(self._jobs.values())
        for job in lost:
            self.cancel(job.job_id, now)
        return lost
