"""Requests that two engines share in a replay: prompt there, KV over a link, answer here.

The truth of a transfer: each engine sends one prompt's KV at a time and receives one at a time, so
transfers queue at both ends, and each takes ``latency + bytes / bandwidth`` of the link. Both
engines hold the prompt in their KV caches as they hold any other; what is on the wire takes no
room at either end, which for the fraction of a second that it takes changes nothing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Protocol

from router.config.schema import DisaggregationSection
from router.dispatcher import Dispatcher
from router.domain.fleet import BackendSpec
from router.perf.hardware import Hardware
from simulator.processes import EngineProcess, SimClock, Verdict
from simulator.replica.job import Event
from simulator.results import Records
from simulator.rows import Rows


@dataclass(slots=True, eq=False)
class Shared:
    """One request on two engines.

    Attributes:
        prefill, decode: the engines.
        computed: whether its prompt is, so that ``prefill`` has nothing to do with it any more.
        decoding: whether it has reached ``decode``.
    """

    prefill: EngineProcess
    decode: EngineProcess
    computed: bool = False
    decoding: bool = False


class Links:
    """When each transfer ends.

    Args:
        section: bandwidths and latency.
        hardware: knows the size of KV.
    """

    def __init__(self, section: DisaggregationSection, hardware: Hardware) -> None:
        self._section, self._hardware = section, hardware
        self._free_s: dict[tuple[str, str], float] = {}

    def arrives_s(
        self, source: BackendSpec, target: BackendSpec, prompt_tokens: int, now: float
    ) -> float:
        """Move a prompt's KV, beginning at ``now`` or when both ends are free."""
        section = self._section
        rate = section.link_gb_per_s
        if source.zone != target.zone and section.cross_zone_gb_per_s is not None:
            rate = section.cross_zone_gb_per_s
        size = prompt_tokens * self._hardware.kv_bytes_per_token(source)
        out, into = ("out", source.name), ("in", target.name)
        begins_s = max(now, self._free_s.get(out, 0.0), self._free_s.get(into, 0.0))
        takes_s = size / (rate * 1e9)
        self._free_s[out] = self._free_s[into] = begins_s + takes_s
        return begins_s + takes_s + section.latency_s


class Owner(Protocol):
    """The replay, as far as shared requests go."""

    records: Records

    def router_of(self, i: int) -> Dispatcher:
        """The gateway replica that request ``i`` came to."""

    def bounce(self, i: int, now: float, *, busy: bool = False, prefill: bool = False) -> None:
        """An attempt failed before its first byte."""

    def refused(self, i: int, now: float) -> None:
        """An engine will never take this request."""


class Pairs:
    """Carries requests through two engines.

    Args:
        owner: hears what goes wrong.
        clock: the virtual clock.
        rows: makes the jobs.
        links: how long KV takes.
    """

    def __init__(self, owner: Owner, clock: SimClock, rows: Rows, links: Links) -> None:
        self._owner, self._clock, self._rows, self._links = owner, clock, rows, links
        self._shared: dict[int, Shared] = {}

    def __bool__(self) -> bool:
        return bool(self._shared)

    def send(self, i: int, prefill: EngineProcess, decode: EngineProcess, now: float) -> None:
        """A request goes to two engines, to the first one first."""
        records = self._owner.records
        records.backend[i] = decode.index
        records.dispatched_s[i] = now
        records.attempts[i] += 1
        shared = self._shared[i] = Shared(prefill, decode)
        self._after(prefill.delay_s, self._prompt_arrives, i, shared, now)

    def prefills(self, i: int, engine: EngineProcess) -> bool:
        """Whether this engine computes only the prompt of a request."""
        shared = self._shared.get(i)
        return shared is not None and shared.prefill is engine

    def prompts_on(self, engine: EngineProcess) -> list[int]:
        """Requests of which this engine computes the prompt."""
        return [i for i, one in self._shared.items() if one.prefill is engine and not one.computed]

    def part(self, i: int, now: float) -> None:
        """The request is over, or goes elsewhere: neither engine works for it any more."""
        shared = self._shared.pop(i, None)
        if shared is None:
            return
        if not shared.computed:
            shared.prefill.cancel(str(i), now)
        if shared.decoding:
            shared.decode.cancel(str(i), now)

    def heard(self, i: int, engine: EngineProcess, event: Event, now: float) -> bool:
        """Something happened to a request; ``False`` if it is no affair of its prefill side."""
        shared = self._shared.get(i)
        if shared is None or shared.prefill is not engine:
            return False
        if event.kind == "finished" and not shared.computed:
            self._computed(i, shared, event.job.prompt_tokens, now)
        elif event.kind == "aborted":
            self._owner.refused(i, now)
        return True

    # -- inside ------------------------------------------------------------------------------

    def _after(
        self,
        delay_s: float,
        step: Callable[[int, Shared, float], None],
        i: int,
        shared: Shared,
        now: float,
    ) -> None:
        if delay_s > 0.0:
            self._clock.call_at(now + delay_s, partial(step, i, shared))
        else:
            step(i, shared, now)

    def _prompt_arrives(self, i: int, shared: Shared, now: float) -> None:
        if self._shared.get(i) is not shared:
            return
        verdict = shared.prefill.submit(self._rows.prefill(i), now)
        if verdict is not Verdict.ACCEPTED:
            self._owner.bounce(i, now, busy=verdict is Verdict.BUSY, prefill=True)

    def _computed(self, i: int, shared: Shared, prompt_tokens: int, now: float) -> None:
        """The gateway hears of it and tells the decode side, which fetches the KV."""
        shared.computed = True
        self._owner.router_of(i).prefilled(str(i), now)
        told_s = now + shared.decode.delay_s
        source, target = shared.prefill.spec, shared.decode.spec
        arrives_s = self._links.arrives_s(source, target, prompt_tokens, told_s)
        self._clock.call_at(arrives_s, partial(self._kv_arrives, i, shared))

    def _kv_arrives(self, i: int, shared: Shared, now: float) -> None:
        if self._shared.get(i) is not shared:
            return
        if not shared.prefill.up:
            self._owner.bounce(i, now, prefill=True)  # the KV went down with it
            return
        shared.decoding = True
        job = self._rows.job(i, shared.decode.longest_job_tokens)
        job.received = True
        self._owner.records.output_tokens[i] = job.output_tokens
        verdict = shared.decode.submit(job, now)
        if verdict is not Verdict.ACCEPTED:
            self._owner.bounce(i, now, busy=verdict is Verdict.BUSY)
