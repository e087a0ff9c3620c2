"""Trace in, requests out: the gateway's own Dispatcher on a virtual clock.

One request costs one arrival event, the events of its engine, and the calls of the Dispatcher's
protocol. Nothing else is created per request but a ``Request``, a ``Job`` and a row of
``Records``.
"""

from __future__ import annotations

import math
from collections import Counter
from collections.abc import Callable, Sequence
from functools import partial

from router.config.load import MotleyConfig
from router.dispatcher import Dispatcher
from router.domain.decision import Assign, Decision, Reject
from router.domain.fleet import BackendSpec
from router.domain.request import Request
from simulator.fault_process import FaultProcess
from simulator.faults import Fault
from simulator.gateways import Gateways
from simulator.onlooker import Onlooker, Progress
from simulator.options import ReplayOptions
from simulator.pairs import Links, Pairs
from simulator.processes import EngineProcess, SimClock, Verdict
from simulator.queue_watch import QueueWatch
from simulator.replica.interface import Replica
from simulator.replica.job import Event, Job
from simulator.results import Records, Status, Timeline
from simulator.rows import Rows
from simulator.seconds import Seconds
from simulator.traces.columns import Trace
from telemetry.learned import Learned


class Replay:
    """One policy on one trace; built by ``simulator.run``, run once.

    Args:
        trace: what arrives.
        config: the fleet file's settings.
        options: how to replay.
        gateways: the dispatchers, with the policy in them, and their telemetry.
        make_replica: builds the engine of a backend.
        faults: the timeline, in order.
        progress: told (requests settled, requests) now and then.

    Attributes:
        records: what came of each request.
        reasons: why requests were rejected or failed.
        timeline: samples of every engine.
        engines: one process per backend.
        dispatchers: one per gateway replica.
        wake_s: when the next request comes (see ``SimClock.wake_at``).
    """

    def __init__(
        self,
        trace: Trace,
        config: MotleyConfig,
        options: ReplayOptions,
        gateways: Gateways,
        make_replica: Callable[[BackendSpec], Replica],
        *,
        faults: Sequence[Fault] = (),
        progress: Progress | None = None,
    ) -> None:
        self._count = len(trace)
        self.records = Records(self._count)
        self.reasons: Counter[str] = Counter()
        self.timeline = Timeline()
        self._trace, self._options = trace, options
        self._clock = SimClock()
        fallbacks = config.fallbacks if options.fallback else None
        self._rows = Rows(trace, config.first_backend.model, config.aliases, fallbacks)
        self._most_attempts = 1 + config.reliability.max_retries
        self._gateways = gateways
        self.dispatchers = self._routers = gateways.dispatchers
        self._queues = [QueueWatch(self._clock, r, self._decided) for r in self._routers]
        self.engines = [
            self._engine(k, spec, make_replica(spec))
            for k, spec in enumerate(config.fleet.backends)
        ]
        self._engine_of = {engine.spec.name: engine for engine in self.engines}
        self._onlooker = Onlooker(self, progress)
        self._faults = FaultProcess(self, self._clock, self._engine_of, config.reliability, faults)
        self._next = 0
        self._bounced: set[int] = set()  # had an attempt that failed before its first byte
        self._hedges = config.hedging.enabled
        self.seconds = Seconds(self, self._clock, self._rows, self.engines)
        links = Links(config.disaggregation, config.hardware)
        self.pairs = Pairs(self, self._clock, self._rows, links)
        self.wake_s = trace.arrival_s[0]

    def _engine(self, k: int, spec: BackendSpec, replica: Replica) -> EngineProcess:
        delay_s = self._options.zone_delay_s.get(spec.zone, 0.0)
        heard = self._heard_later if delay_s else self._told
        return EngineProcess(self._clock, k, spec, replica, delay_s, heard)

    # -- running -----------------------------------------------------------------------------

    def run(self) -> None:
        """Replay the whole trace; returns when every request has ended."""
        self._faults.start(self._routers)
        probe = self._faults.expected
        self._gateways.start(self._clock, self.engines, self._look, probe=probe)
        self._onlooker.start(self._clock, self._trace.span_s)
        self._clock.wake_at(self.wake_s, self)
        self._clock.run()

    def wake(self, now: float) -> None:
        """The next request comes; then the one after it is waited for."""
        i = self._next
        self._next = following = i + 1
        arrivals = self._trace.arrival_s
        if following < self._count:
            self._clock.wake_at(arrivals[following], self)
        router = self._routers[i % len(self._routers)]
        if self._options.client_timeout_s is not None:
            self._clock.call_at(now + self._options.client_timeout_s, partial(self._leave, i))
        if self._options.oracle:
            self._gateways.refresh(router, self.engines, now)
        decision = router.dispatch(self._rows.request(i, now), now)
        self._follow(decision, i, now, Status.REJECTED)

    def learned(self) -> Learned:
        """What the first gateway replica has learned so far, to be kept."""
        return self._gateways.learned(self._clock.now)

    # -- towards the engines -----------------------------------------------------------------

    def _follow(self, decision: Decision, i: int, now: float, otherwise: Status) -> None:
        """Do what the dispatcher decided; ``otherwise`` is how a rejected request ends."""
        if type(decision) is Assign:
            if decision.recalled:
                self._recall(decision.recalled, now)
            engine = self._engine_of[decision.backend.name]
            if decision.prefill is None:
                self._send(i, engine, now)
            else:
                self.pairs.send(i, self._engine_of[decision.prefill.name], engine, now)
        elif type(decision) is Reject:
            self._settle(i, otherwise, now, decision.reason)
        else:
            self._queues[i % len(self._queues)].look_later()

    def _decided(self, request: Request, decision: Assign | Reject, now: float) -> None:
        """A request that waited in the router is decided."""
        i = int(request.request_id)
        self._follow(decision, i, now, Status.FAILED if i in self._bounced else Status.REJECTED)

    def _send(self, i: int, engine: EngineProcess, now: float) -> None:
        records = self.records
        records.backend[i] = engine.index
        records.dispatched_s[i] = now
        records.attempts[i] += 1
        if engine.delay_s:
            arrives = partial(self._arrives, i, engine, records.attempts[i])
            self._clock.call_at(now + engine.delay_s, arrives)
        else:
            self._deliver(i, engine, now)

    def _recall(self, request_ids: Sequence[str], now: float) -> None:
        """The dispatcher took requests back: their engines let go of them, and they wait again."""
        records = self.records
        for request_id in request_ids:
            i = int(request_id)
            engine = self.engines[records.backend[i]]
            records.backend[i], records.dispatched_s[i] = -1, math.nan
            engine.cancel(request_id, now)
            self.seconds.forget(i, now)
            self._queues[i % len(self._queues)].look_later()

    def _arrives(self, i: int, engine: EngineProcess, attempt: int, now: float) -> None:
        """A request was on the wire; its client may have left meanwhile, or it was taken back."""
        records = self.records
        here = records.attempts[i] == attempt and records.backend[i] == engine.index
        if here and records.status[i] == Status.PENDING:
            self._deliver(i, engine, now)

    def _deliver(self, i: int, engine: EngineProcess, now: float) -> None:
        job = self._rows.job(i, engine.longest_job_tokens)
        self.records.output_tokens[i] = job.output_tokens
        verdict = engine.submit(job, now)
        if verdict is not Verdict.ACCEPTED:
            self.bounce(i, now, busy=verdict is Verdict.BUSY)
        elif self._hedges:
            self.seconds.await_first_token(i)

    def bounce(self, i: int, now: float, *, busy: bool = False, prefill: bool = False) -> None:
        """An attempt failed before its first byte: try elsewhere, as the gateway does.

        Args:
            i: the request.
            now: the time.
            busy: the engine was busy, not broken.
            prefill: of two engines that share it, the one that computes the prompt failed.
        """
        router = self.router_of(i)
        self.pairs.part(i, now)
        if self.records.attempts[i] < self._most_attempts:
            decision = router.redispatch(str(i), now, backpressure=busy, prefill=prefill)
            self._bounced.add(i)
            self._follow(decision, i, now, Status.FAILED)
        else:
            router.fail(str(i), now, backpressure=busy, prefill=prefill)
            self._settle(i, Status.FAILED, now, "retries_exhausted")
        self._queues[i % len(self._queues)].look(now)

    def lose(self, i: int, now: float, reason: str) -> None:
        """An attempt failed after its first byte reached the client: the request is over (I8)."""
        self.router_of(i).fail(str(i), now)
        self._settle(i, Status.FAILED, now, reason)
        self._queues[i % len(self._queues)].look(now)

    def _leave(self, i: int, now: float) -> None:
        """The client's patience is over."""
        if self.records.status[i] != Status.PENDING:
            return
        self.router_of(i).cancel(str(i), now)
        if self.records.backend[i] >= 0:
            self.engines[self.records.backend[i]].cancel(str(i), now)
        self._settle(i, Status.CANCELLED, now, "client_timeout")
        self._queues[i % len(self._queues)].look(now)

    def router_of(self, i: int) -> Dispatcher:
        """The gateway replica that request ``i`` came to."""
        return self._routers[i % len(self._routers)]

    # -- back from the engines ---------------------------------------------------------------

    def _heard_later(self, engine: EngineProcess, events: Sequence[Event], now: float) -> None:
        self._clock.call_at(now + engine.delay_s, partial(self._told, engine, events))

    def _told(self, engine: EngineProcess, events: Sequence[Event], now: float) -> None:
        """What happened in an engine reaches the gateway."""
        records, routers = self.records, self._routers
        for event in events:
            job = event.job
            i = int(job.job_id)
            if self.pairs and self.pairs.heard(i, engine, event, now):
                continue
            if self._hedges and event.kind == "first_token":
                self.seconds.answered(i, engine, now)
            if records.status[i] or records.backend[i] != engine.index:
                continue  # its client left, or its attempt was given up, while this was on the way
            router = routers[i % len(routers)]
            if event.kind == "finished":
                self._finished(i, job, router, now)
            elif event.kind == "first_token":
                records.first_token_s[i] = now
                router.first_token(job.job_id, now)
            elif event.kind == "aborted":
                self.refused(i, now)
        self._look(now)

    def refused(self, i: int, now: float) -> None:
        """An engine will never take this request."""
        self.router_of(i).refuse(str(i), now)
        self._settle(i, Status.FAILED, now, "refused_by_engine")

    def _finished(self, i: int, job: Job, router: Dispatcher, now: float) -> None:
        router.complete(
            job.job_id,
            now,
            output_tokens=job.output_tokens,
            prompt_tokens=job.prompt_tokens,
            cached_tokens=job.cached_tokens,
        )
        self.records.cached_tokens[i] = job.cached_tokens
        self._settle(i, Status.COMPLETED, now)

    def _look(self, now: float) -> None:
        """Something changed: queued requests may find their way now."""
        for queue in self._queues:
            if queue.occupied:
                queue.look(now)

    def _settle(self, i: int, status: Status, now: float, reason: str | None = None) -> None:
        if self._hedges:
            self.seconds.forget(i, now)
        if self.pairs:
            self.pairs.part(i, now)
        self.records.status[i] = status
        self.records.finished_s[i] = now
        if reason is not None:
            self.reasons[reason] += 1
        if self._onlooker.settled():
            self._clock.over = True

    @property
    def over(self) -> bool:
        """Whether nothing can happen any more but what is on the wire."""
        waiting = any(router.queued for router in self._routers)
        arriving = self._next < self._count
        return not (arriving or waiting or self._faults.pending) and all(
            engine.stuck for engine in self.engines
        )
