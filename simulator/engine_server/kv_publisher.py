"""An emulated engine tells what its prefix cache holds, as vLLM does with ``--kv-events-config``.

Same frames, same batches, same replay (vLLM's layout of maps); block hashes are the emulator's own,
and token ids are zeros, for there are none. Needs the extra ``kv-events``.
"""

from __future__ import annotations

import asyncio
from collections import deque
from collections.abc import Callable
from typing import Any

from msgspec import msgpack

from router.domain.errors import ConfigError
from simulator.replica.kv_cache import KvPool

_KEPT_BATCHES = 10_000
_END = (-1).to_bytes(8, "big", signed=True)


class KvPublisher:
    """Publishes on a PUB socket, and repeats on a ROUTER.

    Args:
        pool: the engine's cache now; another one after a crash.
        events: where to publish (``tcp://127.0.0.1:5557``).
        replay: where to repeat what was missed; empty: nowhere.
        unix_s: wall clock.

    Raises:
        ConfigError: the extra is not installed.
    """

    def __init__(
        self, pool: Callable[[], KvPool], events: str, replay: str, unix_s: Callable[[], float]
    ) -> None:
        try:
            import zmq.asyncio  # noqa: PLC0415 - an extra
        except ImportError as error:
            raise ConfigError(
                "KV events need the extra 'kv-events': pip install 'motley-router[kv-events]'"
            ) from error
        self._pool, self._unix_s = pool, unix_s
        self._known: KvPool | None = None
        self._next = 0
        self._batches: deque[tuple[int, bytes]] = deque(maxlen=_KEPT_BATCHES)
        self._context = zmq.asyncio.Context()
        # Not the asyncio kind: sending never waits, and is done from plain callbacks.
        plain: Any = zmq.Context.shadow(self._context)
        self._pub = plain.socket(zmq.PUB)
        self._router: Any = self._context.socket(zmq.ROUTER)
        for socket in (self._pub, self._router):
            socket.linger = 0
        self._pub.bind(events)
        self._serving: asyncio.Task[None] | None = None
        if replay:
            self._router.bind(replay)
            self._serving = asyncio.get_running_loop().create_task(self._repeat())

    def look(self) -> None:
        """Publish what changed since the last look."""
        pool = self._pool()
        events: list[dict[str, Any]] = []
        if pool is not self._known:
            if self._known is not None:
                events.append({"type": "AllBlocksCleared"})
            self._known = pool
            pool.stored, pool.cache.evicted = [], []
        stored, evicted = pool.stored, pool.cache.evicted
        if stored:
            events += [_stored(parent, key, tokens) for parent, key, tokens in stored]
            stored.clear()
        if evicted:
            events.append({"type": "BlockRemoved", "block_hashes": [*evicted], "medium": "GPU"})
            evicted.clear()
        if events:
            self._publish(events)

    def close(self) -> None:
        """Stop, and free the ports."""
        if self._serving is not None:
            self._serving.cancel()
        self._pub.close()
        self._router.close()
        self._context.destroy(linger=0)

    def _publish(self, events: list[dict[str, Any]]) -> None:
        batch = {"ts": self._unix_s(), "events": events, "data_parallel_rank": 0}
        number, payload = self._next, msgpack.encode(batch)
        self._next += 1
        self._batches.append((number, payload))
        self._pub.send_multipart((b"", number.to_bytes(8, "big"), payload))

    async def _repeat(self) -> None:
        while True:
            client, _, start = await self._router.recv_multipart()
            for number, payload in list(self._batches):
                if number >= int.from_bytes(start, "big"):
                    frames = (client, b"", number.to_bytes(8, "big"), payload)
                    await self._router.send_multipart(frames)
            await self._router.send_multipart((client, b"", _END, b""))


def _stored(parent: int | None, key: int, tokens: int) -> dict[str, Any]:
    return {
        "type": "BlockStored",
        "block_hashes": [key],
        "parent_block_hash": parent,
        "token_ids": [0] * tokens,
        "block_size": tokens,
        "lora_id": None,
        "medium": "GPU",
        "lora_name": None,
    }
