"""Up to three times what two engines can do, over HTTP: ``python -m tests.fire.overload``.

A gateway as in service before two emulated engines of different speed, one in five requests
interactive (TTFT 2 s, TPOT 0.2 s), the rest bulk, whose clients give up after ten seconds; goodput
counts answers within the targets of their class. First as much as fits, which says what *capacity*
is; then once, twice and three times that, each for 12 s of which the last 8 count; then six tenths
of it, a flood of three times, and six tenths again. About 100 s a seed.

The table over a whole fleet, simulated, is ``python -m benchmarks.policies.overload``.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import math
import random
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass
from statistics import fmean as mean
from typing import Any

import httpx
import uvloop

from router.config.load import load_config
from simulator.engine_server.host import EngineHost
from tests.router.gateway.fakes import MODEL, Gateway, running

TOKENS, SEATS = 24, 8
TTFT_S, TPOT_S = 2.0, 0.2
BULK_S, BULK_WAITS_S = 10.0, 4.0
"""When bulk is of no use any more, and how long it may wait in the router."""
STEADY, STEADY_S, COUNTED_S = (1.0, 2.0, 3.0), 12.0, 8.0
CALM, FLOOD, SPANS_S = 0.6, 3.0, (6.0, 12.0, 12.0)
ENOUGH_PER_S = 18.0
"""More than both can do."""
BACK_SHARE, BACK_S = 0.95, 5.0
CONFIG: dict[str, Any] = {
    "backends": [
        {"gpu": gpu, "engine": "vllm", "model": MODEL, "engine_args": {"max_num_seqs": SEATS}}
        for gpu in ("a10g", "l4")
    ],
    "admission": {"enabled": True, "max_wait_s": {"bulk": BULK_WAITS_S}},
    "slos": {"interactive": {"ttft_s": TTFT_S, "tpot_s": TPOT_S}},
    "policy": {"name": "motley"},
}


@dataclass(slots=True)
class Asked:
    """One request as its client saw it; times count from the beginning of the run."""

    slo_class: str
    at_s: float
    ttft_s: float = math.inf
    done_s: float = math.inf
    status: int = 0

    @property
    def good(self) -> bool:
        """Whether it was served within the targets of its class."""
        took_s = self.done_s - self.at_s
        if self.slo_class == "bulk":
            return self.status == 200 and took_s <= BULK_S
        in_time = self.ttft_s <= TTFT_S and took_s - self.ttft_s <= (TOKENS - 1) * TPOT_S
        return self.status == 200 and in_time


@dataclass(frozen=True, slots=True)
class Told:
    """What came of one seed.

    Attributes:
        per_s: goodput at each steady load.
        interactive: share within the targets at each steady load.
        flood_per_s: goodput in the flood.
        flood_interactive: share within the targets in the flood.
        recovered_s: after the flood: from when on interactive requests keep their targets.
    """

    per_s: tuple[float, ...]
    interactive: tuple[float, ...]
    flood_per_s: float
    flood_interactive: float
    recovered_s: float

    @property
    def kept(self) -> float:
        """Goodput at three times the capacity, as a share of the most at any load."""
        return self.per_s[-1] / max(self.per_s)


async def one(client: httpx.AsyncClient, asked: Asked, began_s: float) -> None:
    messages = [{"role": "user", "content": "hello " * 40}]
    body = {"model": MODEL, "messages": messages, "max_tokens": TOKENS, "stream": True}
    content = json.dumps({**body, "ignore_eos": True})
    headers = {"x-motley-class": asked.slo_class, "content-type": "application/json"}
    path = "/v1/chat/completions"
    async with client.stream("POST", path, content=content, headers=headers) as answer:
        async for piece in answer.aiter_raw():
            if b'"content":"' in piece and asked.ttft_s == math.inf:
                asked.ttft_s = time.monotonic() - began_s - asked.at_s
        asked.status = answer.status_code
    asked.done_s = time.monotonic() - began_s


async def load(gate: Gateway, spans: Sequence[tuple[float, float]], seed: int) -> list[Asked]:
    """Open loop: so many requests a second for so many seconds, one after the other."""
    rng, everyone, tasks = random.Random(seed), list[Asked](), []
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=50)
    async with httpx.AsyncClient(base_url=gate.url, timeout=120.0, limits=limits) as client:
        began_s, at_s, end_s = time.monotonic(), 0.0, 0.0
        for rate, seconds in spans:
            end_s += seconds
            while (at_s := at_s + rng.expovariate(rate)) < end_s:
                await asyncio.sleep(max(0.0, began_s + at_s - time.monotonic()))
                asked = Asked("interactive" if rng.random() < 0.2 else "bulk", at_s)
                everyone.append(asked)
                tasks.append(asyncio.create_task(one(client, asked, began_s)))
        await asyncio.gather(*tasks)
    return everyone


def goodput(everyone: Sequence[Asked], begin_s: float, end_s: float) -> float:
    """Good answers that ended between these moments, per second."""
    return sum(a.good and begin_s <= a.done_s < end_s for a in everyone) / (end_s - begin_s)


def interactive(everyone: Sequence[Asked], begin_s: float, end_s: float) -> float:
    """Share of the interactive requests that came between these moments and kept their targets."""
    mine = [a for a in everyone if a.slo_class == "interactive" and begin_s <= a.at_s < end_s]
    return mean(a.good for a in mine)


def recovery(everyone: Sequence[Asked], after_s: float, end_s: float) -> float:
    """From when on interactive requests keep their targets again, seconds after ``after_s``."""
    for n in range(int(end_s - after_s - BACK_S) + 1):
        if interactive(everyone, after_s + n, after_s + n + BACK_S) >= BACK_SHARE:
            return float(n)
    return math.inf


@asynccontextmanager
async def gateway() -> AsyncIterator[Gateway]:
    """A gateway before the two engines."""
    config = load_config(CONFIG)
    with EngineHost(config.fleet.backends) as host:
        host.start(speed=1.0)
        host.wait_until_ready()
        urls = [host.urls[spec.name] for spec in config.fleet.backends]
        backends = [one | {"url": url} for one, url in zip(CONFIG["backends"], urls, strict=True)]
        async with running({**CONFIG, "backends": backends}) as gate:
            yield gate


async def capacity_of(gate: Gateway, seed: int) -> float:
    """What the engines deliver when they never idle, per second.

    Over as many seconds as the flood is looked at: short windows flatter the peak.
    """
    flat = await load(gate, [(ENOUGH_PER_S, COUNTED_S)], seed)
    return goodput(flat, 3.0, 3.0 + COUNTED_S)


async def flood(gate: Gateway, capacity: float, seed: int) -> list[Asked]:
    """Calm, flood, calm."""
    rates = (CALM * capacity, FLOOD * capacity, CALM * capacity)
    return await load(gate, tuple(zip(rates, SPANS_S, strict=True)), seed)


async def measure(seed: int) -> Told:
    """Steady loads and the flood."""
    per_s, kept = [], []
    async with gateway() as gate:
        capacity = await capacity_of(gate, seed)
        for times in STEADY:
            everyone = await load(gate, [(times * capacity, STEADY_S)], seed)
            per_s.append(goodput(everyone, STEADY_S - COUNTED_S, STEADY_S))
            kept.append(interactive(everyone, STEADY_S - COUNTED_S, STEADY_S))
        everyone = await flood(gate, capacity, seed)
        gate.assert_at_rest()
    begin_s, end_s = SPANS_S[0], SPANS_S[0] + SPANS_S[1]
    return Told(
        tuple(per_s),
        tuple(kept),
        goodput(everyone, end_s - COUNTED_S, end_s),
        interactive(everyone, begin_s, end_s),
        recovery(everyone, end_s, sum(SPANS_S)),
    )


def table(told: Sequence[Told]) -> Iterator[str]:
    """A row a load: means, and of what is promised the worst seed."""
    yield "| over HTTP | goodput /s | of its peak | worst seed | interactive in SLO | worst seed |"
    yield "|---|--:|--:|--:|--:|--:|"
    for n, times in enumerate(STEADY):
        shares = [t.per_s[n] / max(t.per_s) for t in told]
        kept = [t.interactive[n] for t in told]
        yield row(f"{times:g}x", [t.per_s[n] for t in told], shares, kept)
    shares = [t.flood_per_s / max(t.per_s) for t in told]
    kept = [t.flood_interactive for t in told]
    yield row(f"flood of {FLOOD:g}x", [t.flood_per_s for t in told], shares, kept)
    back_s = max(t.recovered_s for t in told)
    within = "not in 12 s" if back_s == math.inf else f"after {back_s:.0f} s"
    yield f"\n{len(told)} seeds; recovered {within} at the latest."


def row(name: str, per_s: list[float], shares: list[float], kept: list[float]) -> str:
    return (
        f"| {name} | {mean(per_s):.1f} | {mean(shares):.0%} | {min(shares):.0%} "
        f"| {mean(kept):.1%} | {min(kept):.1%} |"
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--first", type=int, default=0, help="the first of them")
    options = parser.parse_args()
    seeds = range(options.first, options.first + options.seeds)
    print("\n".join(table([uvloop.run(measure(seed)) for seed in seeds])))


if __name__ == "__main__":
    main()
