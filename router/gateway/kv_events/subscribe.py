"""Hears KV events over ZMQ: one SUB socket per engine, a DEALER for what was missed.

Messages are numbered from 0. A gap is asked for again at the replay endpoint, in order; where there
is none, or it no longer has them, nobody knows what happened meanwhile: what is known of the engine
is forgotten, and its index is approximate until it has learned anew. A number that is lower than
the last is an engine that started anew, with an empty cache.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import Counter
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from router.domain.errors import BadInputError, ConfigError
from router.domain.fleet import BackendSpec
from router.gateway.kv_events.follow import Follower
from router.gateway.kv_events.wire import read_batch, sequence_number

if TYPE_CHECKING:
    import zmq.asyncio

log = logging.getLogger("motley.kv_events")

REPLAY_S = 2.0
HIGH_WATER = 100_000


def load_zmq() -> Any:
    """The library, which is an extra.

    Raises:
        ConfigError: it is not installed.
    """
    try:
        import zmq.asyncio  # noqa: PLC0415 - an extra
    except ImportError as error:
        raise ConfigError(
            "kv_events of a backend needs the extra 'kv-events': "
            "pip install 'motley-router[kv-events]'"
        ) from error
    return zmq


class Subscriber:
    """Hears one engine.

    Args:
        spec: with ``kv_events``, and ``kv_replay`` if it can be asked again.
        follower: told what was heard.
        clock: tells when.
        context: of ZMQ.

    Attributes:
        counts: ``replayed`` and ``lost`` gaps, ``restarts``, ``unreadable`` messages.
    """

    def __init__(
        self,
        spec: BackendSpec,
        follower: Follower,
        clock: Callable[[], float],
        context: zmq.asyncio.Context,
    ) -> None:
        self._spec, self.follower, self._clock, self._context = spec, follower, clock, context
        self._last = -1
        self.counts: Counter[str] = Counter()

    async def run(self) -> None:
        """Listen until cancelled."""
        zmq = load_zmq()
        socket = self._context.socket(zmq.SUB)
        socket.rcvhwm, socket.linger = HIGH_WATER, 0
        socket.subscribe(b"")
        socket.connect(self._spec.kv_events)
        try:
            while True:
                await self._take(await socket.recv_multipart())
        finally:
            socket.close()

    async def _take(self, frames: list[bytes]) -> None:
        if len(frames) != 3:  # topic, number, batch
            self.counts["unreadable"] += 1
            return
        number, payload = sequence_number(frames[1]), frames[2]
        if number <= self._last:
            self.counts["restarts"] += 1
            self._begin_anew()
        if number > self._last + 1 and not await self._catch_up(number):
            self.counts["lost"] += 1
            log.warning(
                "backend %s: KV events %d to %d are lost; its prefix index is approximate again",
                self._spec.name,
                self._last + 1,
                number - 1,
            )
            self._begin_anew()
        self._apply(number, payload)

    def _begin_anew(self) -> None:
        self._last = -1
        self.follower.forget(self._clock())

    def _apply(self, number: int, payload: bytes) -> None:
        self._last = number
        try:
            self.follower.heard(read_batch(payload), self._clock())
        except BadInputError as error:
            self.counts["unreadable"] += 1
            log.warning("backend %s: %s", self._spec.name, error)

    async def _catch_up(self, until: int) -> bool:
        """Ask for what was missed before message ``until``; whether all of it came."""
        if not self._spec.kv_replay:
            return False
        zmq = load_zmq()
        socket = self._context.socket(zmq.DEALER)
        socket.linger = 0
        socket.connect(self._spec.kv_replay)
        try:
            async with asyncio.timeout(REPLAY_S):
                await socket.send_multipart((b"", (self._last + 1).to_bytes(8, "big")))
                await self._replay(socket, until)
        except TimeoutError:
            pass
        finally:
            socket.close()
        caught_up = self._last == until - 1
        self.counts["replayed"] += caught_up
        return caught_up

    async def _replay(self, socket: zmq.asyncio.Socket, until: int) -> None:
        while self._last < until - 1:
            _, frame, payload = await socket.recv_multipart()
            number = sequence_number(frame)
            if number < 0 or number > self._last + 1:
                return
            if number == self._last + 1:
                self._apply(number, payload)


class Subscribers:
    """Hears all engines that publish; the fleet may change.

    Args:
        backends: the fleet now.
        follower_of: makes the follower of a backend.
        clock: tells when.
    """

    def __init__(
        self,
        backends: Callable[[], Mapping[str, BackendSpec]],
        follower_of: Callable[[str], Follower],
        clock: Callable[[], float],
    ) -> None:
        load_zmq()
        self._backends, self._follower_of, self._clock = backends, follower_of, clock
        self.heard: dict[str, Subscriber] = {}
        self._tasks: dict[str, tuple[BackendSpec, asyncio.Task[None]]] = {}

    async def run(self) -> None:
        """Follow the fleet until cancelled."""
        zmq = load_zmq()
        context = zmq.asyncio.Context()
        try:
            while True:
                self._look(context)
                await asyncio.sleep(1.0)
        finally:
            for _, task in self._tasks.values():
                task.cancel()
            for _, task in self._tasks.values():
                with contextlib.suppress(asyncio.CancelledError):
                    await task
            context.destroy(linger=0)

    def _look(self, context: zmq.asyncio.Context) -> None:
        wanted = {name: spec for name, spec in self._backends().items() if spec.kv_events}
        for name, (spec, task) in list(self._tasks.items()):
            if wanted.get(name) != spec or task.done():
                task.cancel()
                del self._tasks[name], self.heard[name]
        for name, spec in wanted.items():
            if name not in self._tasks:
                one = Subscriber(spec, self._follower_of(name), self._clock, context)
                self.heard[name] = one
                self._tasks[name] = (spec, asyncio.create_task(one.run()))
