"""CPU per request and per streamed chunk: Motley beside nginx, its peers and no gateway, one run.

The target is pinned to one core, engines and client to another. Figures are CPU microseconds of
all the target's processes; for ``direct`` they are those of the engines. Compare ratios within a
run, not numbers between machines. ``--peers`` installs those that PyPI has and runs them too.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).parent))

import peers
from load import Result, closed_loop, open_loop, streams
from targets import Target, free_port, motley, nginx, process

TARGET_CORE, LOAD_CORE = 0, (os.cpu_count() or 2) - 1
TOKENS, RATE_PER_S = 150, 50.0
COLUMNS = ("1 KiB", "16 KiB", "chunk", "p50 us", "p99 us", "idle MB", "errors")
RATIOS = 5
"""The first columns are told as ratios too."""


def main() -> None:
    arguments = _arguments()
    os.sched_setaffinity(0, {LOAD_CORE})
    if arguments.peers:
        peers.install(arguments.peers)
    rows: dict[str, list[float]] = {}
    with engines(max(4, *arguments.backends)) as direct:
        contenders = _contenders(direct, arguments)
        for _ in range(arguments.repeats):
            rows["direct"] = _best(rows.get("direct"), measure(direct, arguments))
            for start in contenders:
                # One at a time: an idle gateway beside the one that is measured costs too.
                with start() as target:
                    if target is not None:
                        print(target.name, file=sys.stderr)
                        figures = measure(target, arguments)
                        rows[target.name] = _best(rows.get(target.name), figures)
    print(_table(rows) if arguments.markdown else _plain(rows))


class Engines(Target):
    """The mock engines: the target that has no gateway in front."""

    ports: list[int]


@contextmanager
def engines(count: int) -> Iterator[Engines]:
    ports = [free_port() for _ in range(count)]
    script = Path(__file__).parent / "mock_engines.py"
    command = [sys.executable, str(script), ",".join(map(str, ports)), str(TOKENS)]
    with process([*command, str(RATE_PER_S)], LOAD_CORE, ports[0]) as pid:
        direct = Engines("direct", ports[0], pid)
        direct.ports = ports
        yield direct


Start = Callable[[], AbstractContextManager[Target | None]]


def _contenders(direct: Engines, arguments: argparse.Namespace) -> list[Start]:
    four = direct.ports[:4]
    starts: list[Start] = [lambda: nginx(four, TARGET_CORE)]
    for policy in arguments.policy:
        for count in arguments.backends:
            ports = direct.ports[:count]
            starts.append(lambda p=ports, name=policy: motley(p, TARGET_CORE, name))  # type: ignore[misc]
    for name in arguments.peers:
        starts.append(lambda name=name: peers.running(name, four, TARGET_CORE))  # type: ignore[misc]
    return starts


def measure(target: Target, arguments: argparse.Namespace) -> list[float]:
    """One pass over all loads; warm-up excluded."""
    idle_mb = target.rss_mb()
    requests = arguments.requests if target.name != "litellm" else arguments.requests // 20
    asyncio.run(closed_loop(target.port, 1024, requests=requests // 5, concurrency=8))
    small, small_us = _cpu_us(
        target, closed_loop(target.port, 1024, requests=requests, concurrency=8)
    )
    large, large_us = _cpu_us(
        target, closed_loop(target.port, 16_384, requests=requests, concurrency=8)
    )
    flow, flow_us = _cpu_us(
        target, streams(target.port, count=arguments.streams, tokens=TOKENS, rounds=1)
    )
    paced = asyncio.run(open_loop(target.port, 1024, per_s=100.0, seconds=arguments.paced_s))
    latencies = [1e6 * latency for latency in paced.latencies_s]
    errors = sum(result.errors for result in (small, large, flow, paced))
    return [
        small_us / small.done,
        large_us / large.done,
        flow_us / max(flow.chunks, 1),
        median(latencies),
        quantiles(latencies, n=100)[98],
        idle_mb,
        float(errors),
    ]


def _cpu_us(target: Target, load) -> tuple[Result, float]:  # type: ignore[no-untyped-def]
    before = target.cpu_s()
    result = asyncio.run(load)
    time.sleep(0.1)  # what is done a moment later is done for these requests too
    return result, 1e6 * (target.cpu_s() - before)


def _best(old: list[float] | None, new: list[float]) -> list[float]:
    """The quietest of the repeats: noise only ever adds. Errors are summed."""
    if old is None:
        return new
    return [*(min(a, b) for a, b in zip(old[:-1], new[:-1], strict=True)), old[-1] + new[-1]]


def _told(rows: dict[str, list[float]], name: str, floor: str) -> list[str]:
    cells = []
    for position, figure in enumerate(rows[name]):
        over = rows[floor][position] if floor in rows and position < RATIOS else 0.0
        ratio = f" ({figure / over:.2f}x)" if over and name not in ("direct", floor) else ""
        cells.append(f"{figure:,.0f}{ratio}" if figure >= 100 else f"{figure:.1f}{ratio}")
    return cells


def _plain(rows: dict[str, list[float]]) -> str:
    lines = [f"{'CPU us per':>22} " + " ".join(f"{name:>16}" for name in COLUMNS)]
    for name in rows:
        cells = " ".join(f"{cell:>16}" for cell in _told(rows, name, "nginx"))
        lines.append(f"{name:>22} {cells}")
    return "\n".join(lines)


def _table(rows: dict[str, list[float]]) -> str:
    floor = "vllm-router" if "vllm-router" in rows else "nginx"
    lines = [
        "| CPU us per | request, 1 KiB | request, 16 KiB | streamed chunk | p50 at 100/s, us "
        "| p99 at 100/s, us | idle MB | errors |",
        "|---|" + "--:|" * len(COLUMNS),
    ]
    for name in rows:
        told = f"**{name}**" if name.startswith("motley") else name
        lines.append(f"| {told} | " + " | ".join(_told(rows, name, floor)) + " |")
    return "\n".join(lines)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--streams", type=int, default=64)
    parser.add_argument("--paced-s", type=float, default=5.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--policy", nargs="+", default=["motley"])
    parser.add_argument("--backends", nargs="+", type=int, default=[4])
    parser.add_argument("--peers", nargs="*", default=[], choices=list(peers.PACKAGES))
    parser.add_argument("--markdown", action="store_true", help="a table for README")
    return parser.parse_args()


if __name__ == "__main__":
    main()
