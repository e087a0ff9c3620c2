"""The little of HTTP that an emulated engine needs, straight on ASGI.

A framework would cost as much as the emulation itself (21 to 38 us a token, all included):
measured, FastAPI's stack takes 69 us a request and 6 to 14 us a chunk, and its
``StreamingResponse`` another 470 us a request.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from dataclasses import dataclass
from typing import Any

Scope = MutableMapping[str, Any]
Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]
Send = Callable[[MutableMapping[str, Any]], Awaitable[None]]

JSON = b"application/json"


@dataclass(frozen=True, slots=True)
class Page:
    """One whole response."""

    body: bytes = b""
    status: int = 200
    content_type: bytes = JSON
    allow: bytes = b""


async def read_body(receive: Receive) -> bytes | None:
    """The request body, or ``None`` if the client left before sending all of it."""
    parts: list[bytes] = []
    while True:
        message = await receive()
        if message["type"] != "http.request":
            return None
        parts.append(message.get("body", b""))
        if not message.get("more_body", False):
            return b"".join(parts)


async def send_page(send: Send, page: Page) -> None:
    """Send a whole response."""
    headers = [(b"content-length", b"%d" % len(page.body))]
    if page.body:
        headers.append((b"content-type", page.content_type))
    if page.allow:
        headers.append((b"allow", page.allow))
    await send({"type": "http.response.start", "status": page.status, "headers": headers})
    await send({"type": "http.response.body", "body": page.body})


async def start_stream(send: Send) -> None:
    """Send the head of a stream of server-sent events."""
    headers = [(b"content-type", b"text/event-stream; charset=utf-8")]
    await send({"type": "http.response.start", "status": 200, "headers": headers})


async def send_part(send: Send, part: bytes, *, more: bool) -> None:
    """Send a part of a stream."""
    await send({"type": "http.response.body", "body": part, "more_body": more})


def header(scope: Scope, name: bytes) -> str:
    """First value of a header (lower-case ``name``); empty when absent."""
    for key, value in scope["headers"]:
        if key == name:
            text: str = value.decode("latin-1")
            return text
    return ""
