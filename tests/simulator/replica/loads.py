"""A truth model with round numbers, and a driver as small as a driver can be."""

from __future__ import annotations

import math
from collections.abc import Iterable
from dataclasses import dataclass

from router.domain.state import LinearCost
from simulator.replica.interface import Replica
from simulator.replica.job import Event, Job


@dataclass(frozen=True)
class Affine:
    """Seconds of an iteration, affine in everything."""

    step_s: float = 0.010
    prefill_s: float = 0.0001
    seq_s: float = 0.0003
    context_s: float = 1e-6
    pair_s: float = 1e-9

    def iteration_s(
        self,
        prefill_tokens: int,
        decode_seqs: int,
        context_tokens: float,
        prefill_pairs: float = 0.0,
    ) -> float:
        return (
            self.step_s
            + self.prefill_s * prefill_tokens
            + self.seq_s * decode_seqs
            + self.context_s * context_tokens
            + self.pair_s * prefill_pairs
        )

    def linear(self) -> LinearCost:
        return LinearCost(self.step_s, self.prefill_s, self.seq_s, self.context_s)


def tick(seconds: float = 1.0) -> Affine:
    """Every iteration takes as long, whatever is in it: times become iteration counts."""
    return Affine(step_s=seconds, prefill_s=0.0, seq_s=0.0, context_s=0.0, pair_s=0.0)


def drain(replica: Replica, until: float = math.inf) -> list[Event]:
    """Advance to each next event up to ``until``."""
    events: list[Event] = []
    while (at := replica.next_event_s()) <= until and at < math.inf:
        events += replica.advance(at)
    return events


def play(replica: Replica, arrivals: Iterable[tuple[float, Job]]) -> list[Event]:
    """Submit every job at its time, and see it all through."""
    events: list[Event] = []
    for at, job in arrivals:
        events += drain(replica, at)
        replica.submit(job, at)
    return events + drain(replica)


def trail(events: Iterable[Event]) -> list[tuple[str, str, float]]:
    """Events as plain values."""
    return [(event.kind, event.job.job_id, round(event.at_s, 6)) for event in events]
