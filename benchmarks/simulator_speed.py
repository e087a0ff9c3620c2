"""How fast and how small the simulator is, each target beside its figure.

First the engines alone, fed round robin by a bare event loop: the fast engine on the whole
workload, then both engines on the same part of it, as a ratio, with the largest difference in
any time to first token or finish. Then the whole replay at its default, realistic settings
(stale scrapes, predicted lengths, 20 % model error, learning from feedback): trace, dispatcher,
policy, engines and one row per request; beside it the same without scrapes and feedback. Last
the memory of a million requests, in a process of its own.

CPU time of one core, the best of some repeats; a busy machine slows all of them, so the speed of
raw SimPy timeouts in the same run is printed as a yardstick (580,000 a second on the machine, a
2.5 GHz Xeon, on which the peers were measured).

Traces are looked for in ``../shared/data/traces`` (or ``$MOTLEY_SHARED``); built-in workloads of
the same kind stand in for those that are not there.
"""

from __future__ import annotations

import argparse
import heapq
import math
import os
import resource
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import simpy

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
    """A trace, how much of it both engines replay for the ratio, and what is aimed at.

    Attributes:
        ratio: CPU time of the exact engine over the fast one's, at least.
        cheap_per_s, full_per_s: requests per CPU-second with a cheap policy, with Motley's own.
    """

    name: str
    trace: Trace
    compared: int
    ratio: float | None = None
    cheap_per_s: float | None = None
    full_per_s: float | None = None


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
    conversation = trace_of("azure2023_conv.csv", "azure-conv-like", load)
    yield Workload(*conversation, compared=4_000, ratio=4, cheap_per_s=20_000, full_per_s=10_000)
    yield Workload("long answers", long_answers(2_000, 2.0), compared=300, ratio=15)
    prefixes = trace_of("mooncake_synthetic.jsonl", "chat-prefix-like", 1.0)
    yield Workload(*prefixes, compared=1_000, cheap_per_s=5_000)


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


def yardstick_per_s() -> float:
    """Raw SimPy timeouts with a callback, per CPU-second."""
    env, count, done = simpy.Environment(), 50_000, 0

    def again(_: simpy.Event) -> None:
        nonlocal done
        done += 1
        if done < count:
            simpy.Timeout(env, 1.0).callbacks.append(again)

    began_s = time.process_time()
    simpy.Timeout(env, 1.0).callbacks.append(again)
    env.run()
    return count / (time.process_time() - began_s)


def judged(figure: float, target: float | None, *, most: bool = False) -> str:
    """A target, and whether the figure keeps it."""
    if target is None:
        return f"{'':>12}"
    kept = figure <= target if most else figure >= target
    return f"{'<=' if most else '>='}{target:7,.0f} {'ok' if kept else '--'}"


def compare_engines(args: argparse.Namespace) -> None:
    print(f"Engines alone: {args.backends} x {GPU} {MODEL}, round robin, load x{args.load:g}")
    print(
        f"{'engine':8}{'workload':20}{'requests':>9}{'req/CPU-s':>11}{'compared':>10}"
        f"{'exact/fast':>11}{'target':>11}{'max diff s':>12}{'preempted':>10}"
    )
    for engine in args.engines:
        for work in workloads(args.load):
            whole = feed(work.trace, len(work.trace), engines(args.backends, engine, exact=False))
            part = min(work.compared, len(work.trace))
            fast = feed(work.trace, part, engines(args.backends, engine, exact=False))
            exact = feed(work.trace, part, engines(args.backends, engine, exact=True))
            count, ratio = len(work.trace), exact.cpu_s / fast.cpu_s
            print(
                f"{engine:8}{work.name:20}{count:9,}{count / whole.cpu_s:11,.0f}{part:10,}"
                f"{ratio:11.1f} {judged(ratio, work.ratio)}"
                f"{largest_difference_s(fast, exact):10.1e}"
                f"{sum(job.preemptions for job in whole.jobs):10,}",
                flush=True,
            )


def replay_whole(args: argparse.Namespace) -> None:
    print(f"\nWhole replay: {args.backends} x {GPU}, vLLM, load x{args.load:g}, requests/CPU-s")
    print(f"{'policy':16}{'workload':20}{'requests':>9}{'default':>9}{'target':>11}{'bare':>10}")
    backends = [{"gpu": GPU, "count": args.backends, "engine": "vllm", "model": MODEL}]
    config = load_config({"backends": backends})
    bare = ReplayOptions(scrape_interval_s=0.0, feedback=False)

    def per_s(trace: Trace, policy: str, options: ReplayOptions) -> float:
        runs = (run_policy(trace, config, policy, options) for _ in range(args.repeat))
        return len(trace) / min(run.cpu_s for run in runs)

    for policy in args.policies:
        for work in workloads(args.load):
            speed = per_s(work.trace, policy, ReplayOptions())
            target = work.full_per_s if policy == "motley" else work.cheap_per_s
            print(
                f"{policy:16}{work.name:20}{len(work.trace):9,}{speed:9,.0f} "
                f"{judged(speed, target)}{per_s(work.trace, policy, bare):9,.0f}",
                flush=True,
            )


def use_memory(count: int) -> None:
    """Replay a million requests; run in a process of its own, as peaks never come down."""
    _, trace = trace_of("azure2023_conv.csv", "azure-conv-like", 4.0)
    copies = (record for _ in range(-(-count // len(trace))) for record in trace.records())
    long = Trace("long")
    for i, record in zip(range(count), copies, strict=False):
        record.arrival_s += i // len(trace) * (trace.span_s + 1.0)
        long.append(record)
    backends = [{"gpu": GPU, "count": 12, "engine": "vllm", "model": MODEL}]
    result = run_policy(long, load_config({"backends": backends}), "round-robin")
    peak_mib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    each = peak_mib * 2**20 / count
    print(
        f"\n{count:,} requests: peak {peak_mib:,.0f} MiB {judged(peak_mib, 1024, most=True)}; per "
        f"request {each:,.0f} bytes {judged(each, 1024, most=True)}, trace and interpreter "
        f"included; {count / result.cpu_s:,.0f} requests/CPU-s"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--backends", type=int, default=12)
    parser.add_argument("--load", type=float, default=4.0, help="factor on the Azure trace's rate")
    parser.add_argument("--engines", nargs="+", default=["vllm", "sglang"])
    parser.add_argument("--policies", nargs="*", default=["round-robin", "least-request", "motley"])
    parser.add_argument("--repeat", type=int, default=3)
    parser.add_argument(
        "--requests", type=int, default=1_000_000, help="of the memory test; 0: none"
    )
    parser.add_argument("--memory-only", action="store_true", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.memory_only:
        use_memory(args.requests)
        return
    load = os.getloadavg()[0]
    print(
        f"raw SimPy timeouts: {yardstick_per_s():,.0f}/CPU-s; load average {load:.1f} on "
        f"{os.cpu_count()} cores\n"
    )
    compare_engines(args)
    if args.policies:
        replay_whole(args)
    if args.requests:
        again = [sys.executable, "-m", "benchmarks.simulator_speed", "--memory-only"]
        subprocess.run([*again, "--requests", str(args.requests)], check=True)


if __name__ == "__main__":
    main()
