"""CPU per request and per streamed chunk: Motley beside nginx, its peers and no gateway, one run.

A relay that does nothing but relay shows how much of it is Python's, whatever Motley did.

The target is pinned to one core, engines and client to another. Figures are CPU microseconds of
all the target's processes; for ``direct`` they are those of the engines. Compare ratios within a
run, not numbers between machines. ``--peers`` installs those that PyPI has and runs them too; one
that does not start here is named under the table. Six minutes with all of them.
"""

from __future__ import annotations

import argparse
import asyncio
import math
import os
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from statistics import median, quantiles

sys.path.insert(0, str(Path(__file__).parent))

import peers
from load import Result, closed_loop, open_loop, streams
from targets import BARE, Target, bare, free_ports, motley, nginx, process

TARGET_CORE, LOAD_CORE = 0, (os.cpu_count() or 2) - 1
TOKENS, RATE_PER_S = 150, 50.0
DIRECT = "direct"
"""No gateway: nothing is compared with it, so once is enough."""
SLOW = "litellm"
"""Measured once, with a twentieth of the requests: it takes 300 times as long as the others ..."""
MOST_SLOW_STREAMS = 64
"""... and cannot carry more streams than this."""
ONCE = (SLOW, DIRECT)

LEARNED = 100
"""Motley learns from each of the first so many answers of a backend, which is no steady state."""

Figures = dict[str, float]
ABSENT = "which is not installed"
ERRORS, IDLE_MB = "errors", "idle MB"
NO_RATIO = (IDLE_MB, ERRORS)


Start = Callable[[], AbstractContextManager[Target | None]]


def main() -> None:
    arguments = _arguments()
    os.sched_setaffinity(0, {LOAD_CORE})
    if arguments.peers:
        peers.install(arguments.peers)
    rows: dict[str, Figures] = {}
    missing: dict[str, str] = {}
    with engines(max(4, *arguments.backends)) as direct:
        contenders = {DIRECT: lambda: nullcontext(direct), **_contenders(direct, arguments)}
        for turn in range(arguments.repeats):
            for name, start in contenders.items():
                if turn == 0 or (name not in ONCE and missing.get(name) != ABSENT):
                    _take_turn(name, start, arguments, rows, missing)
    print(_table(rows) if arguments.markdown else _plain(rows))
    print(f"\n{_shares(rows)}")
    for name, why in missing.items():
        if name not in rows:
            print(f"\nNot measured: {name}, {why}.")


def _take_turn(
    name: str,
    start: Start,
    arguments: argparse.Namespace,
    rows: dict[str, Figures],
    missing: dict[str, str],
) -> None:
    """One at a time: an idle gateway beside the one that is measured costs too."""
    try:
        with start() as target:
            if target is None:
                missing[name] = ABSENT
                return
            figures = measure(target, arguments)
    except SystemExit as why:
        missing[name] = "which did not start here"
        print(f"{name}: {why}", file=sys.stderr, flush=True)
        return
    rows[name] = _best(rows.get(name), figures)
    told = ", ".join(f"{column} {figure:.0f}" for column, figure in figures.items())
    print(f"{name}: {told}", file=sys.stderr, flush=True)


class Engines(Target):
    """The mock engines: the target that has no gateway in front."""

    ports: list[int]


@contextmanager
def engines(count: int) -> Iterator[Engines]:
    ports = free_ports(count)
    script = Path(__file__).parent / "mock_engines.py"
    command = [sys.executable, str(script), ",".join(map(str, ports)), str(TOKENS)]
    with process([*command, str(RATE_PER_S)], LOAD_CORE, ports[0]) as pid:
        direct = Engines(DIRECT, ports[0], pid)
        direct.ports = ports
        yield direct


def _contenders(direct: Engines, arguments: argparse.Namespace) -> dict[str, Start]:
    four = direct.ports[:4]
    starts: dict[str, Start] = {
        "nginx": lambda: nginx(four, TARGET_CORE),
        BARE: lambda: bare(four, TARGET_CORE),
    }
    for policy in arguments.policy:
        for count in arguments.backends:
            ports = direct.ports[:count]
            starts[f"motley ({policy}, {count} backends)"] = partial(
                motley, ports, TARGET_CORE, policy
            )
    for name in arguments.peers:
        starts[name] = partial(peers.running, name, four, TARGET_CORE)
    return starts


def measure(target: Target, arguments: argparse.Namespace) -> Figures:
    """One pass over all loads; warm-up excluded."""
    figures, port = {IDLE_MB: target.rss_mb()}, target.port
    errors = 0
    requests = arguments.requests if target.name != SLOW else arguments.requests // 20
    warm_up = requests // 5
    if target.name.startswith("motley"):
        warm_up = max(warm_up, LEARNED * max(arguments.backends))
    asyncio.run(closed_loop(port, 1024, requests=warm_up, concurrency=8))
    for size in (1024, 16_384):
        result, us = _cpu_us(target, closed_loop(port, size, requests=requests, concurrency=8))
        figures[f"{size // 1024} KiB"] = us / result.done
        errors += result.errors
    for count in arguments.streams:
        if target.name == SLOW and count > MOST_SLOW_STREAMS:
            figures[f"chunk, {count}"] = math.nan
            continue
        result, us = _cpu_us(target, streams(port, count=count, tokens=TOKENS, rounds=1))
        figures[f"chunk, {count}"] = us / max(result.chunks, 1)
        errors += result.errors
    paced = asyncio.run(open_loop(port, 1024, per_s=100.0, seconds=arguments.paced_s))
    latencies = [1e6 * latency for latency in paced.latencies_s]
    figures["p50 us"], figures["p99 us"] = median(latencies), quantiles(latencies, n=100)[98]
    figures[IDLE_MB] = figures.pop(IDLE_MB)
    figures[ERRORS] = float(errors + paced.errors)
    return figures


def _cpu_us(target: Target, load) -> tuple[Result, float]:  # type: ignore[no-untyped-def]
    before = target.cpu_s()
    result = asyncio.run(load)
    time.sleep(0.1)  # what is done a moment later is done for these requests too
    return result, 1e6 * (target.cpu_s() - before)


def _best(old: Figures | None, new: Figures) -> Figures:
    """The quietest of the repeats: noise only ever adds. Errors are summed."""
    if old is None:
        return new
    best = {column: min(old[column], new[column]) for column in new}
    return {**best, ERRORS: old[ERRORS] + new[ERRORS]}


def _told(rows: dict[str, Figures], name: str, floor: str) -> list[str]:
    cells = []
    for column, figure in rows[name].items():
        over = rows[floor][column] if floor in rows and column not in NO_RATIO else 0.0
        if column == ERRORS or math.isnan(figure):
            cells.append("-" if math.isnan(figure) else f"{figure:.0f}")
            continue
        ratio = f" ({figure / over:.2f}x)" if over and name not in (DIRECT, floor) else ""
        cells.append(f"{figure:,.0f}{ratio}" if figure >= 100 else f"{figure:.1f}{ratio}")
    return cells


def _plain(rows: dict[str, Figures]) -> str:
    lines = [f"{'CPU us per':>28} " + " ".join(f"{name:>15}" for name in rows[DIRECT])]
    for name in rows:
        cells = " ".join(f"{cell:>15}" for cell in _told(rows, name, "nginx"))
        lines.append(f"{name:>28} {cells}")
    return "\n".join(lines)


def _table(rows: dict[str, Figures]) -> str:
    floor = "vllm-router" if "vllm-router" in rows else "nginx"
    columns = list(rows[DIRECT])
    lines = [f"| CPU us per | {' | '.join(map(_heading, columns))} |"]
    lines.append("|---|" + "--:|" * len(columns))
    for name in rows:
        told = f"**{name}**" if name.startswith("motley") else name
        lines.append(f"| {told} | " + " | ".join(_told(rows, name, floor)) + " |")
    return "\n".join(lines)


def _shares(rows: dict[str, Figures]) -> str:
    """How much of Motley's cost a relay has that does nothing else."""
    ours = next(name for name in rows if name.startswith("motley"))
    told = [
        f"{rows[BARE][column]:.0f} of {figure:.0f} us a {_heading(column).replace(',', ' of', 1)}"
        for column, figure in rows[ours].items()
        if column.endswith("KiB")
    ]
    told += [
        f"{rows[BARE][column]:.1f} of {figure:.1f} a {column.replace(',', ' at')} streams"
        for column, figure in rows[ours].items()
        if column.startswith("chunk")
    ]
    return f"What the barest relay in Python costs of {ours}: {', '.join(told)}."


def _heading(column: str) -> str:
    if column.endswith("KiB"):
        return f"request, {column}"
    if column.startswith("chunk"):
        return f"{column} streams"
    return column.replace(" us", " at 100/s, us")


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])  # type: ignore[union-attr]
    parser.add_argument("--requests", type=int, default=3000)
    parser.add_argument("--streams", nargs="+", type=int, default=[64, 256])
    parser.add_argument("--paced-s", type=float, default=4.0)
    parser.add_argument("--repeats", type=int, default=3)
    parser.add_argument("--policy", nargs="+", default=["motley"])
    parser.add_argument("--backends", nargs="+", type=int, default=[4])
    parser.add_argument("--peers", nargs="*", default=[], choices=list(peers.PACKAGES))
    parser.add_argument("--markdown", action="store_true", help="a table for README")
    return parser.parse_args()


if __name__ == "__main__":
    main()
