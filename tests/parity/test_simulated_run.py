"""A simulated day with everything going wrong replays byte for byte, from its log alone."""

from __future__ import annotations

from collections import Counter

import msgspec
import pytest

from router.config.build import rebuild_dispatcher
from router.config.load import load_config
from router.log_replay import replay
from simulator.faults import Fault
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.synthetic import builtin_trace

FLEET = {
    "backends": [
        {"gpu": "a100-80", "count": 2, "engine": "sglang", "model": "llama-3.1-8b"},
        {"gpu": "v100-32", "model": "llama-3.1-8b"},
        {"gpu": "t4", "count": 2, "tensor_parallel": 2, "model": "llama-3.1-8b"},
    ],
    "reliability": {"queue_size": 50, "queue_timeout_s": 5.0},
}
FAULTS = [
    Fault(at_s=5.0, backend="a100-80-1", kind="join"),
    Fault(at_s=8.0, backend="t4-0", kind="slow", factor=3.0, for_s=20.0),
    Fault(at_s=12.0, backend="a100-80-0", kind="kill", for_s=8.0),
    Fault(at_s=15.0, backend="v100-32-0", kind="drain", for_s=10.0),
    Fault(at_s=20.0, backend="t4-1", kind="error", for_s=5.0),
]


@pytest.mark.parametrize("policy", ["motley", "least-request", "llm-d-predicted-latency"])
def test_faults_joins_and_wrong_beliefs_included(policy: str):
    log: list[bytes] = []
    run_policy(
        builtin_trace("azure-conv-like", duration_s=40.0, seed=1),
        load_config(FLEET),
        policy,
        ReplayOptions(seed=3, model_error=0.3),
        faults=FAULTS,
        log=log.append,
    )
    calls = Counter(msgspec.json.decode(line)["call"] for line in log)
    happened = {"dispatch", "redispatch", "add_backend", "scrape", "correct", "complete"}
    assert happened <= set(calls)
    assert replay(log, rebuild_dispatcher) == len(log) - 1
