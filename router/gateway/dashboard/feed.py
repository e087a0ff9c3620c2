"""One tick a second for all pages: built once, encoded once, dropped for pages that are slow.

Where nobody looks on, only what charts and events need is kept: the whole picture takes 1.3 ms of
64 backends, for which one request in a hundred would have to wait.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager

import msgspec

from router.gateway.dashboard.board import Board
from router.gateway.dashboard.views import Snapshot
from router.gateway.lull import Rest

TICK_S = 1.0
MOST_PAGES = 100
QUEUED_TICKS = 2
"""A page that is this far behind misses ticks; each is a whole picture, so nothing is lost."""


class Feed:
    """Ticks for ever, and hands each tick to whoever looks on."""

    def __init__(self, board: Board) -> None:
        self._board = board
        self._pages: set[asyncio.Queue[bytes]] = set()
        self._encoder = msgspec.json.Encoder()
        self._last: Snapshot | None = None

    async def run(self, rest: Rest) -> None:
        """The chore."""
        while True:
            self.tick()
            await rest(TICK_S)

    def tick(self) -> None:
        """One picture to every page; none is made where nobody looks on."""
        self._board.tick()
        self._last = None
        if not self._pages:
            return
        event = _event(b"tick", self._encoder.encode(self._current()))
        for page in self._pages:
            if page.full():
                page.get_nowait()
            page.put_nowait(event)

    def now(self) -> bytes:
        """The newest picture as JSON."""
        return self._encoder.encode(self._current())

    @property
    def full(self) -> bool:
        """Whether another page would be one too many."""
        return len(self._pages) >= MOST_PAGES

    async def stream(self) -> AsyncIterator[bytes]:
        """Server-sent events: ``hello`` with the history, then a ``tick`` a second."""
        yield _event(b"hello", self._encoder.encode(self._board.hello(self._current())))
        with self._page() as page:
            while event := await page.get():
                yield event

    def close(self) -> None:
        """End every stream: the gateway stops, and would wait for them."""
        for page in self._pages:
            while page.full():
                page.get_nowait()
            page.put_nowait(b"")

    def _current(self) -> Snapshot:
        """One a tick at most, however many ask."""
        if self._last is None:
            self._last = self._board.picture()
        return self._last

    @contextmanager
    def _page(self) -> Iterator[asyncio.Queue[bytes]]:
        page: asyncio.Queue[bytes] = asyncio.Queue(QUEUED_TICKS)
        self._pages.add(page)
        try:
            yield page
        finally:
            self._pages.discard(page)


def _event(name: bytes, data: bytes) -> bytes:
    return b"event: %b\ndata: %b\n\n" % (name, data)
