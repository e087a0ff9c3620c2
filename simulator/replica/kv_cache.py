"""The paged KV cache of one engine: who holds how many blocks (I3: used + free = total)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from itertools import pairwise, repeat

from simulator.replica.job import Job
from simulator.replica.prefix_cache import CachedBlock, PrefixCache


class Holding:
    """What one request holds.

    Attributes:
        blocks: KV blocks, the shared ones included.
        shared: of those, the ones that are in the prefix cache.
        cached: the prefix-cache entries behind ``shared``, head first.
        covered: leading hashed blocks that were found or offered to the prefix cache.
    """

    __slots__ = ("blocks", "cached", "covered", "shared")

    def __init__(self) -> None:
        self.blocks = self.shared = self.covered = 0
        self.cached: list[CachedBlock] = []


class KvPool:
    """Counts blocks; it places none, because no simulated figure depends on where they lie.

    Attributes:
        total: blocks of the cache.
        used: blocks held by requests, each shared one counted once.
        caching: whether released blocks are kept for reuse.
        cache: the prefix cache; empty without caching.
        merges_duplicates: whether a request whose block turns out to be cached gives its own
            copy back (SGLang's radix tree) or keeps it (vLLM).
        queried_tokens, hit_tokens: prompt tokens looked up and found, lifetime.
        stored: blocks that entered the prefix cache, as (hash of the one before it, own hash,
            tokens), for whoever wants to know and sets a list.
    """

    __slots__ = (
        "block_tokens",
        "cache",
        "caching",
        "hit_tokens",
        "merges_duplicates",
        "queried_tokens",
        "stored",
        "total",
        "used",
    )

    def __init__(
        self, total: int, block_tokens: int, *, caching: bool, merges_duplicates: bool = False
    ) -> None:
        self.total, self.block_tokens = total, block_tokens
        self.used = self.queried_tokens = self.hit_tokens = 0
        self.caching, self.cache = caching, PrefixCache()
        self.merges_duplicates = merges_duplicates
        self.stored: list[tuple[int | None, int, int]] | None = None

    @property
    def free(self) -> int:
        """Blocks a request could get: idle cached ones count as free."""
        return self.total - self.used

    def blocks_for(self, tokens: int) -> int:
        """Blocks that ``tokens`` tokens take."""
        return -(-tokens // self.block_tokens)

    def match(self, job: Job) -> list[CachedBlock]:
        """The leading blocks of the prompt that are cached."""
        if not (self.caching and job.prefix_hashes):
            return []
        return self.cache.match(job.prefix_hashes, self._sizes(job, 0, job.shareable_blocks))

    def lookup(self, job: Job, tokens: int) -> tuple[list[CachedBlock], int]:
        """The cached leading blocks, and how many of ``tokens`` need no computing for them.

        At least one token is computed, or there would be no logits to sample from. What came from
        another engine needs blocks of its own.
        """
        if job.received and not job.preemptions:
            return [], tokens - 1
        if not (self.caching and job.prefix_hashes):
            return [], 0
        found = self.match(job)
        unit = self.block_tokens
        return found, min(len(found) * job.prefix_block_tokens, tokens - 1) // unit * unit

    def missing(self, tokens: int, found: Sequence[CachedBlock]) -> int:
        """Free blocks that a newcomer takes to hold ``tokens``, given its cached blocks."""
        need = self.blocks_for(tokens)
        for block in found:
            if block.refs:
                need -= block.size
        return need

    def revived_tokens(self, found: Sequence[CachedBlock], hit_tokens: int) -> int:
        """Of ``hit_tokens``, those in blocks that are idle now and would no longer be free.

        Where all of a prompt is cached its last tokens are computed again, in place.
        """
        idle = sum(block.size for block in found if not block.refs) * self.block_tokens
        again = sum(block.size for block in found) * self.block_tokens - hit_tokens
        return max(0, idle - again)

    def take(self, holding: Holding, found: Sequence[CachedBlock]) -> None:
        """Reference the cached blocks of a newcomer."""
        self.used += self.cache.acquire(found)
        holding.cached = [*found]
        holding.covered = len(found)
        holding.shared = holding.blocks = sum(block.size for block in found)

    def grow(self, holding: Holding, tokens: int) -> None:
        """Give ``holding`` the blocks that ``tokens`` tokens take; the caller checked they fit."""
        need = self.blocks_for(tokens) - holding.blocks
        if need > 0:
            holding.blocks += need
            self.used += need
            if self.cache.idle_size:
                self.trim()

    def trim(self) -> None:
        """Evict idle cached blocks that lie where requests do now."""
        self.cache.trim(self.total - self.used)

    def cover(self, holding: Holding, job: Job, computed: int) -> None:
        """Offer the prompt blocks filled by ``computed`` tokens to the prefix cache."""
        if not (self.caching and job.prefix_hashes):
            return
        first, last = holding.covered, computed // job.prefix_block_tokens
        if last > first:
            last = min(last, job.shareable_blocks)
            holding.covered = last
            self._offer(holding, job, job.prefix_hashes[first:last], first)

    def all_new(self, holding: Holding, job: Job) -> bool:
        """Whether none of the prompt's further blocks is in the prefix cache."""
        return self.cache.has_none(job.prefix_hashes[holding.covered : job.shareable_blocks])

    def cover_output(self, holding: Holding, job: Job, tokens: int) -> None:
        """Offer the blocks that the answer completed, ``tokens`` long with its prompt."""
        if self.caching and job.output_hashes and job.prefix_block_tokens:
            first = job.prompt_tokens // job.prefix_block_tokens
            filled = tokens // job.prefix_block_tokens - first
            self._offer(holding, job, job.output_hashes[:filled], first)

    def release(self, holding: Holding, *, keep: bool = True) -> None:
        """Free what ``holding`` holds; with ``keep`` its contents stay cached for reuse."""
        own = holding.blocks - holding.shared
        self.used -= own
        if keep and self.caching:
            self.cache.park(own)
        if holding.cached:
            self.used -= self.cache.release(holding.cached)
            holding.cached = []
        holding.blocks = holding.shared = holding.covered = 0

    def _offer(self, holding: Holding, job: Job, keys: Sequence[int], first: int) -> None:
        """Put a job's blocks from the ``first`` on in the prefix cache, those that are new."""
        insert = self.cache.insert
        for key, size in zip(keys, self._sizes(job, first, len(keys)), strict=False):
            block = insert(key, size)
            if block is None:
                if not self.merges_duplicates:
                    continue
                block = self.cache.get(key)
                if block is None or block.size != size:
                    continue
                # Its own copy goes back, the shared one is referenced instead.
                self.used += self.cache.acquire((block,)) - size
            elif self.stored is not None:
                self.stored.append((_before(job, key), key, job.prefix_block_tokens))
            holding.cached.append(block)
            holding.shared += size

    def _sizes(self, job: Job, first: int, count: int) -> Iterable[int]:
        """KV blocks of ``count`` hashed blocks of a job, from the ``first`` on."""
        width, unit = job.prefix_block_tokens, self.block_tokens
        if width % unit == 0:
            return repeat(width // unit, count)
        ends = [index * width // unit for index in range(first, first + count + 1)]
        return [end - begin for begin, end in pairwise(ends)]


def _before(job: Job, key: int) -> int | None:
    """The hash before this one in a job's prompt and answer."""
    chain = (*job.prefix_hashes[: job.shareable_blocks], *job.output_hashes)
    at = chain.index(key)
    return chain[at - 1] if at else None
