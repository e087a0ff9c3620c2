from __future__ import annotations

import random

from router.policies.prefix_index import PrefixIndex
from tests.fakes import spec

BLOCK = 64


def test_a_prefix_is_held_as_far_as_its_leading_blocks_are_known():
    index = PrefixIndex()
    index.insert("a", (1, 2, 3), BLOCK)
    assert index.matched_tokens("a", (1, 2, 3, 4), BLOCK) == 3 * BLOCK
    assert index.matched_tokens("a", (1, 2, 9), BLOCK) == 2 * BLOCK
    assert index.matched_tokens("a", (9, 2, 3), BLOCK) == 0
    assert index.matched_tokens("b", (1, 2, 3), BLOCK) == 0
    assert index.matched_tokens("a", (), 0) == 0


def test_holders_are_those_who_know_the_first_block():
    index = PrefixIndex()
    index.insert("a", (1, 2), BLOCK)
    index.insert("b", (1, 3), BLOCK)
    assert index.holders((1, 2)) == {"a", "b"}
    assert index.holders((2,)) == set()
    assert index.holders(()) == set()


def test_the_least_recently_used_goes_first_and_leaves_before_roots():
    index = PrefixIndex()
    index.insert("a", (1, 2), BLOCK, 4 * BLOCK)
    index.insert("a", (5, 6), BLOCK, 4 * BLOCK)
    index.insert("a", (1,), BLOCK, 4 * BLOCK)  # root 1 is used again, its leaf 2 is not
    index.insert("a", (7,), BLOCK, 4 * BLOCK)  # five blocks, room for four: 2 is the oldest
    assert index.matched_tokens("a", (1, 2), BLOCK) == BLOCK
    assert index.matched_tokens("a", (5, 6), BLOCK) == 2 * BLOCK
    index.insert("a", (8, 9), BLOCK, 4 * BLOCK)  # now the leaf 6 and its root 5
    assert index.matched_tokens("a", (5, 6), BLOCK) == 0
    assert index.holders((5,)) == set()
    assert index.holders((1,)) == {"a"}


def test_a_prompt_longer_than_the_cache_leaves_its_beginning():
    index = PrefixIndex()
    index.insert("a", (1, 2, 3, 4), BLOCK, 2 * BLOCK)
    assert index.matched_tokens("a", (1, 2, 3, 4), BLOCK) == 2 * BLOCK


def test_the_capacity_is_the_callers_or_the_indexs_own_or_none():
    bounded = PrefixIndex(capacity_tokens=BLOCK)
    bounded.insert("a", (1,), BLOCK)
    bounded.insert("a", (2,), BLOCK)
    assert bounded.matched_tokens("a", (1,), BLOCK) == 0
    endless = PrefixIndex()
    for block in range(1000):
        endless.insert("a", (block,), BLOCK)
    assert endless.matched_tokens("a", (0,), BLOCK) == BLOCK


def test_holders_are_narrowed_to_those_who_hold_most():
    index = PrefixIndex()
    prompt = tuple(range(1, 11))
    for name, blocks in {"a": 1, "b": 3, "c": 6, "d": 6, "e": 8}.items():
        index.insert(name, prompt[:blocks], BLOCK)
    holders = [spec(name) for name in "abcde"]

    def narrowed(prompt: tuple[int, ...]) -> list[str]:
        return ["".join(one.name for one in some) for some in index.narrowed(holders, prompt)]

    assert narrowed(prompt) == ["cde", "e"]  # of 10 blocks 5, then 7; nobody has 10
    assert narrowed(prompt[:6]) == ["cde"]
    assert narrowed(prompt[:3]) == ["bcde"]
    assert narrowed(prompt[:1]) == []  # all of them hold it
    assert narrowed((1, 99, 98)) == []


def test_those_narrowed_to_hold_as_much_as_anybody():
    rng = random.Random(1)
    for _ in range(200):
        index, prompt = PrefixIndex(), tuple(range(rng.randrange(1, 40)))
        held = {f"b{n}": rng.randrange(1, len(prompt) + 1) for n in range(12)}
        for name, blocks in held.items():
            index.insert(name, prompt[:blocks], BLOCK)
        holders = [spec(name) for name in held]
        last = (holders, *index.narrowed(holders, prompt))[-1]
        most = max(held.values())
        assert {one.name for one in last} == {name for name in held if held[name] == most}


def test_inserting_again_costs_no_room():
    index = PrefixIndex()
    for _ in range(10):
        index.insert("a", (1, 2), BLOCK, 2 * BLOCK)
    assert index.matched_tokens("a", (1, 2), BLOCK) == 2 * BLOCK


def test_a_restarted_backend_is_forgotten():
    index = PrefixIndex()
    index.insert("a", (1, 2), BLOCK)
    index.insert("b", (1,), BLOCK)
    index.forget("a")
    assert index.matched_tokens("a", (1,), BLOCK) == 0
    assert index.holders((1,)) == {"b"}
    index.forget("never heard of")


def test_what_is_held_is_always_a_beginning_however_it_was_forgotten():
    """So that it can be found by halving; here it is counted from the front."""
    rng = random.Random(0)
    for capacity in (3, 8, 40):
        index = PrefixIndex()
        for _ in range(500):
            path = [rng.randrange(3) for _ in range(rng.randrange(1, 7))]
            chain = tuple(hash(tuple(path[: depth + 1])) for depth in range(len(path)))
            known = index._blocks.get("a", {})
            front = next((n for n, block in enumerate(chain) if block not in known), len(chain))
            assert index.matched_tokens("a", chain, BLOCK) == front * BLOCK
            index.insert("a", chain, BLOCK, capacity * BLOCK)
