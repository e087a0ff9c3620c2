"""A board for the worker processes of one machine: the parent keeps it, over a Unix socket.

Messages are MessagePack, each behind its length in four bytes: a request, then its answer.
"""

from __future__ import annotations

import asyncio
import contextlib
import struct
from typing import Any

import msgspec

from router.gateway.access.ledger import Entry
from router.gateway.shared.board import BoardError, Posting, View
from router.gateway.shared.memory_board import Wall

_LENGTH = struct.Struct("!I")
MAX_BYTES = 64 << 20


class Ask(msgspec.Struct, array_like=True):
    """One request to the hub; ``verb`` is exchange, lease or leave."""

    verb: str
    replica: str
    facts: bytes = b""
    spent: list[tuple[Entry, float]] = []
    wanted: list[Entry] = []
    joined: dict[str, bytes] = {}
    gone: list[str] = []
    lease: str = ""
    ttl_s: float = 0.0


class Told(msgspec.Struct, array_like=True):
    """Its answer."""

    others: dict[str, bytes] = {}
    totals: list[float] = []
    workers: dict[str, bytes] = {}
    token: int | None = None
    born: str = ""


_ask = msgspec.msgpack.Decoder(Ask)
_told = msgspec.msgpack.Decoder(Told)
_encode = msgspec.msgpack.Encoder().encode


class Hub:
    """Serves a ``Wall`` to the worker processes.

    Args:
        wall: what they share.
        path: of the Unix socket.
    """

    def __init__(self, wall: Wall, path: str) -> None:
        self._wall, self._path = wall, path
        self._server: asyncio.Server | None = None

    async def start(self) -> None:
        """Listen; only this user may connect."""
        self._server = await asyncio.start_unix_server(self._serve, self._path)

    async def stop(self) -> None:
        """Close."""
        if self._server is not None:
            self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(asyncio.IncompleteReadError, ConnectionError):
            while True:
                ask = _ask.decode(await _read(reader))
                _write(writer, self._answer(ask))
                await writer.drain()
        writer.close()

    def _answer(self, ask: Ask) -> Told:
        wall = self._wall
        if ask.verb == "lease":
            return Told(token=wall.lease(ask.replica, ask.lease, ask.ttl_s))
        if ask.verb == "leave":
            wall.leave(ask.replica)
            return Told()
        posting = Posting(ask.facts, dict(ask.spent), ask.wanted, ask.joined, ask.gone)
        view = wall.exchange(ask.replica, posting)
        totals = [view.totals[entry] for entry in ask.wanted]
        return Told(dict(view.others), totals, dict(view.workers), born=view.born)


class HubBoard:
    """One worker process's place at the hub; implements ``board.Board``."""

    def __init__(self, path: str, replica: str, timeout_s: float) -> None:
        self._path, self._replica, self._timeout_s = path, replica, timeout_s
        self._lines: tuple[asyncio.StreamReader, asyncio.StreamWriter] | None = None
        self._busy = asyncio.Lock()

    async def exchange(self, posting: Posting) -> View:
        """Pin and read."""
        wanted = list(posting.wanted)
        told = await self._call(
            Ask(
                "exchange",
                self._replica,
                posting.facts,
                list(posting.spent.items()),
                wanted,
                dict(posting.joined),
                list(posting.gone),
            )
        )
        totals = dict(zip(wanted, told.totals, strict=True))
        return View(told.others, totals, told.workers, told.born)

    async def lease(self, name: str, ttl_s: float) -> int | None:
        """Take or renew a lease."""
        return (await self._call(Ask("lease", self._replica, lease=name, ttl_s=ttl_s))).token

    async def leave(self) -> None:
        """Take the own facts off."""
        with contextlib.suppress(BoardError):
            await self._call(Ask("leave", self._replica))
        self._hang_up()

    async def _call(self, ask: Ask) -> Told:
        try:
            async with self._busy, asyncio.timeout(self._timeout_s):
                if self._lines is None:
                    self._lines = await asyncio.open_unix_connection(self._path)
                reader, writer = self._lines
                _write(writer, ask)
                return _told.decode(await _read(reader))
        except (OSError, TimeoutError, asyncio.IncompleteReadError, msgspec.DecodeError) as error:
            self._hang_up()
            raise BoardError(f"the hub of the worker processes: {error!r}") from error

    def _hang_up(self) -> None:
        if self._lines is not None:
            self._lines[1].close()
            self._lines = None


async def _read(reader: asyncio.StreamReader) -> bytes:
    (length,) = _LENGTH.unpack(await reader.readexactly(_LENGTH.size))
    if length > MAX_BYTES:
        raise ConnectionError("a message of absurd length")
    return await reader.readexactly(length)


def _write(writer: asyncio.StreamWriter, message: Any) -> None:
    data = _encode(message)
    writer.write(_LENGTH.pack(len(data)) + data)
