"""Who may take a request of a model: health, draining and breakers, cached between changes."""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Iterable, Mapping

from router.domain.errors import BadInputError, ConfigError, UnknownNameError
from router.domain.fleet import BackendSpec, Fleet
from router.domain.state import NO_LOAD, EngineSignals, RemoteLoad
from router.fleet_state.backend import BackendState
from router.fleet_state.capability import Capability
from router.health.breaker import BreakerConfig
from router.health.care import CareRules, may_take_more, stands_out

CapabilityOf = Callable[[BackendSpec], Capability]


class FleetState:
    """All backends, by name and by model.

    Args:
        fleet: the backends to begin with.
        capability_of: what the hardware of a backend can do (see ``router.perf.build``).
        breaker: limits of every backend's circuit breaker.

    Attributes:
        care: what is looked at beyond the breakers; ``None`` for nothing.
        ramps_until_s: until then some backend may be in its slow start.
        ejected: how often each backend was ejected.
    """

    def __init__(
        self,
        fleet: Fleet,
        capability_of: CapabilityOf,
        breaker: BreakerConfig | None = None,
    ) -> None:
        self.capability_of = capability_of
        self._breaker = breaker or BreakerConfig()
        self.care: CareRules | None = None
        self.ramps_until_s = -math.inf
        self.ejected: Counter[str] = Counter()
        self._by_name: dict[str, BackendState] = {}
        self._usable: dict[str, list[BackendState]] = {}
        self._sides: dict[str, list[BackendState]] = {}
        self._held_by_all: dict[str, int] = {}
        self._half_opens_s = math.inf
        self._next_index = 0
        for spec in fleet.backends:
            self.add(spec)

    @property
    def backends(self) -> Iterable[BackendState]:
        """All of them, in the order of arrival."""
        return self._by_name.values()

    @property
    def models(self) -> set[str]:
        """Every model that some backend serves, healthy or not."""
        return {backend.spec.model for backend in self._by_name.values()}

    def __contains__(self, name: str) -> bool:
        return name in self._by_name

    def serves(self, model: str) -> bool:
        """Whether some backend serves this model, healthy or not."""
        return any(backend.spec.model == model for backend in self._by_name.values())

    def get(self, name: str) -> BackendState:
        """Return one backend.

        Raises:
            UnknownNameError: there is none of this name.
        """
        try:
            return self._by_name[name]
        except KeyError:
            raise UnknownNameError("backend", name, self._by_name) from None

    def add(self, spec: BackendSpec, capability: Capability | None = None) -> BackendState:
        """A backend joins; its ``capability`` is looked up if it is not given.

        Raises:
            ConfigError: the name is taken.
        """
        if spec.name in self._by_name:
            raise ConfigError(f"backend {spec.name!r} exists already; give it another name")
        known = capability or self.capability_of(spec)
        state = BackendState(spec, self._next_index, known, self._breaker)
        self._next_index += 1
        self._by_name[spec.name] = state
        self.changed()
        return state

    def remove(self, name: str) -> None:
        """A backend leaves; attempts in flight there keep their own reference."""
        self.get(name)
        del self._by_name[name]
        self.changed()

    def changed(self) -> None:
        """Availability of some backend changed: forget who is usable."""
        self._usable.clear()
        self._sides.clear()
        self._held_by_all.clear()
        self._half_opens_s = min(
            (b.breaker.half_opens_s for b in self._by_name.values()), default=math.inf
        )

    def candidates(self, model: str, now: float) -> list[BackendState]:
        """Backends that may serve a whole request of ``model`` now; do not mutate the list."""
        if now >= self._half_opens_s:
            for backend in self._by_name.values():
                backend.breaker.tick(now)
            self.changed()
        usable = self._usable.get(model)
        if usable is None:
            usable = [b for b in self.sides(model) if b.spec.role == "both"]
            if usable and self.care is not None and self.care.panic_threshold:
                usable = self._unless_panic(model, usable, self.care.panic_threshold)
            if usable:  # names that clients invent are not remembered
                self._usable[model] = usable
                self._held_by_all[model] = min(b.max_context_tokens for b in usable)
        return usable

    def sides(self, model: str) -> list[BackendState]:
        """Usable ones of ``model`` as of the last ``candidates``, those for one half included."""
        usable = self._sides.get(model)
        if usable is None:
            usable = [b for b in self._by_name.values() if b.spec.model == model and b.usable]
            if usable:
                self._sides[model] = usable
        return usable

    def _unless_panic(
        self, model: str, usable: list[BackendState], threshold: float
    ) -> list[BackendState]:
        everyone = [
            b
            for b in self._by_name.values()
            if b.spec.model == model and b.spec.role == "both" and not b.draining
        ]
        return everyone if len(usable) < threshold * len(everyone) else usable

    def served(self, backend: BackendState, *, failed: bool, now: float) -> None:
        """A request ended there, well or not; who fails more than its peers is ejected."""
        care = self.care
        if care is None or care.failure_ratio >= 1.0:
            return
        backend.failures.note(failed, care.min_requests)
        if not failed or backend.breaker.state != "closed":
            return
        model = backend.spec.model
        peers = [b for b in self._by_name.values() if b.spec.model == model and b is not backend]
        out = sum(b.breaker.state != "closed" for b in peers) + 1
        if out > care.max_ejected * (len(peers) + 1):
            return
        if stands_out(backend.failures, [b.failures for b in peers], care):
            backend.breaker.eject(now)
            backend.failures.forget()
            self.ejected[backend.spec.name] += 1
            self.changed()

    def recovered(self, backend: BackendState, now: float) -> None:
        """A backend joined, or serves again: from now on it ramps up."""
        if self.care is not None and self.care.slow_start_s:
            backend.ramps_from_s = now
            self.ramps_until_s = now + self.care.slow_start_s

    def ramped(self, usable: list[BackendState], now: float) -> list[BackendState]:
        """Without those that have what their slow start allows, unless nobody else is left."""
        assert self.care is not None
        slow_s = self.care.slow_start_s
        old = [b.in_flight for b in usable if now >= b.ramps_from_s + slow_s]
        if not old:
            return usable
        busiest = max(old)
        return [
            b
            for b in usable
            if now >= b.ramps_from_s + slow_s or may_take_more(b, busiest, now, slow_s)
        ]

    def held_by_all(self, model: str) -> int:
        """Prompt plus output, in tokens, that the context of every candidate holds."""
        return self._held_by_all.get(model, 0)

    def next_half_open_s(self) -> float:
        """When the next open breaker may be probed; infinity if none is open."""
        return self._half_opens_s

    def set_health(self, name: str, healthy: bool) -> None:
        """An active health check found the backend well or ill."""
        self.get(name).healthy = healthy
        self.changed()

    def drain(self, name: str) -> None:
        """Send nothing new there."""
        self.get(name).draining = True
        self.changed()

    def resume(self, name: str) -> None:
        """Send there again."""
        self.get(name).draining = False
        self.changed()

    def share(self, loads: Mapping[str, RemoteLoad], now: float) -> None:
        """What other replicas have under way, by backend; who is not named has nothing."""
        for name, backend in self._by_name.items():
            backend.share(loads.get(name, NO_LOAD), now)

    def scrape(self, name: str, signals: EngineSignals) -> None:
        """Telemetry arrived; for a backend that has left it is dropped."""
        backend = self._by_name.get(name)
        if backend is not None:
            held = backend.max_context_tokens
            backend.scraped(signals)
            if backend.max_context_tokens != held:
                self.changed()

    def correct(self, name: str, prefill: float, decode: float) -> None:
        """Telemetry learned new multipliers; for a backend that has left they are dropped.

        Raises:
            BadInputError: one is no number above 0: every score would be NaN or upside down.
        """
        if not (0 < prefill < math.inf and 0 < decode < math.inf):
            raise BadInputError(
                f"corrections of backend {name!r} must be numbers above 0, "
                f"not prefill {prefill!r}, decode {decode!r}"
            )
        backend = self._by_name.get(name)
        if backend is not None:
            backend.correct(prefill, decode)

    def set_prices(self, prices: Mapping[str, float]) -> None:
        """New prices by group; a group without one costs nothing.

        Raises:
            BadInputError: a price that is no number of at least 0; none is changed then.
        """
        for group, price in prices.items():
            if not 0 <= price < math.inf:
                raise BadInputError(
                    f"the price of group {group!r} must be a number of at least 0, not {price!r}"
                )
        for backend in self._by_name.values():
            backend.reprice(prices.get(backend.spec.group, 0.0))
