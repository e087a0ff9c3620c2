"""The part of an attempt that a stream goes through, token by token."""

from __future__ import annotations

from abc import ABC, abstractmethod
from array import array
from collections.abc import Callable

from router.gateway.chunk_pipe import TRIES, ChunkPipe, ending_of
from router.gateway.connection import Connection
from router.gateway.limits import Stage
from router.gateway.seams import Owner
from router.gateway.tally import NONE_YET, Tally
from router.gateway.ticket import Ticket

_RELAYING = Stage.RELAYING


class Relaying(ABC):
    """An attempt while its answer is passed on; ``Attempt`` adds how it begins and ends.

    Args:
        owner: gets what comes.
        ticket: told of the first token.
        clock: seconds, monotonic.
        now: its time.

    Attributes:
        gaps: seconds between the reads that brought tokens, as they came; whoever counts them
            takes them out, or a long answer's would never stop growing.
        stage: where the attempt stands.
    """

    __slots__ = (
        "_clock",
        "_connection",
        "_owner",
        "_paused",
        "_pipe",
        "_since_s",
        "_tally",
        "_ticket",
        "_token_seen",
        "_tries",
        "gaps",
        "stage",
    )

    def __init__(
        self, owner: Owner, ticket: Ticket, clock: Callable[[], float], now: float
    ) -> None:
        self._owner, self._ticket, self._clock = owner, ticket, clock
        self._connection: Connection | None = None
        self._pipe: ChunkPipe | None = None
        self._tries = TRIES
        self._tally: Tally = NONE_YET
        self._paused = self._token_seen = False
        self._since_s = now
        self.gaps = array("d")
        self.stage = Stage.CONNECTING

    @abstractmethod
    def _hold(self, data: bytes) -> None:
        """Some of the body, before it is known whether it is for the client."""

    def pause(self) -> None:
        """The client is slow."""
        if not self._paused and self._connection is not None:
            self._paused = True
            self._connection.pause()

    def resume(self) -> None:
        """The client reads again; its slowness is not held against the backend."""
        if self._paused and self._connection is not None:
            self._paused = False
            self._since_s = self._clock()
            if self._pipe is not None:
                self._pipe.since_s = self._since_s
            self._connection.resume()

    def on_data(self, data: bytes) -> None:
        """Relay; this is the chunk path."""
        if self.stage is not _RELAYING:
            self._hold(data)
            return
        tally, pipe = self._tally, self._pipe
        if pipe is not None:
            self._catch_up(pipe)
        if tally.plain and data.startswith(b"data:"):  # as nearly all; ``see`` costs a frame
            tally.tail.append(data)
            tally.chunks += 1 + data.count(b"\ndata:")
            tokens = True
        else:
            tokens = tally.see(data)
        if tokens:
            now = self._clock()
            if self._token_seen:
                self.gaps.append(now - self._since_s)
            elif tally.chunks:
                self._token_seen = True
                self._ticket.first_token(now)
            self._since_s = now
            if pipe is not None:
                pipe.since_s = now
        self._owner.answer_data(data)
        if self._tries and self._token_seen and tally.plain:
            self._shorten(ending_of(data))

    def _shorten(self, ending: bytes) -> None:
        """From now on whole chunks go by on their own, if the client takes them as they are."""
        self._tries -= 1
        connection = self._connection
        if connection is None:
            return
        if self._pipe is not None:
            self._pipe.expect(ending)
            if not self._tries:
                connection.short_way = None  # no two of its events end alike
            return
        raw = self._owner.raw_sink() if connection.chunked else None
        if raw is None:
            self._tries = 0
            return
        pipe = ChunkPipe(connection, raw, self.gaps.append, self._clock, self._since_s)
        pipe.expect(ending)
        self._pipe = connection.short_way = pipe

    def _catch_up(self, pipe: ChunkPipe) -> None:
        """Take note of what went by on its own."""
        if pipe.chunks:
            self._tally.chunks += pipe.chunks
            pipe.chunks = 0
            self._tries = TRIES
        self._since_s = pipe.since_s
