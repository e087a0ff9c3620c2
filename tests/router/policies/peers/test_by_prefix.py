"""Rivals that follow prefixes: SGLang, vLLM router, production-stack, llm-d, Dynamo, AIBrix.

Each test first lets ``a`` serve the conversation alone, so that ``a`` holds its prefix.
"""

from __future__ import annotations

from typing import Any

import pytest

from router.domain.protocols import LossListener, Policy, PrefixHints
from router.domain.request import Request
from router.domain.state import EngineSignals
from tests.fakes import ask, view, views
from tests.router.policies.picking import picked, policy_of, scores

BLOCK = 256


def chat(blocks: int = 2, **fields: Any) -> Request:
    """1,000 prompt tokens, of which ``blocks * 256`` are in whole blocks."""
    hashes = tuple(range(1, blocks + 1))
    return ask(forecast=100.0, prefix_hashes=hashes, prefix_block_tokens=BLOCK, **fields)


def warmed(name: str, seed: int = 0, **params: float) -> Policy:
    """The policy, after ``a`` served the first two blocks of the conversation."""
    policy = policy_of(name, seed, **params)
    picked(policy, [view("a")], chat())
    return policy


class TestSglangCacheAware:
    def test_follows_a_match_above_the_threshold(self):
        fleet = views(a={"in_flight": 5}, b={})
        assert picked(warmed("sglang-cache-aware"), fleet, chat()) == "a"  # 512 of 1,000 > 0.3

    def test_ignores_a_match_at_or_below_it(self):
        fleet = views(a={"in_flight": 5}, b={})
        policy = warmed("sglang-cache-aware", cache_threshold=0.512)
        assert picked(policy, fleet, chat()) == "b"

    @pytest.mark.parametrize(
        ("a", "b", "chosen"),
        [
            (64, 0, "a"),  # a difference of 64 is not more than 64
            (65, 0, "b"),
            (195, 130, "a"),  # more than 64 apart, and not more than 1.5 times
            (196, 130, "b"),
        ],
    )
    def test_drops_affinity_when_counts_are_far_apart(self, a: int, b: int, chosen: str):
        fleet = views(a={"in_flight": a}, b={"in_flight": b})
        assert picked(warmed("sglang-cache-aware"), fleet, chat()) == chosen


@pytest.mark.parametrize(
    ("in_flight", "chosen"),
    [(0, "a"), (1, "a"), (2, "b")],  # 488 * 1, 488 * 2 and 488 * 3 against 1,000 * 1
)
def test_vllm_router_multiplies_new_tokens_and_batch(in_flight: int, chosen: str):
    fleet = views(a={"in_flight": in_flight, "decoding": in_flight}, b={})
    assert scores({"a": (1_000 - 512) * (in_flight + 1), "b": 1_000 * 1}) == chosen
    assert picked(warmed("vllm-router-kv-aware"), fleet, chat()) == chosen


@pytest.mark.parametrize(
    ("context", "chosen"),
    # Blocks of 16: (pending + 1,000 - cached + held + 1,000) / 16
    [(500.0, "a"), (520.0, "b")],
)
def test_dynamo_adds_blocks_to_compute_and_blocks_held(context: float, chosen: str):
    a, b = (488 + context + 1_000) / 16, (1_000 + 0 + 1_000) / 16
    assert scores({"a": a, "b": b}) == chosen
    fleet = views(a={"in_flight": 1, "decoding": 1, "context_tokens": context}, b={})
    assert picked(warmed("dynamo-cost"), fleet, chat()) == chosen


@pytest.mark.parametrize(
    ("a", "b", "chosen"),
    [
        (2, 2, "a"),  # 0.512 - 0 against 0 - 0
        (3, 2, "a"),  # mean 2.5: 0.512 - 0.2 against 0.2
        (3, 1, "b"),  # mean 2: 0.512 - 0.5 against 0.5
    ],
)
def test_production_stack_loadaware_sets_load_against_prefix(a: int, b: int, chosen: str):
    mean = (a + b) / 2
    values = {"a": (a - mean) / max(1.0, mean) - 0.512, "b": (b - mean) / max(1.0, mean)}
    assert scores(values) == chosen
    fleet = views(a={"in_flight": a}, b={"in_flight": b})
    assert picked(warmed("production-stack-loadaware"), fleet, chat()) == chosen


class TestProductionStackPrefixaware:
    def test_follows_the_longest_match_whatever_the_load(self):
        fleet = views(a={"in_flight": 500}, b={})
        assert picked(warmed("production-stack-prefixaware"), fleet, chat()) == "a"

    def test_without_a_match_the_lowest_rate_of_the_last_minute_wins(self):
        policy, fleet = policy_of("production-stack-prefixaware"), views(a={}, b={})
        a, b = fleet
        for at in (0.0, 1.0):
            picked(policy, [a], ask(), at)
        picked(policy, [b], ask(), 50.0)
        assert picked(policy, fleet, ask(), 59.0) == "b"  # 2 against 1
        assert picked(policy, fleet, ask(), 62.0) == "a"  # both of a's are over a minute old


class TestLlmDDefault:
    """2 * queue + 2 * (1 - KV usage) + 3 * prefix."""

    def fleet(self) -> list[Any]:
        return views(
            a={"signals": EngineSignals(0.0, waiting=4, kv_usage=0.5)},
            b={"signals": EngineSignals(0.0, waiting=0, kv_usage=0.9)},
            c={"signals": EngineSignals(0.0, waiting=2, kv_usage=0.3)},
        )

    def test_weighs_queue_and_kv(self):
        a, b, c = 2 * 0.0 + 2 * 0.5, 2 * 1.0 + 2 * 0.1, 2 * 0.5 + 2 * 0.7
        assert scores({"a": -a, "b": -b, "c": -c}) == "c"
        assert picked(policy_of("llm-d-default"), self.fleet()) == "c"

    def test_and_prefix(self):
        a, b, c = 1.0 + 3 * 0.512, 2.2, 2.4
        assert scores({"a": -a, "b": -b, "c": -c}) == "a"
        assert picked(warmed("llm-d-default"), self.fleet(), chat()) == "a"


class TestAibrixPrefixCache:
    @pytest.mark.parametrize(
        ("counts", "chosen"),
        [
            ((1, 0, 1), "a"),  # mean 0.67 + deviation 0.47 = 1.14
            ((2, 0, 1), "b"),  # mean 1 + deviation 0.82 = 1.82: a is busier than most
        ],
    )
    def test_follows_a_match_that_is_not_busier_than_most(
        self, counts: tuple[int, ...], chosen: str
    ):
        names = zip("abc", counts, strict=True)
        fleet = views(**{name: {"in_flight": n} for name, n in names})
        assert picked(warmed("aibrix-prefix-cache"), fleet, chat()) == chosen

    @pytest.mark.parametrize(("busiest", "chosen"), [(8, "a"), (9, "b")])
    def test_goes_by_count_alone_when_counts_are_far_apart(self, busiest: int, chosen: str):
        # Two more as busy as c keep a's count below the mean and a deviation.
        crowd = {"in_flight": busiest}
        fleet = views(a={"in_flight": 1}, b={}, c=crowd, d=crowd)
        assert picked(warmed("aibrix-prefix-cache"), fleet, chat()) == chosen


@pytest.mark.parametrize(
    "name",
    [
        *("sglang-cache-aware", "vllm-router-kv-aware", "dynamo-cost", "llm-d-default"),
        *("production-stack-loadaware", "production-stack-prefixaware", "aibrix-prefix-cache"),
    ],
)
def test_what_a_lost_backend_had_cached_is_forgotten(name: str):
    fleet = views(a={}, b={})
    assert {picked(warmed(name, seed), fleet, chat()) for seed in range(20)} == {"a"}

    def chosen(seed: int) -> str:
        policy = warmed(name, seed)
        assert isinstance(policy, LossListener)
        policy.lost("a")
        policy.lost("never heard of")
        return picked(policy, fleet, chat())

    assert {chosen(seed) for seed in range(20)} == {"a", "b"}, "nothing tells them apart any more"


@pytest.mark.parametrize(
    "name",
    [
        "aibrix-prefix-cache",
        "dynamo-cost",
        "llm-d-default",
        "production-stack-loadaware",
        "production-stack-prefixaware",
        "sglang-cache-aware",
        "vllm-router-kv-aware",
        "motley",
    ],
)
def test_what_another_replica_sent_counts_as_cached_there(name: str):
    """Replicas that share tell each other; every policy that follows prefixes listens."""
    policy = policy_of(name)
    assert isinstance(policy, PrefixHints)
    prompt = chat()
    everywhere = {
        picked(policy_of(name, seed=seed), views(a={}, b={}), chat()) for seed in range(8)
    }
    policy.hint(view("b", 1), prompt.prefix_hashes, BLOCK)
    assert picked(policy, views(a={}, b={}), prompt) == "b"
    assert "a" in everywhere, "without the hint it may be the other one"
