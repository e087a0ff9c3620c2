"""What holds for every engine, whichever scheduler it runs."""

from __future__ import annotations

import math
import random
from collections import Counter
from dataclasses import dataclass, field, replace

import pytest

from router.domain.errors import WorkloadError
from simulator.replica.build import make_replica
from simulator.replica.config import ReplicaConfig
from simulator.replica.interface import Replica
from simulator.replica.job import Job
from tests.simulator.replica.loads import Affine, drain, play, tick, trail

VLLM = ReplicaConfig(
    kv_capacity_tokens=3_200,
    max_context_tokens=1_000,
    max_num_batched_tokens=256,
    max_num_seqs=12,
)
CONFIGS = {
    "vllm-v1": VLLM,
    "vllm-v1-ahead": replace(VLLM, schedule_ahead=1),
    "vllm-v0": replace(
        VLLM,
        scheduler="vllm-v0",
        chunked_prefill=False,
        prefix_caching=False,
        max_num_batched_tokens=2_048,
        watermark=0.01,
    ),
    "sglang": replace(VLLM, scheduler="sglang", block_tokens=1),
    "sglang-ahead": replace(VLLM, scheduler="sglang", block_tokens=1, schedule_ahead=1),
}


@pytest.fixture(params=list(CONFIGS))
def config(request: pytest.FixtureRequest) -> ReplicaConfig:
    return CONFIGS[str(request.param)]


@dataclass(frozen=True)
class Watched(Affine):
    """A truth model that remembers what it was asked."""

    asked: list[tuple[int, int, float]] = field(default_factory=list)
    spent: list[float] = field(default_factory=list)

    def iteration_s(
        self,
        prefill_tokens: int,
        decode_seqs: int,
        context_tokens: float,
        prefill_pairs: float = 0.0,
    ) -> float:
        seconds = super().iteration_s(prefill_tokens, decode_seqs, context_tokens, prefill_pairs)
        self.asked.append((prefill_tokens, decode_seqs, context_tokens))
        self.spent.append(seconds)
        return seconds


def load(count: int = 40, gap_s: float = 0.1, seed: int = 1) -> list[tuple[float, Job]]:
    """More than the engine can hold, so that queues and memory fill."""
    rng = random.Random(seed)
    arrivals, at = [], 0.0
    for number in range(count):
        at += rng.expovariate(1 / gap_s)
        prompt, output = rng.randint(1, 600), rng.randint(1, 200)
        hashes = tuple(range(rng.randint(0, prompt // 64)))
        arrivals.append((at, Job(str(number), prompt, output, 256, hashes, 64)))
    return arrivals


def test_every_token_asked_for_comes_out_once(config: ReplicaConfig) -> None:  # I9
    arrivals = load()
    replica = make_replica(config, Affine(), exact=True, token_events=True)
    events = play(replica, arrivals)
    tokens = Counter(event.job.job_id for event in events if event.kind in ("first_token", "token"))
    assert tokens == {job.job_id: job.output_tokens for _, job in arrivals}
    ends = [event.job.job_id for event in events if event.kind == "finished"]
    assert sorted(ends) == sorted(job.job_id for _, job in arrivals)


def test_times_are_in_order(config: ReplicaConfig, exact: bool) -> None:  # I4
    arrivals = load()
    events = play(make_replica(config, Affine(), exact=exact), arrivals)
    assert [event.at_s for event in events] == sorted(event.at_s for event in events)
    for at, job in arrivals:
        assert job.first_token_s is not None
        assert job.finished_s is not None
        assert at == job.submitted_s < job.first_token_s <= job.finished_s
        assert (job.first_token_s == job.finished_s) == (job.output_tokens == 1)


def test_an_engine_with_work_never_rests(config: ReplicaConfig) -> None:
    truth = Watched()
    arrivals = [(0.0, job) for _, job in load()]
    replica = make_replica(config, truth, exact=True)
    events = play(replica, arrivals)
    wasted = truth.spent[-1] if config.schedule_ahead else 0.0
    # The last iteration of an engine that plans ahead only finds out that it was the last.
    assert events[-1].at_s + wasted == pytest.approx(sum(truth.spent))


def test_no_iteration_exceeds_the_token_budget(config: ReplicaConfig) -> None:
    truth = Watched()
    play(make_replica(config, truth, exact=True), load())
    budget = config.max_num_batched_tokens
    assert max(prefill + decode for prefill, decode, _ in truth.asked) <= budget
    assert max(decode for _, decode, _ in truth.asked) <= config.max_num_seqs
    if config.scheduler != "vllm-v1":  # prompts run alone
        assert all(not (prefill and decode) for prefill, decode, _ in truth.asked)


def test_first_come_first_served(exact: bool) -> None:
    """Without prefix hits or preemption nobody overtakes on the way to the first token."""
    for config in CONFIGS.values():
        roomy = replace(config, kv_capacity_tokens=1_000_000, prefix_caching=False)
        arrivals = load()
        play(make_replica(roomy, Affine(), exact=exact), arrivals)
        firsts = [job.first_token_s or 0.0 for _, job in arrivals]
        assert firsts == sorted(firsts)


def test_memory_is_conserved_and_returned(config: ReplicaConfig, exact: bool) -> None:  # I3
    replica = make_replica(config, Affine(), exact=exact)
    for at, job in load():
        drain(replica, at)
        replica.submit(job, at)
        used, free = replica.kv_blocks(at)
        assert used + free == config.total_blocks
        assert min(used, free) >= 0
    drain(replica)
    assert replica.kv_blocks(1e6) == (0, config.total_blocks)


def test_a_snapshot_equals_counting(config: ReplicaConfig, exact: bool) -> None:
    """Between events, from outside: running and waiting make up all that is inside."""
    replica = make_replica(config, Affine(), exact=exact)
    inside: set[str] = set()
    for at, job in load():
        for event in drain(replica, at):
            if event.kind == "finished":
                inside.discard(event.job.job_id)
        replica.submit(job, at)
        inside.add(job.job_id)
        signals = replica.snapshot(at)
        assert signals.observed_s == at
        assert (signals.running or 0) + (signals.waiting or 0) == len(inside)
        assert signals.kv_usage == replica.kv_blocks(at)[0] / config.total_blocks
        assert signals.kv_capacity_tokens == config.total_blocks * config.block_tokens
        assert signals.preemptions == replica.preemptions


def test_kv_use_of_one_job_is_its_tokens_in_blocks(exact: bool) -> None:
    replica = make_replica(replace(VLLM, prefix_caching=False), tick(), exact=exact)
    replica.submit(Job("a", 300, 60), 0.0)
    # Iterations: prompt 0-1 (256 tokens), 1-2 (44), then one token each from 2 on.
    for now in (0.5, 1.5, 2.5, 6.5, 21.5, 40.5):
        computed = 256 if now < 1 else 300 if now < 2 else 300 + int(now) - 1
        assert replica.kv_blocks(now)[0] == -(-computed // 16)


def test_same_input_same_output(config: ReplicaConfig, exact: bool) -> None:  # I5
    def once() -> list[tuple[str, str, float]]:
        events = play(make_replica(config, Affine(), exact=exact), load())
        return [(event.kind, event.job.job_id, event.at_s) for event in events]

    assert once() == once()


def test_looking_changes_nothing(config: ReplicaConfig, exact: bool) -> None:
    def events(*, look: bool) -> list[tuple[str, str, float]]:
        replica = make_replica(config, Affine(), exact=exact)
        heard = []
        for at, job in load():
            heard += drain(replica, at)
            if look:
                replica.snapshot(at)
                replica.advance(at)
            replica.submit(job, at)
        return trail(heard + drain(replica))

    assert events(look=True) == events(look=False)


def test_next_event_is_never_in_the_past(config: ReplicaConfig, exact: bool) -> None:
    replica = make_replica(config, Affine(), exact=exact)
    assert replica.next_event_s() == math.inf
    for at, job in load():
        drain(replica, at)
        replica.submit(job, at)
        assert at < replica.next_event_s() < math.inf


def test_events_of_the_past_are_told_at_once_when_the_driver_is_late(exact: bool) -> None:
    replica = make_replica(VLLM, tick(), exact=exact)
    replica.submit(Job("a", 100, 2), 0.0)
    replica.submit(Job("b", 100, 1), 10.0)  # nobody advanced in between
    assert replica.next_event_s() == 1.0
    assert trail(replica.advance(10.0)) == [("first_token", "a", 1.0), ("finished", "a", 2.0)]


def test_cancelling_a_waiting_job_lets_the_next_one_in(exact: bool) -> None:
    replica = make_replica(replace(VLLM, max_num_seqs=1), tick(), exact=exact)
    running, gone, after = Job("running", 10, 5), Job("gone", 10, 50), Job("after", 10, 1)
    for job in (running, gone, after):
        replica.submit(job, 0.0)
    assert replica.cancel("gone", 2.5)
    drain(replica)
    assert gone.finished_s is None
    assert after.first_token_s == 6.0


def test_cancelling_a_running_job_frees_its_place_when_the_iteration_ends(exact: bool) -> None:
    replica = make_replica(replace(VLLM, max_num_seqs=1), tick(), exact=exact)
    gone, after = Job("gone", 10, 500), Job("after", 10, 1)
    replica.submit(gone, 0.0)
    replica.submit(after, 0.0)
    drain(replica, 2.2)
    assert replica.cancel("gone", 2.5)
    assert (replica.running, replica.waiting) == (1, 1)
    drain(replica)
    assert gone.finished_s is None
    assert after.first_token_s == 4.0
    assert not replica.cancel("gone", 5.0)
    assert not replica.cancel("never", 5.0)


def test_a_slow_engine_takes_as_many_times_longer_from_the_next_iteration_on(exact: bool) -> None:
    replica = make_replica(VLLM, tick(), exact=exact)
    job = Job("a", 10, 10)
    replica.submit(job, 0.0)
    drain(replica, 3.2)
    replica.set_speed(3.0, 3.5)
    drain(replica, 11.0)
    replica.set_speed(1.0, 11.5)
    drain(replica)
    # 4 tokens until 4; at 7, 10 and 13 three slow ones; three more at full speed.
    assert job.finished_s == 16.0


def test_a_killed_engine_loses_its_jobs_and_its_cache(exact: bool) -> None:
    replica = make_replica(replace(VLLM, max_num_seqs=1), tick(), exact=exact)
    hashes = (1, 2)
    play(replica, [(0.0, Job("warm", 128, 1, 1, hashes, 64))])
    jobs = [Job("running", 128, 50, 50, hashes, 64), Job("waiting", 10, 5)]
    for job in jobs:
        replica.submit(job, 10.0)
    assert jobs[0].cached_tokens == 112
    assert replica.kill(12.5) == jobs
    assert (replica.running, replica.waiting) == (0, 0)
    assert replica.next_event_s() == 11.0  # the first token was out before
    assert trail(replica.advance(12.5)) == [("first_token", "running", 11.0)]
    assert replica.next_event_s() == math.inf
    cold = Job("running", 128, 1, 1, hashes, 64)
    play(replica, [(20.0, cold)])
    assert cold.cached_tokens == 0
    assert cold.first_token_s == 21.0


def test_prefix_hit_ratio_is_unknown_before_the_first_look_up(exact: bool) -> None:
    replica = make_replica(VLLM, tick(), exact=exact)
    assert replica.snapshot(0.0).prefix_hit_ratio is None
    arrivals = [(10.0 * n, Job(str(n), 128, 1, 1, (1, 2), 64)) for n in range(2)]
    play(replica, arrivals)
    assert replica.snapshot(30.0).prefix_hit_ratio == pytest.approx(112 / 256)


@pytest.mark.parametrize(
    ("job", "message"),
    [
        (Job("x", 0, 1), "0 prompt and 1 output"),
        (Job("x", 1, 0), "1 prompt and 0 output"),
        (Job("x", 1, 1, prefix_hashes=(1,)), "without prefix_block_tokens"),
        (Job("same", 1, 1), "already in this replica"),
    ],
)
def test_jobs_that_make_no_sense_are_refused(exact: bool, job: Job, message: str) -> None:
    replica = make_replica(VLLM, tick(), exact=exact)
    replica.submit(Job("same", 10, 10), 0.0)
    with pytest.raises(WorkloadError, match=message):
        replica.submit(job, 0.5)


def test_only_the_exact_engine_reports_every_token() -> None:
    with pytest.raises(ValueError, match="only the exact engine"):
        make_replica(VLLM, tick(), token_events=True)


def test_cuda_graphs_pad_a_decode_batch_to_the_next_captured_size(exact: bool) -> None:
    truth = Affine(prefill_s=0.0, context_s=0.0, pair_s=0.0)

    def second_token(sizes: tuple[int, ...]) -> float:
        replica: Replica = make_replica(replace(VLLM, decode_graph_sizes=sizes), truth, exact=exact)
        jobs = [Job(str(n), 10, 4) for n in range(3)]
        play(replica, [(0.0, job) for job in jobs])
        assert jobs[2].finished_s is not None
        return jobs[2].finished_s

    # The first starts alone and ends one iteration before the other two: batches of 1 with
    # prompts, 3, 3, and 2 at last.
    step, seq = truth.step_s, truth.seq_s
    assert second_token(()) == pytest.approx(5 * step + (1 + 3 + 3 + 2) * seq)
    assert second_token((1, 4)) == pytest.approx(5 * step + (1 + 4 + 4 + 4) * seq)
    assert second_token((1, 2)) == pytest.approx(5 * step + (1 + 3 + 3 + 2) * seq)
