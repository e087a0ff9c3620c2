"""A trace's requests sent to a gateway at their times, and when their answers came."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from benchmarks.policies.scenarios import MODEL
from simulator.engine_server.tokens import BYTES_PER_TOKEN
from simulator.traces.columns import Trace

FIRST, LAST = b'"w0', b"data: [DONE]"
PATIENCE_S = 900.0


@dataclass(frozen=True)
class Took:
    """Seconds to the first and to the last token; ``None`` where the answer did not come whole."""

    ttft_s: float | None
    e2e_s: float | None


class _Asking(asyncio.Protocol):
    """One request on a connection of its own, and when its answer came."""

    def __init__(self, head: bytes, body: bytes, now: Callable[[], float]) -> None:
        self._sent, self._now = head + body, now
        self._seen = b""
        self._began_s = 0.0
        self._first_s: float | None = None
        self.took: asyncio.Future[Took] = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        assert isinstance(transport, asyncio.Transport)
        self._began_s = self._now()
        transport.write(self._sent)

    def data_received(self, data: bytes) -> None:
        if self._first_s is None:
            self._seen += data
            if FIRST in self._seen:
                self._first_s = self._now()
                self._seen = self._seen[-64:]
        else:
            self._seen = (self._seen + data)[-64:]

    def connection_lost(self, _: Exception | None) -> None:
        whole = self._first_s is not None and LAST in self._seen
        took = Took(None, None)
        if whole and self._first_s is not None:
            took = Took(self._first_s - self._began_s, self._now() - self._began_s)
        if not self.took.done():
            self.took.set_result(took)


def body_of(trace: Trace, i: int) -> bytes:
    """A request as the trace has it: its prompt's length, its limit, and unread its answer's."""
    words = np.random.default_rng([1, i]).integers(0, 10**7, trace.input_tokens[i] // 2 + 1)
    prompt = " ".join(f"{word:07d}" for word in words.tolist())
    return json.dumps(
        {
            "model": MODEL,
            "stream": True,
            "max_tokens": trace.max_tokens[i],
            "min_tokens": trace.output_tokens[i],
            "messages": [
                {"role": "user", "content": prompt[: BYTES_PER_TOKEN * trace.input_tokens[i]]}
            ],
        }
    ).encode()


async def ask(port: int, body: bytes) -> Took:
    loop = asyncio.get_running_loop()
    head = (
        "POST /v1/chat/completions HTTP/1.1\r\nhost: gateway\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    ).encode()
    try:
        transport, asking = await loop.create_connection(
            lambda: _Asking(head, body, loop.time), "127.0.0.1", port
        )
    except OSError:
        return Took(None, None)
    try:
        return await asyncio.wait_for(asking.took, PATIENCE_S)
    except TimeoutError:
        return Took(None, None)
    finally:
        transport.abort()


async def replayed(port: int, trace: Trace) -> list[Took]:
    """Every request at its time, whatever became of those before."""
    loop = asyncio.get_running_loop()
    begin_s = loop.time()
    asked = []
    for i, arrival_s in enumerate(trace.arrival_s):
        body = body_of(trace, i)
        await asyncio.sleep(max(0.0, begin_s + arrival_s - loop.time()))
        asked.append(asyncio.create_task(ask(port, body)))
    return await asyncio.gather(*asked)
