"""SGLang: prefill first, output reservation, retraction. Every iteration takes one second here."""

from __future__ import annotations

import pytest

from simulator.replica.build import make_replica
from simulator.replica.config import ReplicaConfig
from simulator.replica.interface import Replica
from simulator.replica.job import Job
from tests.simulator.replica.loads import Affine, play, tick


def engine(*, exact: bool, truth: Affine | None = None, **settings: object) -> Replica:
    defaults: dict[str, object] = {
        "scheduler": "sglang",
        "kv_capacity_tokens": 1_000,
        "max_context_tokens": 999,
        "block_tokens": 1,
        "max_num_batched_tokens": 100,
        "max_num_seqs": 64,
    }
    config = ReplicaConfig(**{**defaults, **settings})  # type: ignore[arg-type]
    return make_replica(config, truth or tick(), exact=exact)


def test_prefill_runs_alone_and_stalls_the_decodes(exact: bool) -> None:
    old, new = Job("old", 50, 5, max_tokens=5), Job("new", 250, 2, max_tokens=2)
    play(engine(exact=exact), [(0.0, old), (1.5, new)])
    # Old has 2 tokens at 2; three chunks of the new prompt until 5; both decode from there.
    assert new.first_token_s == 5.0
    assert new.finished_s == 6.0
    assert old.finished_s == 8.0


def test_overlap_makes_an_arrival_wait_one_iteration_longer(exact: bool) -> None:
    def ttft(ahead: int) -> float:
        busy, late = Job("busy", 50, 20, max_tokens=20), Job("late", 50, 1, max_tokens=1)
        play(engine(exact=exact, schedule_ahead=ahead), [(0.0, busy), (3.5, late)])
        assert late.first_token_s is not None
        return late.first_token_s

    assert ttft(0) == 5.0
    assert ttft(1) == 6.0


def test_one_batch_takes_several_prompts_and_the_beginning_of_the_next(exact: bool) -> None:
    first = Job("first", 100, 1, max_tokens=1)
    a, b, c = (Job(name, 60, 1, max_tokens=1) for name in "abc")
    play(engine(exact=exact), [(0.0, first), (0.1, a), (0.2, b), (0.3, c)])
    # 60 + 40 of a and b, then the other 20 of b with c.
    assert [job.first_token_s for job in (a, b, c)] == [2.0, 3.0, 3.0]


def test_max_prefill_tokens_limits_the_prompts_of_a_batch(exact: bool) -> None:
    first = Job("first", 10, 1, max_tokens=1)
    a, b = (Job(name, 30, 1, max_tokens=1) for name in "ab")
    play(engine(exact=exact, max_prefill_tokens=50), [(0.0, first), (0.1, a), (0.2, b)])
    assert [job.first_token_s for job in (a, b)] == [2.0, 3.0]


def test_admission_reserves_by_the_clients_limit(exact: bool) -> None:
    def ttft(max_tokens: int) -> float:
        holder = Job("holder", 100, 10, max_tokens=10)
        late = Job("late", 100, 10, max_tokens=max_tokens)
        play(engine(exact=exact), [(0.0, holder), (0.5, late)])
        assert late.first_token_s is not None
        return late.first_token_s

    # 1000 tokens, 100 held and 0.7 * 9 reserved for the holder: 793.7 are left for the answer.
    assert ttft(793) == 2.0
    # One more does not fit until the holder ends at 10; the decode step in which its end is
    # noticed has nobody left, so the newcomer starts then.
    assert ttft(794) == 11.0


def test_a_full_batch_is_not_tried_again_before_it_shrinks(exact: bool) -> None:
    holder = Job("holder", 100, 200, max_tokens=800)
    short = Job("short", 10, 50, max_tokens=50)
    late = Job("late", 200, 1, max_tokens=150)
    replica = engine(exact=exact)
    play(replica, [(0.0, holder), (0.0, short), (4.5, late)])
    # At 5, 116 tokens are held and 0.697 * (796 + 46) reserved: 297 are left for 200 + 150. The
    # reservation falls, but the newcomer is not tried again before the short one has ended at 51
    # and a decode step has noticed.
    assert short.finished_s == 51.0
    assert late.first_token_s == 54.0


def test_the_reservation_shrinks_while_all_goes_well(exact: bool) -> None:
    def ttft(arrival: float) -> float:
        holder = Job("holder", 100, 700, max_tokens=800)
        late = Job("late", 90, 1, max_tokens=50)
        play(engine(exact=exact, max_num_batched_tokens=1_000), [(0.0, holder), (arrival, late)])
        assert late.first_token_s is not None
        return late.first_token_s - arrival

    # 0.7 * 799 at the start, nothing like it after 400 decode steps.
    assert ttft(400.5) == 1.5
    assert ttft(0.5) == 1.5


def test_retracts_the_least_advanced_and_always_keeps_one(exact: bool) -> None:
    settings = {"schedule_conservativeness": 0.01, "kv_capacity_tokens": 300}
    old = Job("old", 100, 80, max_tokens=80)
    young = Job("young", 100, 80, max_tokens=80)
    replica = engine(exact=exact, **settings)
    play(replica, [(0.0, old), (10.5, young)])
    assert replica.preemptions == young.preemptions == 1
    assert old.preemptions == 0
    assert old.finished_s is not None
    assert young.finished_s is not None
    assert old.finished_s < young.finished_s


def test_the_longest_prompt_goes_first_among_the_least_advanced(exact: bool) -> None:
    replica = engine(exact=exact, schedule_conservativeness=0.01, kv_capacity_tokens=340)
    short, long_ = Job("short", 40, 90, max_tokens=90), Job("long", 60, 90, max_tokens=90)
    other = Job("other", 40, 90, max_tokens=90)
    play(replica, [(0.0, Job("first", 100, 1, max_tokens=1))])
    play(replica, [(10.0, short), (10.0, long_), (10.0, other)])
    assert long_.preemptions > 0
    assert short.preemptions == 0


def test_an_answer_is_cached_for_the_next_turn(exact: bool) -> None:
    turn = Job("turn", 100, 60, 60, (1, 2), 50, output_hashes=(3,))
    again = Job("again", 200, 1, 1, (1, 2, 3, 4), 50)
    play(engine(exact=exact), [(0.0, turn), (100.0, again)])
    assert again.cached_tokens == 150


def test_longest_cached_prefix_goes_first(exact: bool) -> None:
    def order(queue_order: str) -> list[str]:
        replica = engine(exact=exact, queue_order=queue_order)
        warm = Job("warm", 64, 1, 1, (1, 2), 32)
        busy = Job("busy", 200, 1, 1)
        cold = Job("cold", 100, 1, 1, (7, 8, 9), 32)
        hit = Job("hit", 64, 1, 1, (1, 2), 32)
        play(replica, [(0.0, warm), (10.0, busy), (10.1, cold), (10.2, hit)])
        assert cold.first_token_s is not None
        assert hit.first_token_s is not None
        return ["hit", "cold"] if hit.first_token_s < cold.first_token_s else ["cold", "hit"]

    assert order("lpm")[0] == "hit"
    assert order("fcfs")[0] == "cold"


@pytest.mark.parametrize("ahead", [0, 1])
def test_a_whole_prompt_in_the_cache_still_computes_its_last_token(exact: bool, ahead: int) -> None:
    first, second = (Job(name, 64, 2, 2, (1, 2), 32) for name in ("first", "second"))
    play(engine(exact=exact, schedule_ahead=ahead), [(0.0, first), (50.0, second)])
    assert second.cached_tokens == 63
    assert second.first_token_s == 51.0
