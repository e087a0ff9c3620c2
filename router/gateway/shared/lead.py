"""Which of the replicas leads: a lease on the board, with a fencing token.

A leader that comes back late with an older token is not believed. Until a lease is refused for the
first time a replica leads, and again when it has been alone for as long as a lease lasts.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Iterable
from typing import Any

from router.gateway.shared.board import Board
from router.gateway.shared.facts import Facts

log = logging.getLogger("motley.shared")

LEADER = "leader"


class Lead:
    """One replica's part in it.

    Args:
        board: grants the lease.
        lease_s: how long it lasts.

    Attributes:
        token: of the lease; 0 without one.
    """

    def __init__(self, board: Board, lease_s: float) -> None:
        self._board, self._lease_s = board, lease_s
        self.token = 0
        self._highest_token = 0
        self._bid_s = -1.0
        self._led = asyncio.Event()
        self._led.set()
        self._follows = asyncio.Event()

    @property
    def here(self) -> bool:
        """Whether this replica scrapes and plans."""
        return self._led.is_set()

    async def bid(self, now: float) -> None:
        """Take or renew the lead, well before it runs out.

        Raises:
            BoardError: the board cannot be reached.
        """
        if now < self._bid_s:
            return
        self._bid_s = now + self._lease_s / 3
        token = await self._board.lease(LEADER, self._lease_s)
        self.token = token or 0
        self._take(token is not None)

    def bid_soon(self) -> None:
        """Bid at the next exchange: the board is back."""
        self._bid_s = -1.0

    def begin_anew(self) -> None:
        """The board has forgotten who leads, and tokens begin anew."""
        self.token = self._highest_token = 0
        self.bid_soon()

    def alone(self) -> None:
        """Nobody has been heard of for as long as a lease lasts."""
        self.token = 0
        self._take(True)

    def followed(self, others: Iterable[Facts]) -> Facts | None:
        """Whose signals and prices to use; ``None`` if there is nobody, or it leads itself."""
        if self.token:
            self._highest_token = max(self._highest_token, self.token)
            return None
        leader = max(others, key=lambda facts: facts.token, default=None)
        if leader is None or leader.token < max(1, self._highest_token):
            return None
        self._highest_token = leader.token
        return leader

    async def while_leading(self, work: Callable[[], Any]) -> None:
        """Run ``work`` whenever this replica leads, and stop it when it does not."""
        while True:
            await self._led.wait()
            doing = asyncio.ensure_future(work())
            lost = asyncio.ensure_future(self._follows.wait())
            try:
                await asyncio.wait({doing, lost}, return_when=asyncio.FIRST_COMPLETED)
                if doing.done():
                    doing.result()
            finally:
                doing.cancel()
                lost.cancel()
                await asyncio.gather(doing, lost, return_exceptions=True)

    def _take(self, leads: bool) -> None:
        if leads and not self._led.is_set():
            log.info("this replica leads: it scrapes and plans")
            self._follows.clear()
            self._led.set()
        elif not leads and self._led.is_set():
            log.info("another replica leads: its signals and prices are used")
            self._led.clear()
            self._follows.set()
