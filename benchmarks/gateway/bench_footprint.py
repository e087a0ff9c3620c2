"""What one gateway process takes: start, idle memory and CPU, memory of a stream, lost streams."""

from __future__ import annotations

import argparse
import asyncio
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from load import Result, streams
from targets import Target, free_ports, motley, process

TARGET_CORE, LOAD_CORE = 0, (os.cpu_count() or 2) - 1


async def most_memory(target: Target, load) -> tuple[Result, float]:  # type: ignore[no-untyped-def]
    """The load's result, and the most memory that was seen meanwhile."""
    most = 0.0
    task = asyncio.ensure_future(load)
    while not task.done():
        most = max(most, target.rss_mb())
        await asyncio.sleep(0.1)
    return task.result(), most


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=1000)
    parser.add_argument("--idle-s", type=float, default=5.0)
    parser.add_argument("--markdown", action="store_true", help="a table for README")
    arguments = parser.parse_args()
    os.sched_setaffinity(0, {LOAD_CORE})
    ports = free_ports(4)
    script = Path(__file__).parent / "mock_engines.py"
    engines = [sys.executable, str(script), ",".join(map(str, ports)), "60", "10"]
    with process(engines, LOAD_CORE, ports[0]):
        began = time.perf_counter()
        with motley(ports, TARGET_CORE, "motley") as gateway:
            started_s, cpu_started_s = time.perf_counter() - began, gateway.cpu_s()
            time.sleep(1.0)
            idle_mb, before = gateway.rss_mb(), gateway.cpu_s()
            time.sleep(arguments.idle_s)
            idle_share = (gateway.cpu_s() - before) / arguments.idle_s
            load = streams(gateway.port, count=arguments.streams, tokens=60, rounds=1)
            result, most_mb = asyncio.run(most_memory(gateway, load))
            each_kb = 1e3 * (most_mb - idle_mb) / arguments.streams
            tell(
                {
                    "start": f"{started_s:.2f} s, {cpu_started_s:.2f} s CPU",
                    "idle": f"{idle_mb:.0f} MB, {idle_share:.1%} of a core",
                    "a stream": f"{each_kb:.0f} kB ({arguments.streams} at once)",
                    "errors": f"{result.errors} of {result.done + result.errors} streams",
                },
                markdown=arguments.markdown,
            )


def tell(figures: dict[str, str], *, markdown: bool) -> None:
    if markdown:
        for row in (list(figures), ["--:"] * len(figures), list(figures.values())):
            print(f"| {' | '.join(row)} |")
        return
    for name, figure in figures.items():
        print(f"{name:<15} {figure}")


if __name__ == "__main__":
    main()
