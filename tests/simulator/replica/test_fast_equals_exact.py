"""The fast engine is a theorem about the exact one; here it is tested on random small engines."""

from __future__ import annotations

import math
from dataclasses import dataclass, replace
from typing import Literal

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

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


@st.composite
def configs(draw: st.DrawFn, scheduler: SchedulerName) -> ReplicaConfig:
    sglang = scheduler == "sglang"
    block = draw(st.sampled_from([1, 4] if sglang else [4, 16]))
    capacity = draw(st.integers(300, 900))
    watermark = draw(st.sampled_from([0.0, 0.01, 0.1])) if not sglang else 0.0
    chunked = scheduler == "vllm-v1" and draw(st.booleans())
    return ReplicaConfig(
        scheduler=scheduler,
        kv_capacity_tokens=capacity,
        max_context_tokens=draw(st.integers(150, 400)),
        block_tokens=block,
        max_num_seqs=draw(st.sampled_from([2, 5, 16])),
        max_num_batched_tokens=draw(st.integers(32, 120)) if chunked or sglang else 1_000,
        chunked_prefill=chunked,
        prefix_caching=draw(st.booleans()),
        schedule_ahead=0 if scheduler == "vllm-v0" else draw(st.integers(0, 1)),
        reserve_full_isl=draw(st.booleans()),
        watermark=watermark,
        max_num_queued_reqs=draw(st.sampled_from([None, None, 3])),
        queue_order=draw(st.sampled_from(["fcfs", "lpm"])) if sglang else "fcfs",
        max_prefill_tokens=draw(st.sampled_from([64, 16_384])),
        schedule_conservativeness=draw(st.sampled_from([0.001, 0.05, 1.0])),
        decode_graph_sizes=draw(st.sampled_from([(), (1, 2, 4, 8)])),
    )


@st.composite
def jobs(draw: st.DrawFn, number: int) -> Job:
    output = draw(st.one_of(st.integers(1, 3), st.integers(1, 150)))
    width = draw(st.sampled_from([8, 32]))
    prompt = draw(st.integers(1, 200))
    family = draw(st.integers(0, 2))
    shared = draw(st.integers(0, prompt // width))
    hashes = tuple(
        family * 1_000 + index if index < shared else (number + 1) * 10_000 + index
        for index in range(prompt // width)
    )
    return Job(
        job_id=str(number),
        prompt_tokens=prompt,
        output_tokens=output,
        max_tokens=draw(st.sampled_from([0, output, output + 50, 6_000])),
        prefix_hashes=hashes if draw(st.booleans()) else (),
        prefix_block_tokens=width,
        output_hashes=draw(st.sampled_from([(), (5_000 + family, 6_000 + family)])),
    )


@st.composite
def cases(draw: st.DrawFn, scheduler: SchedulerName) -> Case:
    count = draw(st.integers(1, 14))
    todo = tuple(draw(jobs(number)) for number in range(count))
    gap = draw(st.sampled_from([0.0, 0.01, 0.1, 1.0]))
    actions: list[Action] = []
    at = 0.0
    for number in range(count):
        at += gap * draw(st.floats(0.0, 2.0))
        actions.append(Action("submit", at, number))
        kind = draw(st.sampled_from(["", "", "", "cancel", "speed", "look", "look", "kill"]))
        if kind and (kind != "kill" or draw(st.integers(0, 4)) == 0):
            later = at + draw(st.floats(0.0, 3.0))
            value = draw(st.floats(0.3, 3.0)) if kind == "speed" else draw(st.integers(0, count))
            actions.append(Action(kind, later, value))  # type: ignore[arg-type]
    actions.sort(key=lambda action: action.at_s)
    truth = Affine(
        step_s=draw(st.sampled_from([0.0101, 0.0497])),
        context_s=draw(st.sampled_from([0.0, 1.37e-6, 1.1e-4])),
    )
    return Case(draw(configs(scheduler)), truth, todo, tuple(actions))


@dataclass
class Told:
    """Everything a driver could see."""

    events: list[tuple[str, str]]
    times: list[float]
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


def act(replica: Replica, action: Action, todo: list[Job], looks: list[EngineSignals]) -> object:
    if action.kind == "submit":
        return replica.submit(todo[int(action.value)], action.at_s)
    if action.kind == "cancel":
        return replica.cancel(str(int(action.value)), action.at_s)
    if action.kind == "kill":
        return [job.job_id for job in replica.kill(action.at_s)]
    if action.kind == "speed":
        replica.set_speed(action.value, action.at_s)
    else:
        looks.append(replica.snapshot(action.at_s))
        used, free = replica.kv_blocks(action.at_s)
        assert min(used, free) >= 0
        return used + free  # I3: the size of the cache
    return None


def check(case: Case) -> None:
    exact, fast = run(case, exact=True), run(case, exact=False)
    assert fast.events == exact.events
    assert all(
        math.isclose(a, b, rel_tol=0.0, abs_tol=TOLERANCE_S)
        for a, b in zip(fast.times, exact.times, strict=True)
    )
    assert fast.answers == exact.answers
    assert fast.looks == exact.looks
    assert fast.preemptions == exact.preemptions
    for ours, theirs in zip(fast.jobs, exact.jobs, strict=True):
        assert ours.preemptions == theirs.preemptions
        assert ours.cached_tokens == theirs.cached_tokens


relaxed = settings(
    max_examples=150, deadline=None, derandomize=True, suppress_health_check=list(HealthCheck)
)


@relaxed
@given(cases("vllm-v1"))
def test_vllm_v1(case: Case) -> None:
    check(case)


@relaxed
@given(cases("vllm-v0"))
def test_vllm_v0(case: Case) -> None:
    check(case)


@relaxed
@given(cases("sglang"))
def test_sglang(case: Case) -> None:
    check(case)
