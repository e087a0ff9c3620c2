"""vLLM V0: prompts first, whole and alone. Every iteration takes one second here."""

from __future__ import annotations

import pytest

from router.domain.errors import ConfigError
from simulator.replica.build import make_replica
from simulator.replica.config import ReplicaConfig
from simulator.replica.interface import Replica
from simulator.replica.job import Job
from tests.simulator.replica.loads import Affine, play, tick


def engine(*, exact: bool, truth: Affine | None = None, **settings: object) -> Replica:
    defaults: dict[str, object] = {
        "scheduler": "vllm-v0",
        "kv_capacity_tokens": 1_600,
        "max_context_tokens": 1_600,
        "max_num_batched_tokens": 1_600,
        "chunked_prefill": False,
        "prefix_caching": False,
        "max_num_seqs": 8,
    }
    config = ReplicaConfig(**{**defaults, **settings})  # type: ignore[arg-type]
    return make_replica(config, truth or tick(), exact=exact)


def test_a_new_prompt_stalls_the_decodes(exact: bool) -> None:
    old, new = Job("old", 50, 5), Job("new", 500, 2)
    play(engine(exact=exact), [(0.0, old), (1.5, new)])
    # Old has 2 tokens at 2; then the whole new prompt runs alone; then both decode.
    assert new.first_token_s == 3.0
    assert new.finished_s == 4.0
    assert old.finished_s == 6.0


def test_a_prompt_alone_costs_no_decode_time(exact: bool) -> None:
    truth = Affine()
    job = Job("a", 700, 2)
    play(engine(exact=exact, truth=truth), [(0.0, job)])
    assert job.first_token_s == pytest.approx(truth.iteration_s(700, 0, 0, 700 * 350))


def test_prompts_that_fit_the_budget_share_an_iteration(exact: bool) -> None:
    first, *others = [Job(str(n), 600, 1) for n in range(4)]
    replica = engine(exact=exact, max_num_batched_tokens=1_600)
    play(replica, [(0.0, first), *((0.5, job) for job in others)])
    # 38 blocks each: two of them fit into the 100 blocks at once.
    assert [job.first_token_s for job in others] == [2.0, 2.0, 3.0]


def test_the_watermark_is_kept_even_by_an_idle_engine(exact: bool) -> None:
    replica = engine(exact=exact, watermark=0.1)
    assert replica.config.longest_job_tokens == 1_440
    job = Job("a", 1_430, 10)
    play(replica, [(0.0, job)])
    assert job.finished_s == 10.0


def test_preempts_when_no_block_is_left_though_none_is_needed(exact: bool) -> None:
    # 800 + 799 tokens take all 100 blocks; V0 asks for a free one all the same.
    old, young = Job("old", 800, 3), Job("young", 799, 2)
    replica = engine(exact=exact)
    play(replica, [(0.0, old), (0.0, young)])
    assert young.preemptions == 1
    assert old.preemptions == 0
    assert old.finished_s is not None
    assert young.finished_s is not None
    assert old.finished_s < young.finished_s


def test_cannot_schedule_ahead() -> None:
    with pytest.raises(ConfigError, match="V0 cannot schedule ahead"):
        engine(exact=True, schedule_ahead=1)


def test_needs_a_budget_for_the_longest_prompt() -> None:
    with pytest.raises(ConfigError, match="without chunked prefill"):
        engine(exact=True, max_num_batched_tokens=512)
