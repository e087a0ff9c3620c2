"""A board in memory: for the hub of one machine's worker processes, and for tests."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

from router.gateway.access.ledger import Entry
from router.gateway.shared.board import Posting, View


@dataclass(slots=True)
class _Lease:
    holder: str
    token: int
    until_s: float


@dataclass(slots=True)
class Wall:
    """The state of a board in memory; its replicas are ``MemoryBoard``.

    Attributes:
        clock: seconds, monotonic.
        stale_after_s: how long facts are shown after they were pinned.
        born: see ``board.View``.
    """

    clock: Callable[[], float]
    stale_after_s: float = 2.0
    facts: dict[str, tuple[float, bytes]] = field(default_factory=dict)
    totals: dict[Entry, float] = field(default_factory=dict)
    workers: dict[str, bytes] = field(default_factory=dict)
    leases: dict[str, _Lease] = field(default_factory=dict)
    born: str = "1"

    def exchange(self, replica: str, posting: Posting) -> View:
        """One replica's exchange."""
        now = self.clock()
        self.facts[replica] = (now, posting.facts)
        for name in [n for n, (at, _) in self.facts.items() if now - at > self.stale_after_s]:
            del self.facts[name]
        for entry, amount in posting.spent.items():
            self.totals[entry] = self.totals.get(entry, 0.0) + amount
        self.workers.update(posting.joined)
        for name in posting.gone:
            self.workers.pop(name, None)
        others = {name: facts for name, (_, facts) in self.facts.items() if name != replica}
        totals = {entry: self.totals.get(entry, 0.0) for entry in posting.wanted}
        return View(others, totals, dict(self.workers), self.born)

    def lease(self, replica: str, name: str, ttl_s: float) -> int | None:
        """One replica's bid for a lease."""
        now = self.clock()
        held = self.leases.get(name)
        if held is not None and held.holder != replica and now < held.until_s:
            return None
        renewed = held is not None and held.holder == replica and now < held.until_s
        token = held.token if renewed and held else (held.token + 1 if held else 1)
        self.leases[name] = _Lease(replica, token, now + ttl_s)
        return token

    def leave(self, replica: str) -> None:
        """A replica goes."""
        self.facts.pop(replica, None)
        for held in self.leases.values():
            if held.holder == replica:
                held.until_s = 0.0


class MemoryBoard:
    """One replica's place at a ``Wall``; implements ``board.Board``."""

    def __init__(self, wall: Wall, replica: str) -> None:
        self._wall, self._replica = wall, replica

    async def exchange(self, posting: Posting) -> View:
        """Pin and read."""
        return self._wall.exchange(self._replica, posting)

    async def lease(self, name: str, ttl_s: float) -> int | None:
        """Take or renew a lease."""
        return self._wall.lease(self._replica, name, ttl_s)

    async def leave(self) -> None:
        """Take the own facts off."""
        self._wall.leave(self._replica)
