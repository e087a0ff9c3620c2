"""The fast engine is a theorem about the exact one; here it is tested on random small engines."""

from __future__ import annotations

from random import Random

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from simulator.replica.config import SchedulerName
from tests.simulator.replica.cases import check, random_case, run

SCHEDULERS: list[SchedulerName] = ["vllm-v1", "vllm-v0", "sglang"]

every_scheduler = pytest.mark.parametrize("scheduler", SCHEDULERS)


@every_scheduler
@settings(max_examples=60, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck))
@given(rng=st.randoms(use_true_random=False))
def test_few_jobs(scheduler: SchedulerName, rng: Random) -> None:
    check(random_case(rng, scheduler, most_jobs=8))


@every_scheduler
@pytest.mark.parametrize("block", range(4))
def test_many_jobs(scheduler: SchedulerName, block: int) -> None:
    for seed in range(block * 40, block * 40 + 40):
        check(random_case(Random(seed), scheduler, most_jobs=60))


@pytest.mark.parametrize(
    ("scheduler", "seed"),
    [
        ("sglang", 221),  # a batch that shrank in a run is tried again once, not twice
        ("sglang", 345),
        ("sglang", 1_585),  # retracted jobs queue before those that no plan has seen yet
        ("sglang", 3_565),  # a prompt in chunks finds its next blocks cached meanwhile
        ("vllm-v1", 5_757),
        ("vllm-v1", 8_138),
    ],
)
def test_rare_coincidences(scheduler: SchedulerName, seed: int) -> None:
    """Cases that a slightly wrong fast engine fails, found among thousands it passes."""
    check(random_case(Random(seed), scheduler, most_jobs=60))


@every_scheduler
def test_the_random_engines_do_get_into_trouble(scheduler: SchedulerName) -> None:
    """The tests above would prove little if memory were always ample."""
    preemptions = hits = refused = 0
    for seed in range(160):
        told = run(random_case(Random(seed), scheduler, most_jobs=60), exact=False)
        preemptions += told.preemptions
        hits += sum(job.cached_tokens > 0 for job in told.jobs)
        refused += told.answers.count(False)
    assert preemptions > 20
    assert hits > 100
    assert refused > 100


@pytest.mark.full
@every_scheduler
@pytest.mark.parametrize("block", range(20))
def test_very_many_jobs(scheduler: SchedulerName, block: int) -> None:
    for seed in range(1_000 + block * 150, 1_150 + block * 150):
        check(random_case(Random(seed), scheduler, most_jobs=80))
