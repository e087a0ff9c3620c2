"""Scraping 500 engines a second: CPU share of one core and memory per backend.

The engines are one other process that listens on all loopback addresses (127.0.x.y), so every
backend has a connection of its own. The scraper is measured with its own fetcher and with httpx.
"""

from __future__ import annotations

import argparse
import asyncio
import multiprocessing
import random
import sys
import time
from pathlib import Path
from typing import cast

import httpx
import uvloop

sys.path.insert(0, str(Path(__file__).parent))

from pages import vllm_page

from router.domain.state import EngineSignals
from telemetry.http_get import Fetcher, HttpGetter
from telemetry.scraper import Scraper, Target

PORT = 18_992


class Engine(asyncio.Protocol):
    """Answers every request with the same page."""

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport = cast(asyncio.Transport, transport)

    def data_received(self, _: bytes) -> None:
        self._transport.write(PAGE)


BODY = vllm_page()
PAGE = b"HTTP/1.1 200 OK\r\ncontent-length: %d\r\n\r\n" % len(BODY) + BODY


def engines() -> None:
    async def serve() -> None:
        server = await asyncio.get_running_loop().create_server(Engine, "0.0.0.0", PORT)
        await server.serve_forever()

    uvloop.run(serve())


class Httpx:
    """The same seam over httpx."""

    def __init__(self) -> None:
        limits = httpx.Limits(max_connections=None, max_keepalive_connections=None)
        self._client = httpx.AsyncClient(limits=limits, trust_env=False)

    async def get(self, url: str, *, timeout_s: float, max_bytes: int) -> bytes:  # noqa: ARG002
        answer = await self._client.get(url, timeout=timeout_s)
        return answer.content

    def close(self) -> None:
        pass


class Clock:
    def now(self) -> float:
        return time.monotonic()


async def measure(fetcher: Fetcher, backends: int, seconds: float) -> tuple[float, float, float]:
    """(CPU share of a core, scrapes per second, KiB per backend)."""
    seen = [0]

    def sink(_: str, signals: EngineSignals) -> None:
        assert signals.running is not None
        seen[0] += 1

    before = rss_kib()
    scraper = Scraper(
        sink, interval_s=1.0, timeout_s=5.0, rng=random.Random(1), clock=Clock(), fetcher=fetcher
    )
    for n in range(backends):
        address = f"127.0.{1 + n // 250}.{1 + n % 250}"
        scraper.add(Target(str(n), f"http://{address}:{PORT}", "vllm"))
    running = asyncio.create_task(scraper.run())
    await asyncio.sleep(3.0)  # connections open, caches warm
    cpu, wall, done = time.process_time(), time.monotonic(), seen[0]
    await asyncio.sleep(seconds)
    cpu, wall, done = time.process_time() - cpu, time.monotonic() - wall, seen[0] - done
    memory = rss_kib() - before
    running.cancel()
    await asyncio.gather(running, return_exceptions=True)
    return cpu / wall, done / wall, memory / backends


def rss_kib() -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith("VmRSS"):
            return float(line.split()[1])
    return 0.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--backends", type=int, default=500)
    parser.add_argument("--seconds", type=float, default=10.0)
    arguments = parser.parse_args()
    server = multiprocessing.get_context("spawn").Process(target=engines, daemon=True)
    server.start()
    time.sleep(1.5)
    try:
        own = uvloop.run(measure(HttpGetter(), arguments.backends, arguments.seconds))
        theirs = uvloop.run(measure(Httpx(), arguments.backends, arguments.seconds))
    finally:
        server.kill()
    print(f"{arguments.backends} backends, one scrape a second each, {len(BODY) / 1024:.0f} KiB")
    for name, (share, rate, memory) in (("own fetcher", own), ("httpx", theirs)):
        per_s = share / rate * 1e6 if rate else float("nan")
        print(
            f"{name:12} {share:6.1%} of a core  {rate:5.0f}/s  {per_s:5.0f} us each"
            f"  {memory:6.1f} KiB per backend"
        )


if __name__ == "__main__":
    main()
