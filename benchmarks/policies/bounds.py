"""How low a P99 could be at all: what no router and what a clairvoyant one would get.

Two bounds, told beside Motley's own figures. ``ALONE``: every request by itself on the idle card
that serves it fastest, by the simulator's truth, with all of its prompt cached that anybody ever
had; nobody can beat it, and where requests must queue or share nobody comes near. ``CLAIRVOYANT``:
Motley's own rule told every output length, every true cost and every engine's state as it is; it
knows nothing of what will arrive, and its rule is not the best there is, so it is no limit but what
better knowledge alone would bring.
"""

from __future__ import annotations

import math

import numpy as np

from router.config.load import MotleyConfig
from router.domain.fleet import BackendSpec
from router.domain.protocols import PerfModel
from simulator.replica.build import make_replica
from simulator.replica.config import ReplicaConfig, replica_config
from simulator.replica.interface import Replica
from simulator.replica.job import Job
from simulator.results import Floats
from simulator.rows import Rows
from simulator.traces.columns import Trace

ALONE, CLAIRVOYANT = "alone", "clairvoyant"
ORACLE = (("oracle", True),)


def alone(config: MotleyConfig, trace: Trace) -> tuple[Floats, Floats]:
    """TTFT and E2E of every request, each the least over idle cards of the fleet.

    Returns:
        Two columns of seconds; infinity where no card can serve the request.
    """
    rows = Rows(trace, config.fleet.backends[0].model, config.aliases)
    kinds = {_kind(spec): spec for spec in config.fleet.backends}
    ttft, e2e = np.full(len(trace), np.inf), np.full(len(trace), np.inf)
    for spec in kinds.values():
        engine = replica_config(spec, hardware=config.hardware)
        truth = config.hardware.iteration_model(spec)
        seen: set[int] = set()
        for i in range(len(trace)):
            job = rows.job(i, engine.longest_job_tokens)
            cached = _known_blocks(job, seen)
            if trace.input_tokens[i] < engine.longest_job_tokens:
                first_s, last_s = _served(engine, truth, job, cached)
                ttft[i], e2e[i] = min(ttft[i], first_s), min(e2e[i], last_s)
            seen.update(job.prefix_hashes, job.output_hashes)
    return ttft, e2e


def _kind(spec: BackendSpec) -> tuple[str, str, int, str]:
    return spec.gpu, spec.engine, spec.tensor_parallel, spec.model


def _known_blocks(job: Job, seen: set[int]) -> int:
    blocks = 0
    while blocks < len(job.prefix_hashes) and job.prefix_hashes[blocks] in seen:
        blocks += 1
    return blocks


def _served(
    config: ReplicaConfig, truth: PerfModel, job: Job, cached_blocks: int
) -> tuple[float, float]:
    """Seconds to its first and to its last token on an idle engine that has so many blocks."""
    replica, now = make_replica(config, truth), 0.0
    if cached_blocks:
        block = job.prefix_block_tokens
        hashes = job.prefix_hashes[:cached_blocks]
        now = _run(replica, Job("before", cached_blocks * block, 1, 1, hashes, block), now)
    _run(replica, job, now)
    if job.first_token_s is None or job.finished_s is None:
        return math.inf, math.inf
    return job.first_token_s - now, job.finished_s - now


def _run(replica: Replica, job: Job, now: float) -> float:
    """Run one job to its end; returns when the engine is idle again."""
    replica.submit(job, now)
    while (next_s := replica.next_event_s()) < math.inf:
        now = next_s
        replica.advance(now)
    return now
