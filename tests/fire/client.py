"""A client that trusts nothing: raw bytes in, and an exact account of what came back."""

from __future__ import annotations

import asyncio
import json
from dataclasses import dataclass

from tests.router.gateway.fakes import MODEL, Gateway


@dataclass(frozen=True, slots=True)
class Seen:
    """What one client saw.

    Attributes:
        status: 0 if there was no answer at all.
        whole: the answer ended as HTTP says that it does.
        body: what came of it, chunks joined.
        code: of the error in the body or in the last event; empty if there is none.
        backend: who served it, by ``x-motley-backend``.
    """

    status: int
    whole: bool
    body: bytes
    code: str = ""
    backend: str = ""

    @property
    def end(self) -> str:
        """In a word or two: ``ok``, ``503 backend_connect``, ``cut``, ``cut backend_broken``."""
        if self.status == 0:
            return "dropped"
        if not self.whole:
            return f"cut {self.code}".rstrip()
        if self.status == 200 and not self.code:
            return "ok"
        return f"{self.status} {self.code}".rstrip()


def body_of(*, stream: bool, model: str = MODEL, max_tokens: int = 16) -> bytes:
    """A chat request."""
    messages = [{"role": "user", "content": "Say hello."}]
    asked = {"model": model, "messages": messages, "max_tokens": max_tokens, "stream": stream}
    return json.dumps(asked).encode()


def request_of(body: bytes, *headers: tuple[str, str]) -> bytes:
    """The same as bytes on the wire; the connection is closed after the answer."""
    lines = ["POST /v1/chat/completions HTTP/1.1", "host: g", "connection: close"]
    lines += [f"content-length: {len(body)}", *(f"{name}: {value}" for name, value in headers)]
    return "\r\n".join(lines).encode() + b"\r\n\r\n" + body


async def ask(gate: Gateway, *, stream: bool, headers: tuple[tuple[str, str], ...] = ()) -> Seen:
    """One request over a connection of its own, read to its end."""
    reader, writer = await gate.connect()
    try:
        writer.write(request_of(body_of(stream=stream), *headers))
        return read(await _everything(reader))
    finally:
        writer.close()


async def _everything(reader: asyncio.StreamReader) -> bytes:
    came = bytearray()
    try:
        async with asyncio.timeout(60):
            while data := await reader.read(65_536):
                came += data
    except ConnectionError:
        pass
    return bytes(came)


def read(raw: bytes) -> Seen:
    """Take an answer apart without mercy."""
    head, _, rest = raw.partition(b"\r\n\r\n")
    if not head.startswith(b"HTTP/1.1 "):
        return Seen(0, False, b"")
    status = int(head.split()[1])
    headers = dict(
        line.lower().split(b": ", 1) for line in head.split(b"\r\n")[1:] if b": " in line
    )
    if headers.get(b"transfer-encoding") == b"chunked":
        body, whole = _dechunked(rest)
    else:
        size = int(headers.get(b"content-length", b"-1"))
        body, whole = rest, size < 0 or len(rest) == size
    backend = headers.get(b"x-motley-backend", b"").decode()
    return Seen(status, whole, body, _code(body, status), backend)


def _dechunked(rest: bytes) -> tuple[bytes, bool]:
    body = b""
    while True:
        line, found, rest = rest.partition(b"\r\n")
        if not found:
            return body, False
        size = int(line, 16)
        if size == 0:
            return body, rest == b"\r\n"
        body += rest[:size]
        if len(rest) < size + 2:
            return body, False
        rest = rest[size + 2 :]


def _code(body: bytes, status: int) -> str:
    """The code of an error; "error" if one has none."""
    if status != 200:
        error = json.loads(body)["error"]
        return error["code"] or "error"
    for line in body.splitlines():
        if line.startswith(b'data: {"error"'):
            return json.loads(line[6:])["error"].get("code") or "error"
    return ""
