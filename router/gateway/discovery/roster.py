"""The fleet as its sources want it, applied to the dispatcher as a difference.

A backend that joins is used at once. One that leaves its source is drained: nothing new goes
there, what is under way runs to its end (or to the drain deadline), then it is forgotten; if it
comes back before, it goes on as if nothing had happened. One that changed is replaced. An entry
that cannot be is left out, with its reason in the log, and the rest of its fleet is used.
"""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from typing import Protocol

from router.config.fleet import build_fleet
from router.config.schema import BackendEntry
from router.domain.errors import ConfigError, UnknownNameError
from router.domain.fleet import BackendSpec
from router.fleet_state.backend import BackendState
from router.gateway.discovery.seam import Seen
from router.gateway.lull import Rest
from router.gateway.upstream import parse_address
from router.perf.hardware import Hardware

log = logging.getLogger("motley.discovery")

CONFIG, REST = "config", "rest"
"""Two sources that are always there: the file's ``backends``, and ``POST /workers``."""

LOOK_S = 0.25


class Books(Protocol):
    """Where backends are added and removed; implemented by ``runtime.Runtime``."""

    def add_backend(self, spec: BackendSpec) -> BackendState:
        """A backend joins."""

    def remove_backend(self, name: str) -> BackendState:
        """A backend leaves at once."""

    def drain_backend(self, name: str) -> None:
        """Nothing new goes there."""

    def resume_backend(self, name: str) -> None:
        """It is used again."""

    def await_model(self, model: str) -> None:
        """Another backend of this model is likely to come."""


class ByHand(Protocol):
    """Told of workers that are registered and removed here; implemented by ``shared.sharing``."""

    def joined(self, spec: BackendSpec) -> None:
        """A worker was registered."""

    def left(self, name: str) -> None:
        """One was removed."""


class _Nobody:
    def joined(self, spec: BackendSpec) -> None:
        pass

    def left(self, name: str) -> None:
        pass


@dataclass(frozen=True, slots=True)
class Difference:
    """What one fleet changed.

    Attributes:
        joined, changed, left, back: names; ``back`` were draining and returned.
        refused: entries that cannot be, each with its reason.
    """

    joined: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    left: tuple[str, ...] = ()
    back: tuple[str, ...] = ()
    refused: tuple[str, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.joined or self.changed or self.left or self.back)

    def __str__(self) -> str:
        marks = (("+", self.joined), ("~", self.changed), ("-", self.left), ("^", self.back))
        return " ".join(mark + name for mark, names in marks for name in names)


@dataclass(slots=True)
class _Leaving:
    spec: BackendSpec
    until_s: float
    source: str


class Roster:
    """Who is in the fleet, by source.

    Args:
        books: told who joins and leaves.
        hardware: what fits where.
        clock: seconds, monotonic.
        drain_s: how long a leaving backend may take to finish.
        fleet: the file's backends, already in the books.
    """

    def __init__(
        self,
        books: Books,
        hardware: Hardware,
        clock: Callable[[], float],
        *,
        drain_s: float,
        fleet: Sequence[BackendSpec] = (),
    ) -> None:
        self.hardware = hardware
        self.drain_s = drain_s
        self._books = books
        self._clock = clock
        self._members: dict[str, dict[str, BackendSpec]] = {CONFIG: {b.name: b for b in fleet}}
        self._leaving: dict[str, _Leaving] = {}
        self._dismissed: dict[str, set[str]] = {}
        self._complaints: dict[str, tuple[str, ...]] = {}
        self.told: ByHand = _Nobody()

    # -- level-triggered ---------------------------------------------------------------------

    def put(self, source: str, seen: Seen) -> Difference:
        """This is the source's whole fleet now."""
        specs: list[BackendSpec] = []
        refused = list(seen.refused)
        for entry in seen.entries:
            try:
                specs.append(self._spec(entry))
            except ConfigError as error:
                refused.append(f"{entry.name or entry.url}: {error}")
        return self.put_specs(source, specs, tuple(refused))

    def put_specs(
        self, source: str, specs: Sequence[BackendSpec], refused: tuple[str, ...] = ()
    ) -> Difference:
        """The same, for entries that have been checked."""
        known = self._members.setdefault(source, {})
        dismissed = self._dismissed.setdefault(source, set())
        wanted: dict[str, BackendSpec] = {}
        for spec in specs:
            owner = self._owner(spec.name, but=source)
            if owner is not None:
                refused += (f"{spec.name}: the source {owner} has a backend of this name",)
            elif spec.name not in dismissed:
                wanted[spec.name] = spec
        dismissed &= {spec.name for spec in specs}  # a source that drops a name may bring it again
        gone = [name for name in known if name not in wanted]
        joined, changed, back = self._bring(known, wanted)
        for name in gone:
            self._leave(known.pop(name), source)
        difference = Difference(joined, changed, tuple(gone), back, refused)
        self._tell(source, difference)
        return difference

    def _bring(
        self, known: dict[str, BackendSpec], wanted: dict[str, BackendSpec]
    ) -> tuple[tuple[str, ...], tuple[str, ...], tuple[str, ...]]:
        joined: list[str] = []
        changed: list[str] = []
        back: list[str] = []
        for name, spec in wanted.items():
            leaving = self._leaving.pop(name, None)
            if name in known:
                if known[name] != spec:
                    self._books.remove_backend(name)
                    self._books.add_backend(spec)
                    changed.append(name)
            elif leaving is not None and leaving.spec == spec:
                self._books.resume_backend(name)
                back.append(name)
            else:
                if leaving is not None:
                    self._books.remove_backend(name)
                self._books.add_backend(spec)
                joined.append(name)
            known[name] = spec
        return tuple(joined), tuple(changed), tuple(back)

    # -- one at a time (REST) ----------------------------------------------------------------

    def add(self, spec: BackendSpec) -> BackendState:
        """A backend joins by hand.

        Raises:
            ConfigError: the name is taken.
        """
        leaving = self._leaving.pop(spec.name, None)
        if leaving is not None:
            self._books.remove_backend(spec.name)
        state = self._books.add_backend(spec)
        self._members.setdefault(REST, {})[spec.name] = spec
        self.told.joined(spec)
        return state

    def dismiss(self, name: str) -> BackendState:
        """A backend leaves by hand; its source may bring it back once it has dropped it.

        Raises:
            UnknownNameError: there is none of this name.
        """
        state = self._books.remove_backend(name)
        self._leaving.pop(name, None)
        owner = self._owner(name)
        if owner == REST:
            self.told.left(name)
        if owner is not None:
            del self._members[owner][name]
            if owner not in (CONFIG, REST):
                self._dismissed.setdefault(owner, set()).add(name)
        return state

    def members(self, source: str) -> dict[str, BackendSpec]:
        """Backends of one source, by name."""
        return dict(self._members.get(source, {}))

    def source_of(self, name: str) -> str:
        """Who brought a backend."""
        return self._owner(name) or ("leaving" if name in self._leaving else "")

    # -- leaving -----------------------------------------------------------------------------

    async def keep_releasing(self, in_flight: Callable[[str], int], rest: Rest) -> None:
        """Forget drained backends once they are idle, or their time is over."""
        while True:
            await rest(LOOK_S)
            self.release(in_flight)

    def release(self, in_flight: Callable[[str], int]) -> None:
        """One look at those that leave."""
        now = self._clock()
        for name, leaving in list(self._leaving.items()):
            running = in_flight(name)
            if running and now < leaving.until_s:
                continue
            if running:
                log.warning("backend %s: %d requests outlast its drain deadline", name, running)
            del self._leaving[name]
            self._books.remove_backend(name)
            if leaving.source not in (CONFIG, REST):
                self._books.await_model(leaving.spec.model)

    def _leave(self, spec: BackendSpec, source: str) -> None:
        try:
            self._books.drain_backend(spec.name)
        except UnknownNameError:
            return  # the plan put it to sleep: it serves nobody
        self._leaving[spec.name] = _Leaving(spec, self._clock() + self.drain_s, source)

    # -- inside ------------------------------------------------------------------------------

    def _owner(self, name: str, but: str = "") -> str | None:
        for source, members in self._members.items():
            if source != but and name in members:
                return source
        return None

    def _spec(self, entry: BackendEntry) -> BackendSpec:
        spec = build_fleet([entry], self.hardware).backends[0]
        parse_address(spec.name, spec.url)
        return replace(spec, labels=dict(spec.labels))

    def _tell(self, source: str, difference: Difference) -> None:
        if difference:
            log.info("fleet from %s: %s", source, difference)
        if difference.refused != self._complaints.get(source, ()):
            self._complaints[source] = difference.refused
            for reason in difference.refused:
                log.warning("fleet from %s: left out %s", source, reason)


def in_flight_of(state_of: Callable[[str], BackendState]) -> Callable[[str], int]:
    """How many requests a backend has; 0 once it is gone."""

    def count(name: str) -> int:
        try:
            return state_of(name).in_flight
        except UnknownNameError:
            return 0

    return count
