"""Random small engines, jobs and interferences, and everything a driver can see of them."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from random import Random
from typing import Literal

from router.domain.state import EngineSignals
from simulator.replica.build import make_replica
from simulator.replica.config import ReplicaConfig, SchedulerName
from simulator.replica.interface import Replica
from simulator.replica.job import Event, Job
from tests.simulator.replica.loads import Affine, drain

ActionKind = Literal["submit", "cancel", "speed", "kill", "look"]
TOLERANCE_S = 1e-6


@dataclass(frozen=True)
class Action:
    """Something done to a replica at a moment; ``value`` is a job number or a factor."""

    kind: ActionKind
    at_s: float
    value: float = 0.0


@dataclass(frozen=True)
class Case:
    config: ReplicaConfig
    truth: Affine
    jobs: tuple[Job, ...]
    actions: tuple[Action, ...]


def random_config(rng: Random, scheduler: SchedulerName) -> ReplicaConfig:
    sglang = scheduler == "sglang"
    chunked = scheduler == "vllm-v1" and rng.random() < 0.7
    return ReplicaConfig(
        scheduler=scheduler,
        # SGLang reserves for answers, so it takes less memory to bring it into trouble.
        kv_capacity_tokens=rng.randint(300, 900 if sglang else 2_500),
        max_context_tokens=rng.randint(150, 600),
        block_tokens=rng.choice([1, 4] if sglang else [4, 16]),
        max_num_seqs=rng.choice([2, 5, 16, 30]),
        max_num_batched_tokens=rng.randint(32, 200) if chunked or sglang else 1_000,
        chunked_prefill=chunked,
        prefix_caching=rng.random() < 0.6,
        schedule_ahead=0 if scheduler == "vllm-v0" else rng.randint(0, 1),
        reserve_full_isl=rng.random() < 0.5,
        watermark=0.0 if sglang else rng.choice([0.0, 0.01, 0.1]),
        max_num_queued_reqs=rng.choice([None, None, 3]),
        queue_order=rng.choice(["fcfs", "lpm"]) if sglang else "fcfs",
        max_prefill_tokens=rng.choice([64, 16_384]),
        schedule_conservativeness=rng.choice([0.001, 0.001, 1.0]),
        decode_graph_sizes=rng.choice([(), (1, 2, 4, 8)]),
    )


def random_job(rng: Random, number: int, *, long_answers: bool) -> Job:
    """Prompts of three families that share their beginnings."""
    output = rng.choice([rng.randint(1, 3), rng.randint(1, 300 if long_answers else 200)])
    prompt = rng.randint(1, 60 if long_answers else 250)
    width, family = rng.choice([8, 32]), rng.randint(0, 2)
    shared = rng.randint(0, prompt // width)
    hashes = tuple(
        family * 1_000 + index if index < shared else (number + 1) * 10_000 + index
        for index in range(prompt // width)
    )
    return Job(
        job_id=str(number),
        prompt_tokens=prompt,
        output_tokens=output,
        max_tokens=rng.choice([0, output, output, output + 50, 6_000]),
        prefix_hashes=hashes if rng.random() < 0.7 else (),
        prefix_block_tokens=width,
        output_hashes=rng.choice([(), (5_000 + family, 6_000 + family)]),
    )


def random_case(rng: Random, scheduler: SchedulerName, most_jobs: int) -> Case:
    count = rng.randint(1, most_jobs)
    gap_s, long_answers = rng.choice([0.0, 0.01, 0.1, 0.5]), rng.random() < 0.5
    jobs = tuple(random_job(rng, number, long_answers=long_answers) for number in range(count))
    actions: list[Action] = []
    at = 0.0
    for number in range(count):
        at += gap_s * rng.random() * 2
        actions.append(Action("submit", at, number))
        kind = rng.choice(["", "", "", "cancel", "speed", "look", "look", "kill"])
        if kind and (kind != "kill" or rng.random() < 0.1):
            value = rng.uniform(0.3, 3.0) if kind == "speed" else rng.randint(0, number)
            actions.append(Action(kind, at + rng.random() * 3, value))  # type: ignore[arg-type]
    actions.sort(key=lambda action: action.at_s)
    truth = Affine(
        step_s=rng.choice([0.0101, 0.0497]), context_s=rng.choice([0.0, 1.37e-6, 1.1e-4])
    )
    return Case(random_config(rng, scheduler), truth, jobs, tuple(actions))


@dataclass
class Told:
    """Everything a driver can see."""

    events: list[tuple[str, str]]
    times_s: list[float]
    answers: list[object]
    looks: list[EngineSignals]
    jobs: list[Job]
    preemptions: int


def run(case: Case, *, exact: bool) -> Told:
    replica = make_replica(case.config, case.truth, exact=exact)
    todo = [replace(job) for job in case.jobs]
    events: list[Event] = []
    answers: list[object] = []
    looks: list[EngineSignals] = []
    for action in case.actions:
        if action.kind != "submit":  # a submission may find events of earlier moments untold
            events += drain(replica, action.at_s)
        answers.append(act(replica, action, todo, looks))
    events += drain(replica)
    assert (replica.running, replica.waiting) == (0, 0)
    assert replica.kv_blocks(1e9)[0] == 0
    return Told(
        [(event.kind, event.job.job_id) for event in events],
        [event.at_s for event in events],
        answers,
        looks,
        todo,
        replica.preemptions,
    )


def act(
    replica: Replica, action: Action, todo: Sequence[Job], looks: list[EngineSignals]
) -> object:
    """Do it; returns what the replica answered."""
    if action.kind == "submit":
        return replica.submit(todo[int(action.value)], action.at_s)
    if action.kind == "cancel":
        return replica.cancel(str(int(action.value)), action.at_s)
    if action.kind == "kill":
        return [job.job_id for job in replica.kill(action.at_s)]
    if action.kind == "speed":
        replica.set_speed(action.value, action.at_s)
        return None
    looks.append(replica.snapshot(action.at_s))
    used, free = replica.kv_blocks(action.at_s)
    assert min(used, free) >= 0
    return used + free  # I3: the size of the cache


def check(case: Case) -> None:
    """Both engines tell a driver the same, times within a microsecond."""
    exact, fast = run(case, exact=True), run(case, exact=False)
    assert fast.events == exact.events
    assert all(
        math.isclose(ours, theirs, rel_tol=0.0, abs_tol=TOLERANCE_S)
        for ours, theirs in zip(fast.times_s, exact.times_s, strict=True)
    )
    assert fast.answers == exact.answers
    assert fast.looks == exact.looks
    assert fast.preemptions == exact.preemptions
    for ours, theirs in zip(fast.jobs, exact.jobs, strict=True):
        assert ours.preemptions == theirs.preemptions
        assert ours.cached_tokens == theirs.cached_tokens
