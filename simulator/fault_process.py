"""Makes the faults of a timeline happen, and the gateway notice as a real one would."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from functools import partial
from typing import Protocol

from router.config.schema import ReliabilitySection
from router.dispatcher import Dispatcher
from simulator.faults import Fault
from simulator.gateways import knows
from simulator.pairs import Pairs
from simulator.processes import EngineProcess, SimClock
from simulator.results import Records
from simulator.seconds import Seconds

_HANG_CHECK_S = 1.0


class Patient(Protocol):
    """What a fault does to requests: implemented by ``Replay``."""

    records: Records
    pairs: Pairs
    seconds: Seconds

    def bounce(self, i: int, now: float, *, busy: bool = False, prefill: bool = False) -> None:
        """An attempt failed before its first byte."""

    def lose(self, i: int, now: float, reason: str) -> None:
        """An attempt failed after its first byte."""


class FaultProcess:
    """The timeline of faults on the virtual clock.

    Timeouts: a gateway gives up on an engine that sends no first byte, or none at all for a
    while. Here that is checked where it matters, on engines that hang; a merely overloaded
    engine is waited for, so that latencies under load are seen and not cut off.
    """

    def __init__(
        self,
        patient: Patient,
        clock: SimClock,
        engines: Mapping[str, EngineProcess],
        reliability: ReliabilitySection,
        faults: Sequence[Fault],
    ) -> None:
        self._patient = patient
        self._clock = clock
        self._engines = engines
        self._reliability = reliability
        self._faults = faults
        self._dispatchers: Sequence[Dispatcher] = ()
        self._left = len(faults)

    @property
    def pending(self) -> bool:
        """Whether a fault is still to come, or an engine hangs with requests inside."""
        hanging = any(e.hung_since_s is not None and e.occupied for e in self._engines.values())
        return self._left > 0 or hanging

    @property
    def expected(self) -> bool:
        """Whether there are faults at all."""
        return bool(self._faults)

    def start(self, dispatchers: Sequence[Dispatcher]) -> None:
        """Take backends that join later out of the fleet, and set the timeline."""
        self._dispatchers = dispatchers
        first: dict[str, Fault] = {}
        for fault in self._faults:
            first.setdefault(fault.backend, fault)
            self._clock.call_at(fault.at_s, partial(self._strike, fault))
        for name, fault in first.items():
            if fault.kind == "join":
                for dispatcher in dispatchers:
                    dispatcher.remove_backend(name, 0.0)

    def _strike(self, fault: Fault, now: float) -> None:
        engine = self._engines[fault.backend]
        self._left -= 1
        getattr(self, f"_{fault.kind}")(engine, fault, now)
        if fault.lasts_s < math.inf:
            self._left += 1
            self._clock.call_at(now + fault.lasts_s, partial(self._heal, fault))

    def _heal(self, fault: Fault, now: float) -> None:
        engine = self._engines[fault.backend]
        self._left -= 1
        match fault.kind:
            case "slow":
                engine.slow(1.0, now)
            case "kill" | "restart":
                engine.revive()
            case "hang":
                engine.thaw(now)
            case "error":
                engine.erring = False
            case "drain":
                self._readmit(engine, now)
            case "join":
                pass

    # -- one method per kind -----------------------------------------------------------------

    def _slow(self, engine: EngineProcess, fault: Fault, now: float) -> None:
        engine.slow(fault.factor or 1.0, now)

    def _kill(self, engine: EngineProcess, fault: Fault, now: float) -> None:  # noqa: ARG002
        for job in engine.kill(now):
            self._broke(int(job.job_id), engine, now, "engine_died")

    _restart = _kill

    def _hang(self, engine: EngineProcess, fault: Fault, now: float) -> None:  # noqa: ARG002
        engine.freeze(now)
        self._clock.call_at(now + _HANG_CHECK_S, partial(self._check_hung, engine))

    def _error(self, engine: EngineProcess, fault: Fault, now: float) -> None:  # noqa: ARG002
        engine.erring = True

    def _join(self, engine: EngineProcess, fault: Fault, now: float) -> None:  # noqa: ARG002
        self._readmit(engine, now)

    def _drain(self, engine: EngineProcess, fault: Fault, now: float) -> None:  # noqa: ARG002
        for dispatcher in self._dispatchers:
            if knows(dispatcher, engine.spec.name):
                dispatcher.drain(engine.spec.name, now)

    def _readmit(self, engine: EngineProcess, now: float) -> None:
        """Take a backend (back) into the fleet, free of what was held against it."""
        name = engine.spec.name
        for dispatcher in self._dispatchers:
            if knows(dispatcher, name):
                if not dispatcher.state.get(name).draining:
                    continue
                dispatcher.remove_backend(name, now)
            dispatcher.add_backend(engine.spec, now)

    # -- what requests see -------------------------------------------------------------------

    def _broke(self, i: int, engine: EngineProcess, now: float, reason: str) -> None:
        """The connection of an attempt broke."""
        if self._patient.seconds.lost(i, engine, now):
            return
        if self._patient.pairs.prefills(i, engine):
            self._patient.bounce(i, now, prefill=True)
            return
        if math.isnan(self._patient.records.first_token_s[i]):
            self._patient.bounce(i, now)
        else:
            self._patient.lose(i, now, reason)

    def _check_hung(self, engine: EngineProcess, now: float) -> None:
        if engine.hung_since_s is None:
            return
        records = self._patient.records
        prompts = self._patient.pairs.prompts_on(engine)
        for i in [*records.pending_on(engine.index), *prompts]:
            if math.isnan(records.first_token_s[i]):
                over = now - records.dispatched_s[i] > self._reliability.first_byte_timeout_s
            else:
                over = now - engine.hung_since_s > self._reliability.idle_timeout_s
            if over:
                engine.cancel(str(i), now)
                self._broke(i, engine, now, "idle_timeout")
        self._clock.call_at(now + _HANG_CHECK_S, partial(self._check_hung, engine))
