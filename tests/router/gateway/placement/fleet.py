"""A fleet whose engines start and stop at once, for the order of the steps."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from router.domain.fleet import BackendSpec, Fleet
from router.domain.state import LinearCost
from router.fleet_state.backend import BackendState
from router.fleet_state.capability import Capability
from router.gateway.placement.adapter import PlacementError, Survey
from router.gateway.placement.vllm import slot_of
from router.health.breaker import BreakerConfig
from solver.stock import pools_of

CAPABILITY = Capability(LinearCost(0.01, 1e-4, 1e-5, 1e-7), 100_000, 8192, 2048, 256)


def spec(name: str, model: str, slot: str, gpu: str = "t4") -> BackendSpec:
    return BackendSpec(name, gpu, "vllm", model, url=f"http://{name}", labels={"slot": slot})


class FakeFleet:
    """Implements ``Members`` and ``Adapter`` over slots; every change is checked and noted.

    Attributes:
        log: "start NAME" and "stop NAME", in order.
        dark: models that at some moment had no ready engine though they had had one.
        refuses: backends that will not start.
    """

    name = "fake"
    dry = False
    joins = True

    def __init__(self, specs: Sequence[BackendSpec], running: Sequence[str]) -> None:
        self.specs = {one.name: one for one in specs}
        self.states = {name: self._state(name) for name in running}
        self.log: list[str] = []
        self.dark: set[str] = set()
        self.refuses: set[str] = set()
        self.begun = 0
        self._lit = self.ready_models()

    def _state(self, name: str) -> BackendState:
        return BackendState(self.specs[name], 0, CAPABILITY, BreakerConfig())

    def ready_models(self) -> set[str]:
        return {state.spec.model for state in self.states.values() if state.usable}

    def check(self) -> None:
        self._lit |= self.ready_models()
        self.dark |= self._lit - self.ready_models()

    # Members

    def backends(self) -> Sequence[BackendState]:
        return list(self.states.values())

    def drain(self, name: str) -> None:
        self.states[name].draining = True
        self.check()

    def join(self, one: BackendSpec) -> None:
        self.states[one.name] = self._state(one.name)
        self.check()

    def leave(self, name: str) -> None:
        assert self.states[name].in_flight == 0
        del self.states[name]
        self.check()

    # Adapter

    async def survey(self, running: Sequence[BackendSpec]) -> Survey:
        names = {one.name for one in running}
        slots = {slot_of(one): one for one in self.specs.values()}
        startable = tuple(one for one in self.specs.values() if one.name not in names)
        return Survey(pools_of(Fleet(tuple(slots.values()))), startable)

    def preview(self, wanted: Mapping[str, int]) -> tuple[str, ...]:
        return tuple(f"{group}: {count}" for group, count in wanted.items())

    async def begin(self) -> None:
        self.begun += 1

    async def finish(self) -> None:
        self.begun -= 1

    def _choice(self, group: str, running: Sequence[BackendSpec]) -> BackendSpec | None:
        taken = {slot_of(one) for one in running}
        free = (s for s in self.specs.values() if s.group == group and slot_of(s) not in taken)
        return next(free, None)

    def can_start(self, group: str, running: Sequence[BackendSpec]) -> bool:
        return self._choice(group, running) is not None

    async def start(self, group: str, running: Sequence[BackendSpec]) -> BackendSpec | None:
        chosen = self._choice(group, running)
        assert chosen is not None
        if chosen.name in self.refuses:
            raise PlacementError(f"{chosen.name} would not start")
        awake = {slot_of(self.specs[name]) for name in self.states}
        assert slot_of(chosen) not in awake, "two engines on the same cards"
        self.log.append(f"start {chosen.name}")
        return chosen

    async def stop(self, one: BackendSpec) -> None:
        assert one.name not in self.states
        self.log.append(f"stop {one.name}")

    async def close(self) -> None:
        pass
