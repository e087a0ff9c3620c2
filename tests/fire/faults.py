"""Every way in which an engine fails, and what must come of it.

A fault that strikes before the first byte must be invisible where somebody else can serve; only
what is the engine's own fault may open its breaker.
"""

from __future__ import annotations

import asyncio
from dataclasses import dataclass

from tests.router.gateway.fakes import (
    DONE,
    END,
    MODEL,
    STREAM_HEAD,
    Behaviour,
    Received,
    answer,
    chat,
    chunk,
    close,
    event,
    events,
    garbage,
    hang,
    reset,
    stream,
)

TOKENS = ["a", "b", "c"]
GOOD = event({"content": "a"})
UMLAUT = event({"content": "ä"}).replace(b"\\u00e4", "ä".encode())
HALF_BODY = (
    b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n" + b"{" * 50
)
NO_MODEL = {
    "error": {
        "message": f"The model `{MODEL}` does not exist.",
        "type": "NotFoundError",
        "param": "model",
        "code": 404,
    }
}


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault, for plain answers or for streams.

    Attributes:
        behaviour: what the engine does; ``None`` if nobody listens.
        alone: what the client sees where nobody else serves (``Seen.end``).
        hidden: whether a healthy neighbour's answer takes its place.
        opens: whether it opens the breaker.
        completed: whether the books count it as completed.
    """

    behaviour: Behaviour | None
    alone: str
    hidden: bool = True
    opens: bool = True
    completed: bool = False


def half_then(what: Behaviour) -> Behaviour:
    """Half of a plain answer, then ``what``."""

    async def behave(request: Received) -> bool | None:
        await request.send(HALF_BODY)
        await asyncio.sleep(0.01)
        return await what(request)

    return behave


def head_then(head: bytes, what: Behaviour) -> Behaviour:
    async def behave(request: Received) -> bool | None:
        await request.send(head)
        return await what(request)

    return behave


def framed(length: int, body: bytes, kind: bytes) -> Behaviour:
    """An answer whose content length lies."""

    async def behave(request: Received) -> None:
        head = b"HTTP/1.1 200 OK\r\ncontent-type: %b\r\ncontent-length: %d\r\n\r\n" % (kind, length)
        await request.send(head, body)
        await asyncio.sleep(0.02)

    return behave


async def half_a_character(request: Received) -> bool:
    """Two bytes of one character in two reads, as engines send tokens that are half a one."""
    at = UMLAUT.index("ä".encode()) + 1
    await request.send(STREAM_HEAD, chunk(UMLAUT[:at]))
    await asyncio.sleep(0.01)
    await request.send(chunk(UMLAUT[at:]), chunk(DONE), END)
    return True


async def ends_in_half_a_character(request: Received) -> None:
    """And dies there."""
    at = UMLAUT.index("ä".encode()) + 1
    await request.send(STREAM_HEAD, chunk(GOOD))
    await asyncio.sleep(0.01)
    await request.send(chunk(UMLAUT[:at]))
    await asyncio.sleep(0.01)


def slow(then: Behaviour, wait_s: float) -> Behaviour:
    """A hundred times as slow, and right in the end."""

    async def behave(request: Received) -> bool | None:
        await asyncio.sleep(wait_s)
        return await then(request)

    return behave


JSON, SSE = b"application/json", b"text/event-stream"
PLAIN_HEAD = b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\ncontent-length: 9\r\n\r\n"
BEFORE = {
    "refuses": Fault(None, "503 backend_connect"),
    "resets": Fault(reset, "502 backend_broken"),
    "closes without a word": Fault(close, "502 backend_broken"),
    "hangs before headers": Fault(hang, "504 backend_timeout"),
    "is not HTTP": Fault(garbage, "502 backend_garbage"),
    "storm of 500": Fault(answer(500, b"boom"), "500 error"),
    "storm of 503": Fault(answer(503, {"error": {"message": "busy"}}), "503 error", opens=False),
    "storm of 429": Fault(answer(429, {"error": {"message": "slow"}}), "429 error", opens=False),
    "restarted with another model": Fault(answer(404, NO_MODEL), "404 model_not_found"),
}
PLAIN = BEFORE | {
    "hangs after headers": Fault(head_then(PLAIN_HEAD, hang), "504 backend_timeout"),
    "hangs in mid-answer": Fault(half_then(hang), "cut", hidden=False),
    "dies in mid-answer": Fault(half_then(reset), "cut", hidden=False),
    "content length too long": Fault(framed(90, b"{" * 50, JSON), "cut", hidden=False),
    "content length too short": Fault(
        framed(2, b"{}HTTP/1.1 200 OK\r\n\r\n", JSON),
        "ok",
        hidden=False,
        opens=False,
        completed=True,
    ),
    "a hundred times as slow": Fault(
        slow(chat(), 0.15), "ok", hidden=False, opens=False, completed=True
    ),
}
STREAMED = BEFORE | {
    "hangs after headers": Fault(head_then(STREAM_HEAD, hang), "504 backend_timeout"),
    "hangs in mid-stream": Fault(events(GOOD, then=hang), "cut backend_broken", hidden=False),
    "comments for ever": Fault(
        events(GOOD, *[b": keep-alive\n\n"] * 3, then=hang), "cut backend_broken", hidden=False
    ),
    "dies in mid-stream": Fault(events(GOOD, then=reset), "cut backend_broken", hidden=False),
    "stops in mid-stream": Fault(events(GOOD, then=close), "cut backend_broken", hidden=False),
    "garbage for events": Fault(events(b"\x00\xff\xfe" * 9), "502 backend_broken"),
    "an empty stream": Fault(events(), "502 backend_broken"),
    "full inside a 200": Fault(
        events(b'data: {"error": {"message": "full", "code": 503}}\n\n', DONE),
        "503 error",
        opens=False,
    ),
    "tells of its death": Fault(
        events(GOOD, b'data: {"error": {"message": "dead", "code": "gone"}}\n\n', DONE),
        "200 gone",
        hidden=False,
    ),
    "content length too long": Fault(framed(900, GOOD, SSE), "cut backend_broken", hidden=False),
    "half a character": Fault(half_a_character, "ok", hidden=False, opens=False, completed=True),
    "dies in half a character": Fault(ends_in_half_a_character, "cut", hidden=False),
    "a hundred times as slow": Fault(
        slow(stream(TOKENS, gap_s=0.03), 0.1), "ok", hidden=False, opens=False, completed=True
    ),
}
CELLS = [
    (kind == "streamed", name)
    for kind, table in (("plain", PLAIN), ("streamed", STREAMED))
    for name in table
]


def fault(name: str, *, streamed: bool) -> Fault:
    """One cell of the matrix."""
    return (STREAMED if streamed else PLAIN)[name]


def is_silence(name: str) -> bool:
    """Whether only a timeout can tell: the other cells may take any time on a busy machine."""
    return "hangs" in name or name == "comments for ever"
