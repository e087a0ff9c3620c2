"""CPU per request and per streamed chunk: Motley beside nginx and beside no gateway, one run.

The target is pinned to one core, engines and client to another. Figures are CPU microseconds of
all the target's processes; for ``direct`` they are those of the engines. Compare ratios within a
run, not numbers between machines. Peers:

    python benchmarks/gateway/bench_overhead.py \
        --peer 'vllm-router=vllm-router --port {port} --worker-urls {urls} --policy round_robin'
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).parent))

from load import Result, closed_loop, streams
from targets import Target, free_port, motley, nginx, peer, process

TARGET_CORE, LOAD_CORE = 0, (os.cpu_count() or 2) - 1
TOKENS, RATE_PER_S = 150, 50.0
COLUMNS = ("1 KiB", "16 KiB", "chunk", "p50 us", "p99 us", "req/s", "RSS MB", "errors")


def main() -> None:
    arguments = _arguments()
    os.sched_setaffinity(0, {LOAD_CORE})
    with engines() as direct, ExitStack() as stack:
        ports = [direct.port, *direct.others]
        targets: list[Target] = [direct]
        floor = stack.enter_context(nginx(ports, TARGET_CORE))
        targets += [floor] if floor else []
        targets += [stack.enter_context(motley(ports, TARGET_CORE, p)) for p in arguments.policy]
        for given in arguments.peer:
            name, _, command = given.partition("=")
            targets.append(stack.enter_context(peer(name, command, ports, TARGET_CORE)))
        rows = {target.name: [0.0] * len(COLUMNS) for target in targets}
        for _ in range(arguments.repeats):
            for target in targets:
                rows[target.name] = _best(rows[target.name], measure(target, arguments))
    _print(rows)


class Engines(Target):
    """The mock engines: the target that has no gateway in front."""

    others: list[int]


@contextmanager
def engines() -> Iterator[Engines]:
    ports = [free_port() for _ in range(4)]
    script = Path(__file__).parent / "mock_engines.py"
    command = [sys.executable, str(script), ",".join(map(str, ports)), str(TOKENS)]
    with process([*command, str(RATE_PER_S)], LOAD_CORE, ports[0]) as pid:
        direct = Engines("direct", ports[0], pid)
        direct.others = ports[1:]
        yield direct


def measure(target: Target, arguments: argparse.Namespace) -> list[float]:
    """One pass over all loads; warm-up excluded."""
    asyncio.run(closed_loop(target.port, 1024, requests=200, concurrency=8))
    small, small_us = _cpu_us(target, _requests(target, 1024, arguments))
    large, large_us = _cpu_us(target, _requests(target, 16_384, arguments))
    flow, flow_us = _cpu_us(
        target, streams(target.port, count=arguments.streams, tokens=TOKENS, rounds=1)
    )
    latencies = [1e6 * latency for latency in small.latencies_s]
    return [
        small_us / small.done,
        large_us / large.done,
        flow_us / flow.chunks,
        median(latencies),
        quantiles(latencies, n=100)[98],
        small.done / small.seconds,
        target.rss_mb(),
        float(small.errors + large.errors + flow.errors),
    ]


def _requests(target: Target, size_bytes: int, arguments: argparse.Namespace):  # type: ignore[no-untyped-def]
    return closed_loop(target.port, size_bytes, requests=arguments.requests, concurrency=8)


def _cpu_us(target: Target, load) -> tuple[Result, float]:  # type: ignore[no-untyped-def]
    before = target.cpu_s()
    result = asyncio.run(load)
    return result, 1e6 * (target.cpu_s() - before)


def _best(old: list[float], new: list[float]) -> list[float]:
    """The quietest of the repeats: noise only ever adds."""
    if not any(old):
        return new
    kept = [min(a, b) for a, b in zip(old, new, strict=True)]
    kept[5], kept[6], kept[7] = max(old[5], new[5]), new[6], old[7] + new[7]
    return kept


def _print(rows: dict[str, list[float]]) -> None:
    print(f"{'CPU us per':>20} " + " ".join(f"{name:>14}" for name in COLUMNS))
    floor = rows.get("nginx")
    for name, figures in rows.items():
        cells = []
        for position, figure in enumerate(figures):
            ratio = ""
            if floor and position < 5 and name not in ("direct", "nginx"):
                ratio = f" ({figure / floor[position]:.2f}x)"
            cells.append(f"{figure:.1f}{ratio}".rjust(14))
        print(f"{name:>20} " + " ".join(cells))


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--policy", action="append", default=None)
    parser.add_argument("--peer", action="append", default=[], metavar="NAME=COMMAND")
    arguments = parser.parse_args()
    arguments.policy = arguments.policy or ["round-robin", "motley"]
    return arguments


if __name__ == "__main__":
    main()
