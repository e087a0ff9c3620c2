"""Three times what an engine can do, over HTTP: no collapse, the urgent first, and quick recovery.

The table over a whole fleet is ``python -m benchmarks.policies.overload``.
"""

from __future__ import annotations

import asyncio
import json
import random
import time
from dataclasses import dataclass
from typing import Any

import httpx
import pytest

from router.config.load import load_config
from simulator.engine_server.host import EngineHost
from tests.router.gateway.fakes import MODEL, Gateway, running

TOKENS, SEATS = 24, 8
BULK_S, BULK_WAITS_S = 10.0, 4.0
"""When bulk is of no use any more, and how long it may wait in the router."""
CONFIG: dict[str, Any] = {
    "backends": [
        {"gpu": "l4", "engine": "vllm", "model": MODEL, "engine_args": {"max_num_seqs": SEATS}}
    ],
    "admission": {"enabled": True, "max_wait_s": {"bulk": BULK_WAITS_S}},
    "slos": {"interactive": {"ttft_s": 2.0, "tpot_s": 0.5}},
    "policy": {"name": "motley"},
}


@dataclass
class Asked:
    """One request as its client saw it; times count from the beginning of the run."""

    slo_class: str
    at_s: float
    ttft_s: float = float("inf")
    done_s: float = float("inf")
    status: int = 0

    @property
    def good(self) -> bool:
        """Whether it was served within the target of its class."""
        if self.slo_class == "bulk":
            return self.status == 200 and self.done_s - self.at_s <= BULK_S
        return self.status == 200 and self.ttft_s <= 2.0


async def one(client: httpx.AsyncClient, asked: Asked, began_s: float) -> None:
    messages = [{"role": "user", "content": "hello " * 40}]
    body = {"model": MODEL, "messages": messages, "max_tokens": TOKENS, "stream": True}
    content = json.dumps({**body, "ignore_eos": True})
    headers = {"x-motley-class": asked.slo_class, "content-type": "application/json"}
    sent_s = time.monotonic()
    path = "/v1/chat/completions"
    async with client.stream("POST", path, content=content, headers=headers) as answer:
        async for piece in answer.aiter_raw():
            if b'"content":"' in piece and asked.ttft_s == float("inf"):
                asked.ttft_s = time.monotonic() - sent_s
        asked.status = answer.status_code
    asked.done_s = time.monotonic() - began_s


async def load(gate: Gateway, spans: list[tuple[float, float]], seed: int) -> list[Asked]:
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


def goodput(everyone: list[Asked], begin_s: float, end_s: float) -> float:
    return sum(a.good and begin_s <= a.done_s < end_s for a in everyone) / (end_s - begin_s)


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_three_times_the_capacity() -> None:
    config = load_config(CONFIG)
    with EngineHost(config.fleet.backends) as host:
        host.start(speed=1.0)
        host.wait_until_ready()
        with_url = json.loads(json.dumps(CONFIG))
        with_url["backends"][0]["url"] = next(iter(host.urls.values()))
        async with running(with_url) as gate:
            # As much as fits: what the engine delivers when it never idles.
            flat = await load(gate, [(10.0, 8.0)], 1)
            # Over as many seconds as the flood is looked at: short windows flatter the peak.
            capacity = goodput(flat, 3.0, 11.0)
            spans = [(0.6 * capacity, 6.0), (3.0 * capacity, 12.0), (0.6 * capacity, 12.0)]
            everyone = await load(gate, spans, 2)
            gate.assert_at_rest()
    assert {a.status for a in everyone} <= {200, 429, 503}
    flood = goodput(everyone, 10.0, 18.0)
    assert flood >= 0.9 * capacity, (flood, capacity)
    urgent = [a for a in everyone if a.slo_class == "interactive" and 6.0 <= a.at_s < 18.0]
    kept = sum(a.good for a in urgent) / len(urgent)
    assert kept >= 0.9, kept
    bulk = [a for a in everyone if a.slo_class == "bulk" and 6.0 <= a.at_s < 18.0]
    assert any(a.status in (429, 503) or a.ttft_s > 5.0 for a in bulk), "bulk makes way"
    late = [a for a in everyone if a.slo_class == "interactive" and a.at_s >= 20.0]
    assert sum(a.good for a in late) / len(late) >= 0.95, "well again two seconds after"
