"""No body grows without bound, whoever reads it: FastAPI would read all of it before it asks who
sends it."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, MutableMapping
from typing import Any

from starlette.exceptions import HTTPException

Receive = Callable[[], Awaitable[MutableMapping[str, Any]]]

UPLOADS = "/v1/files"
"""The only path beside those that are relayed that takes more than a few fields."""
MOST_BYTES = 1 << 20


def bounded(scope: MutableMapping[str, Any], receive: Receive, most_bytes: int) -> Receive:
    """What ``receive`` brings, up to a limit.

    Args:
        scope: of an HTTP request; others have no body.
        receive: as ASGI has it.
        most_bytes: of an upload; other bodies have a limit of their own.

    Returns:
        a ``receive`` that raises ``HTTPException`` (413) instead of going over the limit.
    """
    if scope["type"] != "http":
        return receive
    limit = most_bytes if scope["path"] == UPLOADS else min(MOST_BYTES, most_bytes)
    remedy = "Send less, or raise server.max_body_bytes." if limit == most_bytes else "Send less."
    too_large = HTTPException(413, f"The request body is larger than {limit} bytes. {remedy}")
    told = dict(scope["headers"]).get(b"content-length", b"0")
    size = int(told) if told.isdigit() else 0

    async def receive_bounded() -> MutableMapping[str, Any]:
        nonlocal size
        if size > limit:
            raise too_large
        message = await receive()
        if told == b"0":
            size += len(message.get("body", b""))
            if size > limit:
                raise too_large
        return message

    return receive_bounded
