"""From a configuration and a truth model to a replica."""

from __future__ import annotations

from router.domain.protocols import PerfModel
from simulator.replica.config import ReplicaConfig
from simulator.replica.exact.engine import ExactEngine
from simulator.replica.exact.sglang import SglangScheduler
from simulator.replica.exact.vllm_v0 import VllmV0Scheduler
from simulator.replica.exact.vllm_v1 import VllmV1Scheduler
from simulator.replica.fast.sglang import FastSglang
from simulator.replica.fast.vllm_v0 import FastVllmV0
from simulator.replica.fast.vllm_v1 import FastVllmV1
from simulator.replica.interface import Replica

FAST_ENGINES = {
    "vllm-v1": FastVllmV1,
    "vllm-v0": FastVllmV0,
    "sglang": FastSglang,
}
EXACT_SCHEDULERS = {
    "vllm-v1": VllmV1Scheduler,
    "vllm-v0": VllmV0Scheduler,
    "sglang": SglangScheduler,
}


def make_replica(
    config: ReplicaConfig, truth: PerfModel, *, exact: bool = False, token_events: bool = False
) -> Replica:
    """One simulated engine.

    Args:
        config: how it is set up.
        truth: how long its iterations really take.
        exact: step through every iteration; the fast engine gives the same times (to 1 µs),
            the same preemptions and the same prefix hits.
        token_events: report every token; needs ``exact``.

    Raises:
        ValueError: every token, but not ``exact``.
    """
    if exact:
        make_scheduler = EXACT_SCHEDULERS[config.scheduler]
        return ExactEngine(config, truth, make_scheduler, token_events=token_events)
    if token_events:
        raise ValueError("only the exact engine reports every token")
    return FAST_ENGINES[config.scheduler](config, truth)
