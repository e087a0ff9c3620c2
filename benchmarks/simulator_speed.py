"""How fast the simulator is: requests per CPU-second, and fast against exact in the same run.

First the engines alone, fed round robin by a bare event loop: the fast engine on the whole
workload, then both engines on the same part of it, as a ratio, with the largest difference in
any time to first token or finish. Then the whole replay: trace, dispatcher, policy, engines and
one row per request. CPU time of this process, one run each; a busy machine slows all of them.

Traces are looked for in ``../shared/data/traces`` (or ``$MOTLEY_SHARED``); built-in workloads of
the same kind stand in for those that are not there.
"""

from __future__ import annotations

import argparse
import heapq
import math
import os
import resource
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from router.config.load import load_config
from router.domain.fleet import BackendSpec
from router.perf.build import iteration_model
from simulator.options import ReplayOptions
from simulator.replica.build import make_replica
from simulator.replica.config import replica_config
from simulator.replica.interface import Replica
from simulator.replica.job import Job
from simulator.rows import Rows
from simulator.run import run_policy
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord
from simulator.workload import TraceSpec, build_trace

MODEL = "llama-3.1-8b"
GPU = "a100-80"
ROOT = Path(__file__).resolve().parents[1]
LONG_ANSWER_TOKENS = 2_465
"""Mean answer of a reasoning model; lengths are log-normal with sigma 0.8."""


@dataclass(frozen=True)
class Workload:
    """A trace, and how much of it both engines replay for the ratio."""

    name: str
    trace: Trace
    compared: int


@dataclass(frozen=True)
class Fed:
    """One run of the engines alone."""

    cpu_s: float
    jobs: list[Job]


def shared(name: str) -> Path:
    return Path(os.environ.get("MOTLEY_SHARED", ROOT.parent / "shared")) / "data/traces" / name


def trace_of(file: str, builtin: str, load: float) -> tuple[str, Trace]:
    path = shared(file)
    source = str(path) if path.exists() else builtin
    trace, _ = build_trace(TraceSpec(source=source, rate_scale=load), seed=0)
    return path.stem if path.exists() else builtin, trace


def long_answers(count: int, per_s: float) -> Trace:
    rng = np.random.default_rng(0)
    arrivals = rng.exponential(1 / per_s, count).cumsum().tolist()
    answers = rng.lognormal(math.log(LONG_ANSWER_TOKENS) - 0.32, 0.8, count).tolist()
    records = (
        TraceRecord(arrival_s=at, input_tokens=300, output_tokens=1 + int(tokens))
        for at, tokens in zip(arrivals, answers, strict=True)
    )
    return Trace("long answers").extend(records)


def workloads(load: float) -> Iterator[Workload]:
    yield Workload(*trace_of("azure2023_conv.csv", "azure-conv-like", load), compared=4_000)
    yield Workload("long answers", long_answers(2_000, 2.0), compared=300)
    yield Workload(*trace_of("mooncake_synthetic.jsonl", "chat-prefix-like", 1.0), compared=1_000)


def feed(trace: Trace, count: int, replicas: Sequence[Replica]) -> Fed:
    """Round robin over the engines, events from a heap: as little as a driver can do."""
    rows = Rows(trace, MODEL)
    longest = replicas[0].config.longest_job_tokens
    jobs = [rows.job(i, longest) for i in range(count)]
    began_s = time.process_time()
    due: list[tuple[float, int]] = []
    next_s = [math.inf] * len(replicas)

    def look(k: int) -> None:
        at = replicas[k].next_event_s()
        if at != next_s[k]:
            next_s[k] = at
            heapq.heappush(due, (at, k))

    def run_to(now: float) -> None:
        while due and due[0][0] <= now and due[0][0] < math.inf:
            at, k = heapq.heappop(due)
            if at == next_s[k]:
                next_s[k] = math.inf
                replicas[k].advance(at)
                look(k)

    for i, job in enumerate(jobs):
        run_to(trace.arrival_s[i])
        replicas[i % len(replicas)].submit(job, trace.arrival_s[i])
        look(i % len(replicas))
    run_to(math.inf)
    return Fed(time.process_time() - began_s, jobs)


def engines(count: int, engine: str, *, exact: bool) -> list[Replica]:
    spec = BackendSpec("any", GPU, engine, MODEL)  # type: ignore[arg-type]
    config, truth = replica_config(spec), iteration_model(spec)
    return [make_replica(config, truth, exact=exact) for _ in range(count)]


def largest_difference_s(fast: Fed, exact: Fed) -> float:
    pairs = [
        (ours, theirs)
        for mine, other in zip(fast.jobs, exact.jobs, strict=True)
        for ours, theirs in (
            (mine.first_token_s, other.first_token_s),
            (mine.finished_s, other.finished_s),
        )
    ]
    if any((ours is None) != (theirs is None) for ours, theirs in pairs):
        return math.inf
    return max(abs((ours or 0.0) - (theirs or 0.0)) for ours, theirs in pairs)


def compare_engines(args: argparse.Namespace) -> None:
    print(f"Engines alone: {args.backends} x {GPU} {MODEL}, round robin, load x{args.load:g}")
    print(
        f"{'engine':8}{'workload':22}{'requests':>9}{'req/CPU-s':>11}{'us/req':>8}"
        f"{'compared':>10}{'exact/fast':>11}{'max diff s':>12}{'preempted':>10}"
    )
    for engine in args.engines:
        for work in workloads(args.load):
            whole = feed(work.trace, len(work.trace), engines(args.backends, engine, exact=False))
            part = min(work.compared, len(work.trace))
            fast = feed(work.trace, part, engines(args.backends, engine, exact=False))
            exact = feed(work.trace, part, engines(args.backends, engine, exact=True))
            count = len(work.trace)
            print(
                f"{engine:8}{work.name:22}{count:9,}{count / whole.cpu_s:11,.0f}"
                f"{whole.cpu_s / count * 1e6:8.1f}{part:10,}{exact.cpu_s / fast.cpu_s:11.1f}"
                f"{largest_difference_s(fast, exact):12.1e}"
                f"{sum(job.preemptions for job in whole.jobs):10,}"
            )


def replay_whole(args: argparse.Namespace) -> None:
    print(f"\nWhole replay: {args.backends} x {GPU}, vLLM, load x{args.load:g}")
    print(f"{'policy':16}{'telemetry':14}{'workload':22}{'requests':>9}{'req/CPU-s':>11}")
    backends = [{"gpu": GPU, "count": args.backends, "engine": "vllm", "model": MODEL}]
    config = load_config({"backends": backends})
    quiet = ReplayOptions(scrape_interval_s=0.0, feedback=False)
    for policy in args.policies:
        for work in workloads(args.load):
            for label, options in (("none", quiet), ("scrapes", ReplayOptions())):
                result = run_policy(work.trace, config, policy, options)
                speed = len(work.trace) / result.cpu_s
                print(f"{policy:16}{label:14}{work.name:22}{len(work.trace):9,}{speed:11,.0f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--backends", type=int, default=12)
    parser.add_argument("--load", type=float, default=4.0, help="factor on the Azure trace's rate")
    parser.add_argument("--engines", nargs="+", default=["vllm", "sglang"])
    parser.add_argument("--policies", nargs="*", default=["round-robin", "motley"])
    args = parser.parse_args()
    compare_engines(args)
    if args.policies:
        replay_whole(args)
    print(f"\npeak memory {resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024:.0f} MiB")


if __name__ == "__main__":
    main()
