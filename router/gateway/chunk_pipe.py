"""The short way of a stream: an engine's chunk goes to the client as it came, framing and all.

A token is nearly always one read, and that one whole chunk with one event in it that ends like the
one before. Such a read needs no parser, no new frame and nothing of what an attempt keeps; and what
a chunk costs is memory that has grown cold since the stream's last one. Everything else goes the
long way, through the connection and its parser, which stands between two chunks all the while.
"""

from __future__ import annotations

import asyncio
import re
from collections.abc import Callable
from functools import cache

_MOST_BYTES = 4_096
_BEGINNING = 6
_NEWLINE = 10
_FRAME_END = b"\n\n\r\n"
_NOT_THE_END = (b'"finish_reason":null', b'"finish_reason": null')
"""In every event but those that tell how an answer ended; they are for the parser and the tally."""
_LAST_BYTES = 128
_DIGIT = re.compile(rb"[0-9]")
TRIES = 4
"""Reads that go the long way one after the other before a stream stays there."""


@cache
def beginnings() -> tuple[bytes, ...]:
    """By length, how a read begins that is one chunk and holds an event."""
    told = [b""] * _MOST_BYTES
    for size in range(_BEGINNING, _MOST_BYTES - 8):
        line = b"%x\r\n" % size
        told[len(line) + size + 2] = (line + b"data:")[:_BEGINNING]
    return tuple(told)


def ending_of(body: bytes) -> bytes:
    """How reads end that go on as this one does; empty if that cannot be told."""
    at = max(body.rfind(words, -_LAST_BYTES) for words in _NOT_THE_END)
    ending = body[at:]
    if at < 0 or not body.endswith(b"}\n\n") or _DIGIT.search(ending):  # numbers change
        return b""
    return ending + b"\r\n"


def between_chunks(data: bytes, body: bytes) -> bool:
    """Whether a read ended with a chunk and an event.

    Args:
        data: the read.
        body: what the parser found in it.
    """
    # The last two bytes are no body's, so they are a frame's; a size would stand before them.
    return data.endswith(_FRAME_END) and body.endswith(b"\n\n")


class ChunkPipe(asyncio.Protocol):
    """Stands in for the connection at its socket while a stream is between two chunks.

    Slices and no methods of ``bytes``: those parse their arguments, which costs as much again.

    Args:
        long_way: the connection whose place this is.
        send: takes whole chunks for the client.
        gap: takes the seconds since the last token.
        clock: seconds, monotonic.
        since_s: when the last token came.

    Attributes:
        chunks: events seen and not yet counted.
        since_s: when the last token came.
    """

    __slots__ = (
        "_at",
        "_beginnings",
        "_clock",
        "_ending",
        "_gap",
        "_long_way",
        "_send",
        "chunks",
        "since_s",
    )

    def __init__(
        self,
        long_way: asyncio.Protocol,
        send: Callable[[bytes], None],
        gap: Callable[[float], None],
        clock: Callable[[], float],
        since_s: float,
    ) -> None:
        self._long_way = long_way
        self._send, self._gap, self._clock = send, gap, clock
        self._ending, self._at = b"", 0
        self._beginnings = beginnings()
        self.chunks = 0
        self.since_s = since_s

    def expect(self, ending: bytes) -> None:
        """Let reads pass that end like this; none, if it is empty."""
        self._ending, self._at = ending, -len(ending)

    def data_received(self, data: bytes) -> None:
        """One read; this is the chunk path."""
        at, size = self._at, len(data)
        if (
            size >= _MOST_BYTES
            or data[:_BEGINNING] != self._beginnings[size]
            or data[at:] != self._ending
            or _NEWLINE in data[_BEGINNING:at]
        ):
            self._long_way.data_received(data)
            return
        self.chunks += 1
        now = self._clock()
        self._gap(now - self.since_s)
        self.since_s = now
        self._send(data)

    def connection_lost(self, exc: Exception | None) -> None:
        """The socket is closed."""
        self._long_way.connection_lost(exc)
