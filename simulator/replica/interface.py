"""The one interface of both engines; sans-IO, so the driver owns the clock."""

from __future__ import annotations

from typing import Protocol

from router.domain.state import EngineSignals
from simulator.replica.config import ReplicaConfig
from simulator.replica.job import Event, Job


class Replica(Protocol):
    """One simulated engine. ``now`` never goes backwards between calls.

    Attributes:
        config: how it is set up.
    """

    config: ReplicaConfig

    @property
    def preemptions(self) -> int:
        """Jobs that lost their KV cache to others since the process started."""

    @property
    def running(self) -> int:
        """Jobs being prefilled or decoded."""

    @property
    def waiting(self) -> int:
        """Jobs queued inside the engine."""

    def submit(self, job: Job, now: float) -> bool:
        """Queue a job; ``False`` if the engine's own queue is full (HTTP 503).

        A job that can never fit is accepted and reported as ``aborted`` by the next ``advance``.

        Raises:
            WorkloadError: token counts that make no sense, or an id that is in use.
        """

    def cancel(self, job_id: str, now: float) -> bool:
        """The client left; ``False`` if no such job is here any more.

        A running job keeps its place until the iteration in progress ends.
        """

    def next_event_s(self) -> float:
        """When to call ``advance`` next; ``math.inf`` when nothing is running."""

    def advance(self, now: float) -> list[Event]:
        """Everything that happened up to and including ``now``, in order, told once."""

    def snapshot(self, now: float) -> EngineSignals:
        """What the engine's metrics page would say now."""

    def kv_blocks(self, now: float) -> tuple[int, int]:
        """KV blocks used and free now (I3: their sum is the size of the cache)."""

    def set_speed(self, factor: float, now: float) -> None:
        """From the next iteration on, iterations take ``factor`` times as long."""

    def kill(self, now: float) -> list[Job]:
        """The process dies: its jobs are lost and returned, its cache is cold."""
