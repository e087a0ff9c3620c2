"""vLLM V1, read off iteration by iteration: every iteration takes one second here."""

from __future__ import annotations

import math

import pytest

from simulator.replica.build import make_replica
from simulator.replica.config import ReplicaConfig
from simulator.replica.interface import Replica
from simulator.replica.job import Job
from tests.simulator.replica.loads import Affine, drain, play, tick, trail


def engine(*, exact: bool = True, truth: Affine | None = None, **settings: object) -> Replica:
    defaults: dict[str, object] = {
        "kv_capacity_tokens": 1_600,
        "max_context_tokens": 1_600,
        "max_num_batched_tokens": 100,
        "max_num_seqs": 8,
        "prefix_caching": False,
    }
    config = ReplicaConfig(**{**defaults, **settings})  # type: ignore[arg-type]
    return make_replica(config, truth or tick(), exact=exact)


def test_one_job_takes_one_iteration_per_prompt_chunk_and_per_further_token(exact: bool) -> None:
    job = Job("a", prompt_tokens=250, output_tokens=4)
    events = play(engine(exact=exact), [(0.0, job)])
    # 100 + 100 + 50 prompt tokens; the third iteration gives the first token, three more follow.
    assert trail(events) == [("first_token", "a", 3.0), ("finished", "a", 6.0)]
    assert (job.submitted_s, job.first_token_s, job.finished_s) == (0.0, 3.0, 6.0)


def test_iteration_times_follow_the_truth_model(exact: bool) -> None:
    truth = Affine()
    job = Job("a", prompt_tokens=150, output_tokens=3)
    play(engine(exact=exact, truth=truth), [(0.0, job)])
    first = truth.iteration_s(100, 0, 0, 100 * 50)
    second = truth.iteration_s(50, 0, 0, 50 * (100 + 25))
    assert job.first_token_s == pytest.approx(first + second)
    decodes = truth.iteration_s(0, 1, 151) + truth.iteration_s(0, 1, 152)
    assert job.finished_s == pytest.approx(first + second + decodes)


def test_decodes_go_before_new_prompts_and_share_their_iterations(exact: bool) -> None:
    old, new = Job("old", 50, 10), Job("new", 197, 1)
    events = play(engine(exact=exact), [(0.0, old), (1.5, new)])
    # From t=2 on each iteration has one decode token and up to 99 prompt tokens.
    assert ("first_token", "new", 4.0) in trail(events)
    assert ("finished", "old", 10.0) in trail(events)


def test_schedule_ahead_makes_an_arrival_wait_one_iteration_longer(exact: bool) -> None:
    def ttft(ahead: int) -> float:
        busy, late = Job("busy", 50, 20), Job("late", 50, 1)
        play(engine(exact=exact, schedule_ahead=ahead), [(0.0, busy), (3.5, late)])
        assert late.first_token_s is not None
        return late.first_token_s

    assert ttft(0) == 5.0
    assert ttft(1) == 6.0


def test_an_idle_engine_starts_at_once_even_when_it_schedules_ahead(exact: bool) -> None:
    job = Job("a", 50, 1)
    play(engine(exact=exact, schedule_ahead=1), [(2.5, job)])
    assert job.first_token_s == 3.5


def test_a_stop_token_is_noticed_one_iteration_late_and_a_limit_is_not(exact: bool) -> None:
    def second_ttft(max_tokens: int) -> float:
        first, second = Job("first", 50, 2, max_tokens=max_tokens), Job("second", 50, 1)
        replica = engine(exact=exact, schedule_ahead=1)
        play(replica, [(0.0, first), (2.5, second)])
        assert second.first_token_s is not None
        return second.first_token_s

    # The first ends at 2.0. Its limit known, the engine is idle at 2.5; else it computes a third
    # token for nothing until 3.0.
    assert second_ttft(max_tokens=2) == 3.5
    assert second_ttft(max_tokens=100) == 4.0


def test_max_num_seqs_limits_the_batch(exact: bool) -> None:
    jobs = [Job(str(n), 10, 5) for n in range(3)]
    events = play(engine(exact=exact, max_num_seqs=2), [(0.0, job) for job in jobs])
    # The first job starts alone; the second joins at 1; the third takes the slot of the first.
    assert [job.first_token_s for job in jobs] == [1.0, 2.0, 6.0]
    assert len(events) == 6


def test_a_prompt_that_does_not_fit_blocks_the_ones_behind_it(exact: bool) -> None:
    holder, large, small = Job("holder", 800, 20), Job("large", 900, 1), Job("small", 10, 1)
    play(
        engine(exact=exact, max_num_batched_tokens=1_000),
        [(0.0, holder), (0.5, large), (0.6, small)],
    )
    assert holder.finished_s == 20.0
    assert large.first_token_s == 21.0
    assert small.first_token_s == 21.0


def test_without_the_full_prompt_reservation_the_first_chunk_is_enough(exact: bool) -> None:
    def ttft(reserve: bool) -> float:
        holder, large = Job("holder", 700, 2), Job("large", 900, 1)
        replica = engine(exact=exact, reserve_full_isl=reserve, max_num_batched_tokens=700)
        play(replica, [(0.0, holder), (0.5, large)])
        assert large.first_token_s is not None
        return large.first_token_s

    # 44 blocks for the holder until 2; 44 for the first 699 tokens of the newcomer, 57 for all.
    assert ttft(True) == 4.0
    assert ttft(False) == 3.0


def test_the_watermark_is_kept_free_while_something_runs(exact: bool) -> None:
    def ttft(watermark: float) -> float:
        holder, late = Job("holder", 800, 10), Job("late", 720, 1)
        replica = engine(exact=exact, watermark=watermark, max_num_batched_tokens=1_000)
        play(replica, [(0.0, holder), (0.5, late)])
        assert late.first_token_s is not None
        return late.first_token_s

    # 100 blocks: 51 for the holder, 45 for the newcomer; a tenth of all must stay free.
    assert ttft(0.0) == 2.0
    assert ttft(0.1) == 11.0


def test_the_youngest_is_preempted_recomputed_and_finishes(exact: bool) -> None:
    old, young = Job("old", 790, 100), Job("young", 790, 100)
    replica = engine(exact=exact, max_num_batched_tokens=2_000)
    events = play(replica, [(0.0, old), (0.0, young)])
    # 100 blocks, 50 each: the eleventh token of the older one (its 801st) needs the 51st block.
    # It runs from 0, the younger from 1; at 11 the older has 11 tokens, the younger 10.
    assert replica.preemptions == young.preemptions == 1
    assert old.preemptions == 0
    assert old.finished_s == 100.0
    # The younger one's first token came at 2. Its 800 tokens are computed again from 100 on.
    assert young.first_token_s == 2.0
    assert young.finished_s == 100.0 + 90.0
    assert [event.kind for event in events].count("first_token") == 2


def test_a_full_queue_answers_503(exact: bool) -> None:
    replica = engine(exact=exact, max_num_seqs=1, max_num_queued_reqs=1)
    assert replica.submit(Job("runs", 10, 5), 0.0)
    assert replica.submit(Job("waits", 10, 5), 0.0)
    assert not replica.submit(Job("refused", 10, 5), 0.1)
    assert {event.job.job_id for event in drain(replica)} == {"runs", "waits"}


def test_a_job_that_can_never_fit_is_aborted_not_hung(exact: bool) -> None:
    replica = engine(exact=exact)
    assert replica.submit(Job("giant", 1_595, 6), 3.0)
    assert replica.next_event_s() == 3.0
    assert trail(replica.advance(3.0)) == [("aborted", "giant", 3.0)]
    assert replica.next_event_s() == math.inf
    assert (replica.running, replica.waiting) == (0, 0)
