"""Blocks of finished prompts, kept until their memory is needed: least recently used go first.

One structure serves both engines. vLLM hashes blocks of 16 tokens and frees a request's blocks
tail first; SGLang keeps a radix tree and evicts leaves. Seen per block both are the same: a
block is referenced while a request uses it, and idle afterwards in the order of release, tails
before heads, so a child always leaves before its parent.

Blocks are those of the caller's hashes (512 tokens in the Mooncake trace): a prompt of 12,000
tokens costs 24 dictionary look-ups here, not 750.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Sequence


class CachedBlock:
    """One hashed block; ``size`` in KV blocks, ``refs`` requests using it."""

    __slots__ = ("key", "refs", "size")

    def __init__(self, key: int | None, size: int, refs: int) -> None:
        self.key, self.size, self.refs = key, size, refs


class PrefixCache:
    """Hash to block, and the idle blocks in the order in which they will be evicted.

    Attributes:
        idle_size: KV blocks held by idle entries; they count as free memory.
        evicted: hashes that were evicted, for whoever wants to know and sets a list.
    """

    __slots__ = ("_blocks", "_idle", "evicted", "idle_size")

    def __init__(self) -> None:
        self.evicted: list[int] | None = None
        self._blocks: dict[int, CachedBlock] = {}
        self._idle: OrderedDict[CachedBlock, None] = OrderedDict()
        self.idle_size = 0

    def __len__(self) -> int:
        return len(self._blocks)

    def get(self, key: int) -> CachedBlock | None:
        """The block of this hash, if it is still there."""
        return self._blocks.get(key)

    def has_none(self, keys: Iterable[int]) -> bool:
        """Whether none of these hashes is cached."""
        return self._blocks.keys().isdisjoint(keys)

    def match(self, keys: Iterable[int], sizes: Iterable[int]) -> list[CachedBlock]:
        """The longest run of leading blocks that is cached, ``sizes`` KV blocks each."""
        found: list[CachedBlock] = []
        get = self._blocks.get
        for key, size in zip(keys, sizes, strict=False):
            block = get(key)
            if block is None or block.size != size:
                break
            found.append(block)
        return found

    def acquire(self, blocks: Iterable[CachedBlock]) -> int:
        """Reference ``blocks``; returns the KV blocks that were idle until now."""
        revived = 0
        idle = self._idle
        for block in blocks:
            if block.refs == 0:
                del idle[block]
                revived += block.size
            block.refs += 1
        self.idle_size -= revived
        return revived

    def release(self, blocks: Sequence[CachedBlock]) -> int:
        """Drop one reference each, tail first; returns the KV blocks that became idle."""
        freed = 0
        idle = self._idle
        for block in reversed(blocks):
            block.refs -= 1
            if block.refs == 0:
                idle[block] = None
                freed += block.size
        self.idle_size += freed
        return freed

    def insert(self, key: int, size: int) -> CachedBlock | None:
        """Register a block in use; ``None`` if the hash is taken."""
        if key in self._blocks:
            return None
        block = self._blocks[key] = CachedBlock(key, size, 1)
        return block

    def park(self, size: int) -> None:
        """Keep released KV blocks whose hash nobody knows: they age like the others.

        Nothing older than every known block can ever be missed, so without idle blocks there is
        nothing to keep.
        """
        if self._idle and size > 0:
            self._idle[CachedBlock(None, size, 0)] = None
            self.idle_size += size

    def trim(self, limit: int) -> None:
        """Evict the oldest idle blocks until at most ``limit`` KV blocks are idle."""
        while self.idle_size > limit:
            block, _ = self._idle.popitem(last=False)
            self.idle_size -= block.size
            if block.key is not None:
                del self._blocks[block.key]
                if self.evicted is not None:
                    self.evicted.append(block.key)
