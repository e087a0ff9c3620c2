"""A plan's placement carried out, in an order that keeps every model served.

One step at a time: whatever can be started on free cards is started first, and is awaited until
it is ready; then one engine too many is drained, awaited until nobody is served there, and
stopped; and again. Before each stop the fleet is looked at anew: an engine is only taken away
while another of its model is ready (I10). A step that fails ends the run, so that nothing more is
taken away; the next plan sees what is left.
"""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal, Protocol

from router.domain.fleet import BackendSpec
from router.fleet_state.backend import BackendState
from router.gateway.placement.adapter import Adapter, PlacementError

log = logging.getLogger("motley.placement")

LOOK_S = 0.2
"""How often it is looked whether an engine joined or emptied."""

DARK = "would leave its model without a ready replica"

Kind = Literal["start", "stop"]


class Members(Protocol):
    """The fleet, as the gateway routes over it."""

    def backends(self) -> Sequence[BackendState]:
        """Everybody in it."""

    def drain(self, name: str) -> None:
        """Send nothing new there."""

    def join(self, spec: BackendSpec) -> None:
        """A ready engine joins."""

    def leave(self, name: str) -> None:
        """An engine that serves nobody leaves."""


@dataclass(frozen=True, slots=True)
class Step:
    """One replica started or stopped, or not.

    Attributes:
        kind: what.
        group: of which engines.
        backend: which one; empty where only the cluster knows.
        failure: why it did not come about, or empty.
    """

    kind: Kind
    group: str
    backend: str = ""
    failure: str = ""


class CarryOut:
    """Brings the fleet to a placement.

    Args:
        adapter: starts and stops.
        members: the fleet.
        ready_timeout_s: for an engine that was started to join.
        drain_timeout_s: for an engine to empty; the gateway ends every request by then.
        pause_s: least time between two steps, also of different runs.
        look_s: between looks.
    """

    def __init__(
        self,
        adapter: Adapter,
        members: Members,
        *,
        ready_timeout_s: float,
        drain_timeout_s: float,
        pause_s: float = 0.0,
        look_s: float = LOOK_S,
    ) -> None:
        self._adapter, self._members = adapter, members
        self._ready_timeout_s, self._drain_timeout_s = ready_timeout_s, drain_timeout_s
        self._look_s, self._pause_s = look_s, pause_s
        self._free_at_s = 0.0

    async def run(self, wanted: Mapping[str, int]) -> list[Step]:
        """Carry out a placement.

        Args:
            wanted: replicas by group; a group left out is not wanted at all.

        Returns:
            The steps taken, and at last those that could not be, with the reason.

        Raises:
            PlacementError: it cannot be noted how things were.
        """
        would = "would change" if self._adapter.dry else "changes"
        for line in self._adapter.preview(wanted):
            log.info("%s %s", would, line)
        if self._adapter.dry:
            return self._missing(wanted, "")
        if self._possible(wanted):
            await self._adapter.begin()
        steps = await self._steps(wanted)
        try:
            await self._adapter.finish()
        except PlacementError as error:
            log.warning("%s", error)  # what was done is done, and is kept in the history
        return steps

    async def _steps(self, wanted: Mapping[str, int]) -> list[Step]:
        steps: list[Step] = []
        while step := await self._in_its_time(wanted):
            steps.append(step)
            log.info("%s %s %s %s", step.kind, step.group, step.backend, step.failure or "done")
            if step.failure:
                return steps
        return steps + self._missing(wanted, DARK)

    def _possible(self, wanted: Mapping[str, int]) -> bool:
        """Whether any step can be taken."""
        ready, running = self._ready(), self._running()
        return self._spare(wanted) is not None or any(
            ready[group] < count and self._adapter.can_start(group, running)
            for group, count in wanted.items()
        )

    async def _in_its_time(self, wanted: Mapping[str, int]) -> Step | None:
        """The next step, not sooner than the pause allows."""
        loop = asyncio.get_running_loop()
        if self._pause_s and self._possible(wanted):
            await asyncio.sleep(max(0.0, self._free_at_s - loop.time()))
        step = await self._next(wanted)
        self._free_at_s = loop.time() + self._pause_s
        return step

    async def _next(self, wanted: Mapping[str, int]) -> Step | None:
        """Take the next step that can be taken."""
        ready = self._ready()
        for group, count in wanted.items():
            if ready[group] < count and self._adapter.can_start(group, self._running()):
                return await self._start(group, ready[group])
        spare = self._spare(wanted)
        return None if spare is None else await self._stop(spare)

    def _running(self) -> list[BackendSpec]:
        """Everything that takes up cards, ill or well."""
        return [b.spec for b in self._members.backends()]

    def _usable(self) -> list[BackendState]:
        """What the plan counted on; the ill are left to get well."""
        return [b for b in self._members.backends() if b.usable]

    def _ready(self) -> Counter[str]:
        return Counter(b.spec.group for b in self._usable())

    def _spare(self, wanted: Mapping[str, int]) -> BackendState | None:
        """An engine too many whose model has another ready one; the least busy first."""
        ready, models = self._ready(), Counter(b.spec.model for b in self._usable())
        spare = [
            b
            for b in self._usable()
            if ready[b.spec.group] > wanted.get(b.spec.group, 0) and models[b.spec.model] > 1
        ]
        return min(spare, key=lambda b: (not self._frees(b, wanted), b.in_flight), default=None)

    def _frees(self, backend: BackendState, wanted: Mapping[str, int]) -> bool:
        """Whether something wanted could start in its place."""
        left = [spec for spec in self._running() if spec.name != backend.spec.name]
        ready = self._ready()
        return any(
            ready[group] < count and self._adapter.can_start(group, left)
            for group, count in wanted.items()
        )

    async def _start(self, group: str, before: int) -> Step:
        try:
            spec = await self._adapter.start(group, self._running())
            if spec is not None and self._adapter.joins:
                self._members.join(spec)
        except PlacementError as error:
            return Step("start", group, failure=str(error))
        name = spec.name if spec is not None else ""
        if await self._until(lambda: self._ready()[group] > before, self._ready_timeout_s):
            return Step("start", group, name)
        failure = f"it did not join the fleet within {self._ready_timeout_s:g} s"
        return Step("start", group, name, failure)

    async def _stop(self, backend: BackendState) -> Step:
        spec = backend.spec
        self._members.drain(spec.name)
        if not await self._until(lambda: backend.in_flight == 0, self._drain_timeout_s):
            return Step(
                "stop", spec.group, spec.name, f"{backend.in_flight} requests would not end"
            )
        if self._adapter.joins:
            self._members.leave(spec.name)
        try:
            await self._adapter.stop(spec)
        except PlacementError as error:
            return Step("stop", spec.group, spec.name, str(error))
        gone = await self._until(lambda: not self._knows(spec.name), self._ready_timeout_s)
        failure = "" if gone else "it was stopped and is still in the fleet"
        return Step("stop", spec.group, spec.name, failure)

    def _knows(self, name: str) -> bool:
        return any(b.spec.name == name for b in self._members.backends())

    async def _until(self, holds: Callable[[], bool], timeout_s: float) -> bool:
        loop = asyncio.get_running_loop()
        deadline = loop.time() + timeout_s
        while not holds():
            if loop.time() > deadline:
                return False
            await asyncio.sleep(self._look_s)
        return True

    def _missing(self, wanted: Mapping[str, int], reason: str) -> list[Step]:
        """What still differs from the plan."""
        counts = self._ready()
        steps: list[Step] = []
        for group, count in wanted.items():
            steps += [Step("start", group, failure=reason and "no free cards")] * max(
                0, count - counts[group]
            )
        for group, count in counts.items():
            steps += [Step("stop", group, failure=reason)] * max(0, count - wanted.get(group, 0))
        return steps
