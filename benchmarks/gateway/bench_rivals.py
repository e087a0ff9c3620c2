"""P99 through the gateways' own binaries: ``python benchmarks/gateway/bench_rivals.py``.

Real processes and sockets, real time. Every gateway has a fleet of its own of emulated engines (an
A100, a V100 and two pairs of T4) and all get the same requests at the same times. Each engine is
a fifth faster or a quarter slower than catalogues say. Nobody is told but nginx, whose weights are
the true speeds; Motley believes the catalogue and has to learn. How long an answer will be only the
engines know: it stands in ``min_tokens``, which no gateway here reads. Beside each figure is what
the simulator says of the same arrivals, with the policy that stands for that gateway.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import sys
import tempfile
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack, contextmanager
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import httpx
import numpy as np

sys.path.insert(0, str(Path(__file__).parent))

import peers
from replaying import PATIENCE_S, Took, replayed
from targets import Target, free_port, nginx, process

from benchmarks.policies.scenarios import MODEL, Scenario, capacity_per_s, trace_of
from router.config.load import MotleyConfig, load_config
from simulator.engine_server.host import EngineHost
from simulator.engine_server.tokens import LengthRule
from simulator.faults import Fault
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.traces.columns import Trace
from simulator.traces.transform import scale_rate

KINDS = (("a100-80", 1), ("v100-32", 1), ("t4", 2), ("t4", 2))
"""GPU and cards of each engine ..."""
SLOWER = (1.25, 0.8, 0.8, 1.25)
"""... and how many times as long as believed it takes."""

LOADS = {"azure-conv": (1200, 5.4), "azure-code": (700, 1.8)}
"""Requests, and how many a second: four to seven minutes; code comes in bursts."""

EXACTLY_AS_ASKED = LengthRule(median_tokens=1.0, sigma=0.0)
LEAD_S = 3.0
CORE = (os.cpu_count() or 2) - 1

Start = Callable[[Sequence[int]], AbstractContextManager[Target | None]]


@dataclass(frozen=True)
class Rival:
    """One gateway.

    Attributes:
        start: runs it in front of engines on these ports.
        stands_for: the simulator's policy of the same rule.
    """

    start: Start
    stands_for: str


def fleet(policy: str, ports: Sequence[int] = ()) -> MotleyConfig:
    """What a gateway with this policy is told."""
    return load_config(json.loads(fleet_file(policy, ports)))


def fleet_file(policy: str, ports: Sequence[int]) -> str:
    backends = [
        {"gpu": gpu, "tensor_parallel": cards, "engine": "vllm", "model": MODEL}
        | ({"url": f"http://127.0.0.1:{ports[i]}"} if ports else {})
        for i, (gpu, cards) in enumerate(KINDS)
    ]
    reliability = {"queue_timeout_s": PATIENCE_S, "queue_size": 100_000}
    return json.dumps(
        {"backends": backends, "policy": {"name": policy}, "reliability": reliability}
    )


def arrivals(workload: str, seed: int) -> Trace:
    """A window of the recorded trace, at the workload's rate."""
    requests, per_s = LOADS[workload]
    whole_load = Scenario(workload, "", 1.0, requests)
    trace, _ = trace_of(whole_load, fleet("motley"), seed)
    return scale_rate(trace, per_s * trace.span_s / len(trace))


def true_weights(trace: Trace) -> list[int]:
    """Of nginx: what each engine really carries of this load."""
    alone = []
    for spec, slower in zip(fleet("motley").fleet.backends, SLOWER, strict=True):
        entry = {"gpu": spec.gpu, "tensor_parallel": spec.tensor_parallel, "engine": "vllm"}
        config = load_config({"backends": [entry | {"model": MODEL}]})
        alone.append(capacity_per_s(config, trace) / slower)
    return [max(1, round(10 * speed / min(alone))) for speed in alone]


@contextmanager
def motley(ports: Sequence[int], policy: str):  # type: ignore[no-untyped-def]
    """``motley serve``, all defaults."""
    port = free_port()
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(fleet_file(policy, ports))
        file.flush()
        command = [sys.executable, "-c", "from router.cli.main import main; main()"]
        command += ["serve", "-c", file.name, "--port", str(port), "--log-level", "error"]
        with process(command, CORE, port) as pid:
            yield Target(policy, port, pid)


def rivals(weights: Sequence[int]) -> dict[str, Rival]:
    """Who is compared, by name."""

    def peer(name: str, policy: str) -> Start:
        return lambda ports: peers.running(name, ports, CORE, policy)

    return {
        "sglang-router `cache_aware`": Rival(
            peer("sglang-router", "cache_aware"), "sglang-cache-aware"
        ),
        "vllm-router `power_of_two`": Rival(peer("vllm-router", "power_of_two"), "power-of-two"),
        "smg `least_load`": Rival(peer("smg", "least_load"), "smg-least-load"),
        "motley, `least-request`": Rival(partial(motley, policy="least-request"), "least-request"),
        "nginx `least_conn`, true weights": Rival(
            lambda ports: nginx(ports, CORE, weights), "nginx-least-conn"
        ),
        "**motley**": Rival(partial(motley, policy="motley"), "motley"),
    }


async def live(rival: Rival, trace: Trace) -> list[Took]:
    """One gateway, one fleet, one replay."""
    specs = fleet("motley").fleet.backends
    with ExitStack() as stack:
        host = stack.enter_context(EngineHost(specs))
        host.start(lengths=EXACTLY_AS_ASKED)
        await asyncio.to_thread(host.wait_until_ready)
        urls = list(host.urls.values())
        async with httpx.AsyncClient() as http:
            for url, slower in zip(urls, SLOWER, strict=True):
                told = await http.post(f"{url}/fault", json={"slow_factor": slower})
                told.raise_for_status()
        ports = [int(url.rsplit(":", 1)[1]) for url in urls]
        target = await asyncio.to_thread(stack.enter_context, rival.start(ports))
        if target is None:
            raise SystemExit("nginx is not installed")
        await asyncio.sleep(LEAD_S)
        took = await replayed(target.port, trace)
        await asyncio.to_thread(stack.close)
    return took


def simulated(policy: str, trace: Trace) -> tuple[float, float]:
    """P99 of TTFT and E2E as the simulator has them."""
    config = fleet(policy)
    faults = [
        Fault(0.0, spec.name, "slow", slower)
        for spec, slower in zip(config.fleet.backends, SLOWER, strict=True)
    ]
    result = run_policy(trace, config, policy, ReplayOptions(model_error=0.0), faults=faults)
    told = summarize(result)
    return told["ttft_s"]["p99"], told["e2e_s"]["p99"]


async def measured(trace: Trace, at_once: int) -> dict[str, list[Took]]:
    """All gateways, some of them at once."""
    room = asyncio.Semaphore(at_once)

    async def one(name: str, rival: Rival) -> list[Took]:
        async with room:
            took = await live(rival, trace)
            print(f"{trace.name}: {name}: done", file=sys.stderr)
            return took

    contenders = rivals(true_weights(trace))
    found = await asyncio.gather(*[one(*item) for item in contenders.items()])
    return dict(zip(contenders, found, strict=True))


def p99(values: Sequence[float]) -> float:
    return float(np.percentile(values, 99)) if values else float("nan")


def row(name: str, policy: str, took: Sequence[Took], trace: Trace) -> str:
    ttft = p99([t.ttft_s for t in took if t.ttft_s is not None])
    e2e = p99([t.e2e_s for t in took if t.e2e_s is not None])
    lost = sum(t.e2e_s is None for t in took)
    told = simulated(policy, trace)
    cells = f"{ttft:.3g} ({told[0]:.3g}) | {e2e:.3g} ({told[1]:.3g}) | {lost}"
    return f"| {trace.name} | {name} | {cells} |"


def main() -> None:
    """Print the table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--workloads", nargs="+", default=list(LOADS), choices=LOADS)
    parser.add_argument("--at-once", type=int, default=3, help="gateways that run at the same time")
    parser.add_argument("--seed", type=int, default=0)
    given = parser.parse_args()
    peers.install(["sglang-router", "vllm-router", "smg"])
    print("| P99, live (simulated) | gateway | TTFT, s | E2E, s | lost |\n|---|---|--:|--:|--:|")
    for workload in given.workloads:
        trace = arrivals(workload, given.seed)
        found = asyncio.run(measured(trace, given.at_once))
        stands_for = {name: rival.stands_for for name, rival in rivals([1] * len(KINDS)).items()}
        for name, took in found.items():
            print(row(name, stands_for[name], took, trace), flush=True)


if __name__ == "__main__":
    main()
