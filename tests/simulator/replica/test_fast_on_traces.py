"""Fast equals exact on real and built-in traces, with the engines of a mixed fleet."""

from __future__ import annotations

import os
from pathlib import Path

import numpy as np
import pytest

from router.domain.fleet import BackendSpec
from router.perf.build import iteration_model
from simulator.replica.build import make_replica
from simulator.replica.config import replica_config
from simulator.replica.job import Job
from simulator.rows import Rows
from simulator.synthetic import builtin_trace
from simulator.traces.columns import Trace
from simulator.traces.read import load_trace
from simulator.traces.transform import apply_max_tokens
from tests.simulator.replica.loads import play

MODEL = "llama-3.1-8b"
FLEET = [
    BackendSpec("sglang on A100", "a100-80", "sglang", MODEL),
    BackendSpec("vLLM on A100", "a100-80", "vllm", MODEL),
    BackendSpec("vLLM on V100", "v100-32", "vllm", MODEL, max_model_len=8_192),
    BackendSpec("V0 on V100", "v100-32", "vllm", MODEL, engine_version="0.8.5"),
    BackendSpec("vLLM on 2 T4", "t4", "vllm", MODEL, tensor_parallel=2),
    BackendSpec("short of memory", "l4", "vllm", MODEL, kv_capacity_tokens=16_000),
    BackendSpec("SGLang, short of memory", "l4", "sglang", MODEL, kv_capacity_tokens=16_000),
]
SHARED = Path(os.environ.get("MOTLEY_SHARED", Path(__file__).resolve().parents[4] / "shared"))


def shared_trace(name: str) -> Trace:
    path = SHARED / "data" / "traces" / name
    if not path.exists():
        pytest.skip(f"{path} is not here; set MOTLEY_SHARED")
    return limited(load_trace(path)[0])


def limited(trace: Trace) -> Trace:
    """Client limits by the rule that the simulator states as its default."""
    return apply_max_tokens(trace, "ceiling", np.random.default_rng(0))


def replayed(
    trace: Trace, spec: BackendSpec, count: int, speedup: float, *, exact: bool
) -> list[Job]:
    replica = make_replica(replica_config(spec), iteration_model(spec), exact=exact)
    rows = Rows(trace, MODEL)
    jobs = [rows.job(i, replica.config.longest_job_tokens) for i in range(count)]
    play(replica, [(trace.arrival_s[i] / speedup, job) for i, job in enumerate(jobs)])
    assert (replica.running, replica.waiting) == (0, 0)
    return jobs


def check(trace: Trace, spec: BackendSpec, count: int, speedup: float) -> None:
    count = min(count, len(trace))
    fast = replayed(trace, spec, count, speedup, exact=False)
    exact = replayed(trace, spec, count, speedup, exact=True)
    for ours, theirs in zip(fast, exact, strict=True):
        assert (ours.preemptions, ours.cached_tokens) == (theirs.preemptions, theirs.cached_tokens)
        if theirs.first_token_s is None:  # too long for this engine
            assert ours.first_token_s is None
        else:
            assert ours.first_token_s == pytest.approx(theirs.first_token_s, rel=0, abs=1e-6)
            assert ours.finished_s == pytest.approx(theirs.finished_s, rel=0, abs=1e-6)


@pytest.fixture(params=FLEET, ids=lambda spec: spec.name)
def spec(request: pytest.FixtureRequest) -> BackendSpec:
    assert isinstance(request.param, BackendSpec)
    return request.param


def test_conversations(spec: BackendSpec) -> None:
    trace = limited(builtin_trace("azure-conv-like", duration_s=60))
    check(trace, spec, count=150, speedup=0.5)


def test_chats_behind_shared_prefixes(spec: BackendSpec) -> None:
    check(limited(builtin_trace("chat-prefix-like", duration_s=120)), spec, count=150, speedup=0.5)


@pytest.mark.parametrize("name", ["azure2023_conv.csv", "azure2023_code.csv"])
def test_azure(spec: BackendSpec, name: str) -> None:
    check(shared_trace(name), spec, count=150, speedup=0.5)


def test_mooncake(spec: BackendSpec) -> None:
    check(shared_trace("mooncake_synthetic.jsonl"), spec, count=80, speedup=0.1)


@pytest.mark.full
@pytest.mark.parametrize(
    "name", ["azure2023_conv.csv", "azure2023_code.csv", "mooncake_synthetic.jsonl"]
)
def test_whole_slices(spec: BackendSpec, name: str) -> None:
    check(shared_trace(name), spec, count=1_500, speedup=0.5)
