"""SGLang's arithmetic by hand."""

from __future__ import annotations

from dataclasses import dataclass

import pytest

from simulator.replica.config import ReplicaConfig
from simulator.replica.job import Job
from simulator.replica.kv_cache import Holding, KvPool
from simulator.replica.sglang_rules import (
    NewTokenRatio,
    PrefillBudget,
    longest_prefix_first,
    max_new_tokens,
)


def test_the_ratio_falls_linearly_to_a_seventh_in_600_steps() -> None:
    ratio = NewTokenRatio(1.0)
    assert ratio.value == 0.7
    ratio.decay(300)
    assert ratio.value == pytest.approx((0.7 + 0.098) / 2)
    ratio.decay(300)
    assert ratio.value == pytest.approx(0.098)
    ratio.decay(1_000)
    assert ratio.value == pytest.approx(0.098)
    ratio.reset()
    assert ratio.value == 0.7


def test_a_retraction_sets_the_ratio_by_what_was_seen() -> None:
    ratio = NewTokenRatio(1.0)
    ratio.retracted(generated=100, kept=2, max_new=399)
    assert ratio.value == (100 + 20 * 2) / 400
    ratio.retracted(generated=500, kept=1, max_new=400)
    assert ratio.value == 1.0


def test_one_jump_of_the_ratio_equals_many_steps() -> None:
    stepped, jumped = NewTokenRatio(0.8), NewTokenRatio(0.8)
    for _ in range(123):
        stepped.decay(1)
    jumped.decay(123)
    assert stepped.value == jumped.value


def test_a_client_without_a_limit_may_fill_the_context() -> None:
    assert max_new_tokens(Job("a", 100, 5), 1_000) == 900
    assert max_new_tokens(Job("a", 100, 5, max_tokens=50), 1_000) == 50
    assert max_new_tokens(Job("a", 100, 5, max_tokens=5_000), 1_000) == 900


def budget(free: int = 10_000, reserved: float = 0.0, **settings: int) -> PrefillBudget:
    config = ReplicaConfig(
        "sglang", block_tokens=settings.pop("page", 1), max_num_batched_tokens=100, **settings
    )
    return PrefillBudget(config, free, reserved)


def test_outputs_are_reserved_up_to_4096_tokens() -> None:
    assert budget(free=4_147).admit(50, 100_000, 100_000, 0) == 50
    assert budget(free=4_146).admit(50, 100_000, 100_000, 0) == 0


def test_cached_tokens_that_nobody_else_uses_cost_memory() -> None:
    assert budget(free=101).admit(50, 20, 20, revived_tokens=30) == 50
    tight = budget(free=100)
    assert tight.admit(50, 20, 20, revived_tokens=30) == 0
    assert tight.out_of_tokens


def test_a_long_prompt_is_cut_at_the_page_below_the_chunk_size() -> None:
    assert budget(page=16).admit(500, 1, 1, 0) == 96


def test_a_prompt_in_chunks_goes_on_even_without_memory_for_its_answer() -> None:
    assert budget(free=1_000, reserved=990.5).resume(500, 10) == 9
    assert budget(free=1_000, reserved=2_000).resume(500, 10) == 100


@dataclass
class Waiting:
    job: Job


def order(pool: KvPool, *jobs: Job) -> list[str]:
    queue = [Waiting(job) for job in jobs]
    return [entry.job.job_id for entry in longest_prefix_first(queue, pool)]


def warm_pool() -> KvPool:
    pool = KvPool(10_000, 1, caching=True, merges_duplicates=True)
    holding, job = Holding(), Job("warm", 128, 1, 1, (1, 2), 64)
    pool.grow(holding, 128)
    pool.cover(holding, job, 128)
    pool.release(holding)
    return pool


def test_longest_cached_prefix_first_and_ties_in_order_of_arrival() -> None:
    jobs = [
        Job("none", 128, 1, 1, (7, 8), 64),
        Job("half", 128, 1, 1, (1, 9), 64),
        Job("all", 128, 1, 1, (1, 2), 64),
        Job("other", 128, 1, 1, (5, 6), 64),
    ]
    assert order(warm_pool(), *jobs) == ["all", "half", "none", "other"]


def test_a_twin_of_a_waiting_prompt_is_deferred_until_that_one_is_cached() -> None:
    jobs = [
        Job("first", 128, 1, 1, (7, 8), 64),
        Job("twin", 128, 1, 1, (7, 9), 64),
        Job("other", 128, 1, 1, (5, 6), 64),
    ]
    assert order(warm_pool(), *jobs) == ["first", "other", "twin"]


def test_a_long_queue_is_first_come_first_served() -> None:
    jobs = [Job(str(n), 128, 1, 1, (100 + n, 200 + n), 64) for n in range(128)]
    last = Job("hit", 128, 1, 1, (1, 2), 64)
    assert order(warm_pool(), *jobs, last)[-1] == "hit"
    assert order(warm_pool(), *jobs[1:], last)[0] == "hit"
