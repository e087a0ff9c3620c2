"""The seam: a board on which every replica pins its facts and reads those of the others."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Protocol

from router.domain.errors import MotleyError
from router.gateway.access.ledger import Entry


class BoardError(MotleyError):
    """The board cannot be reached; the replica is on its own."""


@dataclass(frozen=True, slots=True)
class Posting:
    """What a replica brings to one exchange.

    Attributes:
        facts: its own, replacing what it brought before.
        spent: amounts to add to everybody's totals.
        wanted: entries whose totals it asks for.
        joined: workers registered here since, as JSON by name.
        gone: names of workers that were removed here since.
    """

    facts: bytes
    spent: Mapping[Entry, float] = field(default_factory=dict)
    wanted: Collection[Entry] = ()
    joined: Mapping[str, bytes] = field(default_factory=dict)
    gone: Collection[str] = ()


@dataclass(frozen=True, slots=True)
class View:
    """What it takes home.

    Attributes:
        others: facts of every other live replica, by name.
        totals: of the wanted entries.
        workers: every registered worker, as JSON by name.
        born: since when it remembers: another one means that it has lost everything.
    """

    others: Mapping[str, bytes]
    totals: Mapping[Entry, float]
    workers: Mapping[str, bytes]
    born: str = ""


class Board(Protocol):
    """Implemented by ``memory_board``, ``hub`` and ``redis_board``; one suite tests them all."""

    async def exchange(self, posting: Posting) -> View:
        """Pin and read, in one round trip.

        Raises:
            BoardError: it cannot be reached in time; nothing is known of what was brought.
        """

    async def lease(self, name: str, ttl_s: float) -> int | None:
        """Take or renew a lease.

        Returns:
            The fencing token, which grows with every change of holder; ``None`` while somebody
            else holds it.

        Raises:
            BoardError: it cannot be reached in time.
        """

    async def leave(self) -> None:
        """Take the own facts off the board and give leases back; never raises."""
