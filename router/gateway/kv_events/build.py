"""KV events put together with the gateway."""

from __future__ import annotations

from collections.abc import Iterator

from router.config.load import MotleyConfig
from router.domain.outcome import Outcome
from router.domain.request import Request
from router.gateway.engine import Engine
from router.gateway.kv_events.follow import Follower
from router.gateway.kv_events.subscribe import Subscribers, load_zmq
from telemetry.metrics import Sample


class KvEvents:
    """An ``Observer``; hands outcomes and what was sent to the follower of their backend."""

    def __init__(self) -> None:
        self._followers: dict[str, Follower] = {}
        self.subscribers: Subscribers | None = None

    def observe(self, outcome: Outcome) -> None:
        """A request is over; one that two backends shared teaches nothing."""
        follower = self._followers.get(outcome.backend)
        if follower is not None and outcome.prefill is None:
            follower.observe(outcome)

    def attach(self, engine: Engine) -> Subscribers:
        """Hear what is sent where, and tell the dispatcher what engines say."""

        def sent(request: Request, backend: str) -> None:
            follower = self._followers.get(backend)
            if follower is not None:
                follower.sent(request, engine.now())

        def follower_of(name: str) -> Follower:
            follower = self._followers[name] = Follower(name, engine.dispatcher)
            return follower

        engine.tell_sent(sent)
        state = engine.dispatcher.state
        self.subscribers = Subscribers(
            lambda: {b.spec.name: b.spec for b in state.backends}, follower_of, engine.now
        )
        return self.subscribers

    def samples(self) -> Iterator[Sample]:
        """What was heard, learned and missed, by backend."""
        heard = self.subscribers.heard if self.subscribers is not None else {}
        for name, one in heard.items():
            for kind, count in (one.counts + one.follower.counts).items():
                yield (name, kind), float(count)


def kv_events_of(config: MotleyConfig) -> KvEvents | None:
    """What a configuration asks for, if any backend publishes.

    Raises:
        ConfigError: the extra is not installed.
    """
    if not any(spec.kv_events for spec in config.fleet.backends):
        return None
    load_zmq()
    return KvEvents()
