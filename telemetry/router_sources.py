"""What the dispatcher is asked for when ``/metrics`` is read."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from router.class_dispatcher import desk_of
from router.dispatcher import Dispatcher
from router.domain.protocols import PrefixAudit
from router.fleet_state.backend import BackendState
from router.pairing import Pairing
from router.queue.desk import Desk
from telemetry import metric_table as table
from telemetry.metrics import GatewayMetrics, Sample

BREAKER_NUMBER: Mapping[str, float] = {"closed": 0.0, "half_open": 1.0, "open": 2.0}
_SIGNALS = (
    (table.ENGINE_RUNNING, "running"),
    (table.ENGINE_WAITING, "waiting"),
    (table.ENGINE_KV, "kv_usage"),
    (table.ENGINE_HITS, "prefix_hit_ratio"),
    (table.ENGINE_PREEMPTIONS, "preemptions"),
)


def ask_dispatcher(metrics: GatewayMetrics, dispatcher: Dispatcher) -> None:
    """In-flight counts, queue, availability, engine signals and prices."""

    def backends() -> Iterator[BackendState]:
        return iter(dispatcher.state.backends)

    def in_flight() -> Iterator[Sample]:
        for b in backends():
            yield (b.spec.name, "prefill"), float(b.prefilling)
            yield (b.spec.name, "decode"), float(b.decoding)

    def prices() -> Iterator[Sample]:
        yield from {(b.spec.group,): b.price for b in backends()}.items()

    metrics.ask(table.IN_FLIGHT, in_flight)
    metrics.ask(table.QUEUE_DEPTH, lambda: [((), float(dispatcher.queued))])
    metrics.ask(table.BACKEND_UP, lambda: (((b.spec.name,), float(b.usable)) for b in backends()))
    metrics.ask(
        table.BREAKER,
        lambda: (((b.spec.name,), BREAKER_NUMBER[b.breaker.state]) for b in backends()),
    )
    metrics.ask(
        table.EJECTIONS,
        lambda: (((name,), float(n)) for name, n in dispatcher.state.ejected.items()),
    )
    metrics.ask(table.PRICE, prices)
    metrics.ask(
        table.FALLBACKS, lambda: ((pair, float(n)) for pair, n in dispatcher.fell_back.items())
    )
    budget = dispatcher.hedging
    if budget is not None:
        metrics.ask(
            table.HEDGES, lambda: [(("sent",), float(budget.sent)), (("won",), float(budget.won))]
        )
    metrics.ask(table.PREFIX_PROMISED, lambda: _audit(dispatcher, lambda promised, _: promised))
    metrics.ask(table.PREFIX_MISSING, lambda: _audit(dispatcher, lambda a, found: a - found))
    if dispatcher.pairing is not None:
        ask_pairing(metrics, dispatcher.pairing)
    desk = desk_of(dispatcher)
    if desk is not None:
        ask_desk(metrics, desk)
    for metric, name in _SIGNALS:
        metrics.ask(metric, partial(_signal, dispatcher, name))


def ask_pairing(metrics: GatewayMetrics, pairing: Pairing) -> None:
    """What became of requests that two backends shared."""
    metrics.ask(
        table.SHARED_REQUESTS, lambda: ((pair, float(n)) for pair, n in pairing.paired.items())
    )
    metrics.ask(table.SHARED_BROKEN, lambda: ((who, float(n)) for who, n in pairing.broken.items()))
    metrics.ask(table.KV_MOVED, lambda: [((), pairing.moved_bytes)])


def ask_desk(metrics: GatewayMetrics, desk: Desk) -> None:
    """Who waits, and what the scheduling of classes did."""

    def queued() -> Iterator[Sample]:
        for lane, waiting in desk.room.lanes.items():
            yield lane, float(len(waiting.entries))

    def events() -> Iterator[Sample]:
        for labels, count in desk.events.items():
            yield labels, float(count)

    metrics.ask(table.QUEUED, queued)
    metrics.ask(table.CLASS_EVENTS, events)
    metrics.ask(table.CLASS_ROOM, desk.learned_room)


def _audit(dispatcher: Dispatcher, figure: Callable[[int, int], int]) -> Iterator[Sample]:
    policy = dispatcher.policy
    if isinstance(policy, PrefixAudit):
        for name, (promised, found) in policy.prefix_audit.items():
            yield (name,), float(figure(promised, found))


def _signal(dispatcher: Dispatcher, name: str) -> Iterator[Sample]:
    """One signal of every backend that gives it; an unknown one has no series, never 0."""
    for backend in dispatcher.state.backends:
        value = getattr(backend.signals, name, None)
        if value is not None:
            yield (backend.spec.name,), float(value)


def ask_identities(
    metrics: GatewayMetrics, dispatcher: Dispatcher, card_of: Callable[[str], str]
) -> None:
    """What each backend is."""

    def infos() -> Iterator[Sample]:
        for backend in dispatcher.state.backends:
            spec = backend.spec
            told = card_of(spec.name)
            yield (spec.name, spec.group, spec.gpu, spec.engine, spec.model, told), 1.0

    metrics.ask(table.BACKEND_INFO, infos)
