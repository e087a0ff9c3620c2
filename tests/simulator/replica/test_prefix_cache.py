"""The prefix cache alone, and against a model that remembers every block in a list."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from simulator.replica.build import make_replica
from simulator.replica.config import ReplicaConfig
from simulator.replica.job import Job
from simulator.replica.kv_cache import Holding, KvPool
from simulator.replica.prefix_cache import PrefixCache
from tests.simulator.replica.loads import drain, tick


def filled(*keys: int) -> PrefixCache:
    """One block per key, inserted and released together, head first."""
    cache = PrefixCache()
    blocks = [block for key in keys if (block := cache.insert(key, 2))]
    cache.release(blocks)
    return cache


def test_match_stops_at_the_first_block_that_is_missing() -> None:
    cache = filled(1, 2, 4)
    assert [block.key for block in cache.match((1, 2, 3, 4), (2, 2, 2, 2))] == [1, 2]


def test_a_hash_of_another_size_is_no_match() -> None:
    assert filled(1).match((1,), (4,)) == []


def test_tails_are_evicted_before_heads_and_old_before_new() -> None:
    cache = filled(1, 2, 3)
    newer = cache.insert(9, 2)
    assert newer is not None
    cache.release([newer])
    cache.trim(6)
    assert [cache.get(key) is not None for key in (1, 2, 3, 9)] == [True, True, False, True]
    cache.trim(2)
    assert [cache.get(key) is not None for key in (1, 2, 3, 9)] == [False, False, False, True]


def test_blocks_in_use_are_never_evicted() -> None:
    cache = filled(1, 2)
    cache.acquire(cache.match((1,), (2,)))
    cache.trim(0)
    assert cache.get(1) is not None
    assert cache.get(2) is None
    assert cache.idle_size == 0


def test_use_makes_a_block_young_again() -> None:
    cache = filled(1, 2)
    head = cache.match((1,), (2,))
    cache.acquire(head)
    cache.release(head)
    cache.trim(2)
    assert cache.get(1) is not None
    assert cache.get(2) is None


def test_released_blocks_without_a_hash_age_like_the_others() -> None:
    cache = filled(1)
    cache.park(5)
    newer = cache.insert(2, 2)
    assert newer is not None
    cache.release([newer])
    cache.trim(7)  # the oldest goes
    assert cache.get(1) is None
    cache.trim(2)  # then what nobody knows
    assert cache.get(2) is not None


def test_shared_blocks_are_counted_once() -> None:
    pool = KvPool(100, 16, caching=True)
    job = Job("a", 64, 1, prefix_hashes=(1, 2), prefix_block_tokens=32)
    first, second = Holding(), Holding()
    pool.grow(first, 64)
    pool.cover(first, job, 64)
    found, hit = pool.lookup(job, 70)
    assert (len(found), hit) == (2, 64)
    pool.take(second, found)
    pool.grow(second, 70)
    assert pool.used == 5
    pool.release(first)
    assert pool.used == 5
    pool.release(second)
    assert (pool.used, pool.free) == (0, 100)
    assert pool.cache.idle_size == 4


def test_hashed_blocks_need_not_be_multiples_of_kv_blocks() -> None:
    pool = KvPool(100, 16, caching=True)
    job = Job("a", 72, 1, prefix_hashes=(1, 2, 3), prefix_block_tokens=24)
    holding = Holding()
    pool.grow(holding, 72)
    pool.cover(holding, job, 72)
    assert holding.shared == 4  # 72 tokens fill 4 blocks of 16
    pool.release(holding)
    assert len(pool.lookup(job, 72)[0]) == 3


# One request after the other, so that the cache is all that matters.

WIDTH = 32
prompts = st.lists(st.lists(st.integers(0, 2), min_size=1, max_size=6), min_size=1, max_size=25)


def chained(words: list[int]) -> tuple[int, ...]:
    """A hash per block that depends on all blocks before it, as the engines' do."""
    return tuple(hash(tuple(words[: end + 1])) for end in range(len(words)))


def naive_hits(sequence: list[list[int]], capacity_blocks: int) -> list[int]:
    """Least recently used over single blocks of prompts, in a plain list, oldest first."""
    idle: list[int] = []
    hits = []
    for words in sequence:
        keys = list(chained(words))
        count = 0
        while count < len(keys) and keys[count] in idle:
            count += 1
        # The last token is always computed: of a whole hit its last KV block is done again.
        hits.append(min(count * WIDTH, (len(keys) * WIDTH - 1) // 16 * 16))
        for key in keys[:count]:
            idle.remove(key)
        room = capacity_blocks - len(keys)
        idle = idle[max(0, len(idle) - room) :]
        idle = [key for key in idle if key not in keys] + keys[::-1]
    return hits


@given(prompts, st.integers(6, 20))
def test_hits_equal_a_naive_cache(sequence: list[list[int]], capacity_blocks: int) -> None:
    config = ReplicaConfig(
        kv_capacity_tokens=capacity_blocks * WIDTH,
        max_context_tokens=capacity_blocks * WIDTH,
        max_num_batched_tokens=4_096,
    )
    for exact in (True, False):
        replica = make_replica(config, tick(), exact=exact)
        found = []
        for number, words in enumerate(sequence):
            # One output token: its own KV is never computed, so only prompts take memory.
            job = Job(str(number), len(words) * WIDTH, 1, 1, chained(words), WIDTH)
            if job.prompt_tokens + 1 > config.longest_job_tokens:
                job.prompt_tokens -= WIDTH
            replica.submit(job, 10.0 * number)
            drain(replica)
            found.append((job.prompt_tokens // WIDTH, job.cached_tokens))
        cut = [words[:blocks] for words, (blocks, _) in zip(sequence, found, strict=True)]
        assert [hit for _, hit in found] == naive_hits(cut, capacity_blocks)


def test_an_answer_takes_its_turn_in_the_cache(exact: bool) -> None:
    """Answers are cached too: an old prompt goes before a younger answer does."""
    config = ReplicaConfig(kv_capacity_tokens=640, max_context_tokens=640)
    replica = make_replica(config, tick(), exact=exact)
    old = Job("old", 128, 1, 1, (1, 2, 3, 4), 32)
    talkative = Job("talkative", 32, 300, 300)
    large, again = Job("large", 200, 1, 1), Job("again", 129, 1, 1, (1, 2, 3, 4), 32)
    for number, job in enumerate((old, talkative, large, again)):
        replica.submit(job, 1_000.0 * number)
        drain(replica)
    # 8 blocks of the old prompt, 21 of the talkative one, 13 for the large one: of 40 blocks two
    # are missing, and the tail of the oldest goes first.
    assert again.cached_tokens == 96
