"""Which backend has probably cached which prompt prefix, as far as the router can tell.

Block hashes are chained: a hash stands for its whole prefix, so a backend holds a prefix exactly
as far as it knows the leading hashes. Each backend's entries are kept in the order of use and the
oldest are forgotten beyond its KV capacity, as its own LRU cache does.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

from router.domain.state import BackendView

NOBODY: set[str] = set()


class Named(Protocol):
    """Stands for a backend."""

    @property
    def name(self) -> str:
        """The backend's name."""


OneNamed = TypeVar("OneNamed", bound=Named)


class PrefixIndex:
    """Block hashes by backend name, least recently used first.

    Args:
        capacity_tokens: tokens remembered per backend when the caller gives no other figure;
            ``None`` never forgets (production-stack's trie).
    """

    def __init__(self, capacity_tokens: int | None = None) -> None:
        self._capacity_tokens = capacity_tokens
        self._blocks: dict[str, dict[int, int]] = {}
        self._tokens: dict[str, int] = {}
        self._holders: dict[int, set[str]] = {}

    def matched_tokens(self, backend: str, hashes: Sequence[int], block_tokens: int) -> int:
        """Prompt tokens that this backend has probably cached."""
        known = self._blocks.get(backend)
        if not known or not hashes:
            return 0
        if hashes[0] not in known:
            return 0
        if hashes[-1] in known:
            return len(hashes) * block_tokens
        # Leaves are forgotten before their roots, so the blocks known are the first ones.
        held, missing = 0, len(hashes) - 1
        while missing - held > 1:
            middle = (held + missing) // 2
            if hashes[middle] in known:
                held = middle
            else:
                missing = middle
        return missing * block_tokens

    def holders(self, hashes: Sequence[int]) -> set[str]:
        """Names of the backends that hold at least the first block; do not mutate the set."""
        return self._holders.get(hashes[0], NOBODY) if hashes else NOBODY

    def narrowed(self, holders: Sequence[OneNamed], hashes: Sequence[int]) -> list[list[OneNamed]]:
        """Those of them that hold all of the prompt; if none does, half of it, and then more.

        Each list is part of the one before, and one that is no shorter is left out; the last hold
        as much as any. For many backends: a look-up for each, where ``matched_tokens`` takes more.

        Args:
            holders: of the first block.
            hashes: of the prompt.
        """
        known = self._blocks
        every: list[list[OneNamed]] = []
        some = holders
        held, missing = 1, len(hashes) + 1  # blocks that some hold; that none does
        blocks = len(hashes)
        while missing > held + 1:
            block = hashes[blocks - 1]
            more = [one for one in some if block in known[one.name]]
            if more:
                held = blocks
                if len(more) < len(some):
                    every.append(more)
                some = more
            else:
                missing = blocks
            blocks = (held + missing) // 2
        return every

    def insert(
        self,
        backend: str,
        hashes: Sequence[int],
        block_tokens: int,
        capacity_tokens: int | None = None,
    ) -> None:
        """This backend is about to compute, and so to cache, this prompt."""
        if not hashes:
            return
        known = self._blocks.setdefault(backend, {})
        held = self._tokens.get(backend, 0)
        for block in reversed(hashes):  # leaves are older than roots, so leaves go first
            size = known.pop(block, 0)
            held += block_tokens - size
            known[block] = block_tokens
        self._holders.setdefault(hashes[0], set()).add(backend)
        self._tokens[backend] = held
        self._forget_oldest(backend, capacity_tokens or self._capacity_tokens)

    def drop(self, backend: str, blocks: Sequence[int]) -> None:
        """The backend has these no more."""
        known = self._blocks.get(backend)
        if not known:
            return
        for block in blocks:
            size = known.pop(block, 0)
            if size:
                self._tokens[backend] -= size
                self._unhold(block, backend)

    def forget(self, backend: str) -> None:
        """The backend restarted: its cache is cold."""
        for block in self._blocks.pop(backend, {}):
            self._unhold(block, backend)
        self._tokens.pop(backend, None)

    def _forget_oldest(self, backend: str, capacity_tokens: int | None) -> None:
        if capacity_tokens is None:
            return
        known, held = self._blocks[backend], self._tokens[backend]
        while held > capacity_tokens and known:
            oldest = next(iter(known))
            held -= known.pop(oldest)
            self._unhold(oldest, backend)
        self._tokens[backend] = held

    def _unhold(self, block: int, backend: str) -> None:
        """A first block is forgotten; other blocks have no holders to tell."""
        holders = self._holders.get(block)
        if holders is not None:
            holders.discard(backend)
            if not holders:
                del self._holders[block]


class HeedsHints:
    """For policies with an index that replicas of the router share (``protocols.PrefixHints``).

    Attributes:
        forgets: whether the index is bounded by each backend's KV capacity.
    """

    forgets = True
    _index: PrefixIndex

    def hint(self, backend: BackendView, hashes: Sequence[int], block_tokens: int) -> None:
        """Another replica sent a prompt with this beginning there."""
        capacity = backend.kv_capacity_tokens if self.forgets else None
        self._index.insert(backend.spec.name, hashes, block_tokens, capacity)
