"""Which engines are started, what is asked of them, and what they say of themselves."""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import httpx

from telemetry.engine_metrics import read
from tests.engines.servers import Server, Wanted

MODEL = "random-llama"
KV_TOKENS = 32_768
FLEET = {
    "fast": Wanted("vllm", "tiny", "bytes", MODEL, {"--shutdown-timeout": "20"}),
    "slow": Wanted("vllm", "small", "bytes", MODEL),
    "sglang": Wanted(
        "sglang",
        "tiny",
        "bytes",
        MODEL,
        {"--max-running-requests": "2", "--max-queued-requests": "4"},
        ("--enable-priority-scheduling",),
    ),
}
NARROW = Wanted(
    "vllm",
    "tiny",
    "bytes",
    MODEL,
    {
        "--max-num-seqs": "1",
        "--max-num-queued-reqs": "3",
        "--sse-keep-alive-interval": "1",
        "--scheduling-policy": "priority",
    },
)
"""Serves one at a time, sends comments to the next two and refuses the fourth."""
BELIEF = {"step_s": 0.012, "prefill_s": 1e-4, "seq_s": 1e-3, "context_s": 1e-8}
HELLO = [{"role": "user", "content": "say hello to the fleet"}]


@dataclass(frozen=True)
class Fleet:
    """The running engines by name."""

    servers: dict[str, Server]

    def only(self, *names: str) -> dict[str, Server]:
        """Some of them."""
        return {name: self.servers[name] for name in names}


def config(backends: dict[str, Server], **settings: Any) -> dict[str, Any]:
    """A gateway in front of these engines, all believed to be the same card with the same speed.

    Nothing but traffic tells it which is slow.
    """
    entry = {"gpu": "l4", "model": MODEL, "max_model_len": 4096, "max_num_seqs": 32}
    return {
        "backends": [
            {**entry, "name": name, "url": server.url, "engine": engine_of(name)}
            for name, server in backends.items()
        ],
        "models": {
            MODEL: {"parameters": 36_000_000, "layers": 8, "hidden_size": 512, "kv_heads": 4}
        },
        "overrides": [{"gpu": "l4", **BELIEF}],
        "policy": {"name": "round-robin"},
        "telemetry": {"scrape_interval_s": 0.2},
        **settings,
    }


def engine_of(name: str) -> str:
    """By a backend's name."""
    return "sglang" if name.startswith("sglang") else "vllm"


def body(*, chat: bool = True, tokens: int = 16, **more: Any) -> bytes:
    """A request that does not end early and always says the same."""
    asks: dict[str, Any] = {"messages": HELLO} if chat else {"prompt": "say hello"}
    fixed = {"model": MODEL, "max_tokens": tokens, "temperature": 0.0, "ignore_eos": True}
    return json.dumps({**fixed, **asks, **more}).encode()


async def post(url: str, content: bytes, path: str = "/v1/chat/completions") -> httpx.Response:
    """One request, whole."""
    async with httpx.AsyncClient(base_url=url, timeout=120.0) as client:
        return await client.post(path, content=content, headers=JSON)


JSON = {"content-type": "application/json"}


@asynccontextmanager
async def streamed(url: str, content: bytes) -> AsyncIterator[httpx.Response]:
    """One streamed answer, unread."""
    async with (
        httpx.AsyncClient(base_url=url, timeout=120.0) as client,
        client.stream("POST", "/v1/chat/completions", content=content, headers=JSON) as answer,
    ):
        yield answer


async def running_in(server: Server) -> int:
    """Requests that an engine says it is computing or keeps waiting."""
    async with httpx.AsyncClient(timeout=30.0) as client:
        page = (await client.get(f"{server.url}/metrics")).content
    signals = read(page, "vllm", 0.0).signals
    assert signals.running is not None
    return signals.running + (signals.waiting or 0)


async def counter(server: Server, name: str) -> float:
    """One of an engine's own counters, added up."""
    async with httpx.AsyncClient(timeout=30.0) as client:
        page = (await client.get(f"{server.url}/metrics")).text
    found = re.findall(rf"^{name}(?:{{[^}}]*}})? (\S+)$", page, re.MULTILINE)
    return sum(map(float, found))


def anonymous(answer: bytes) -> bytes:
    """Bytes of an answer without what differs every time: ids, dates and durations."""
    answer = re.sub(rb'"(id|request_id|item_id|response_id)":"[^"]*"', rb'"\1":""', answer)
    return re.sub(rb'"(created|created_at|completed_at|e2e_latency)":[0-9.]+', rb'"\1":0', answer)


def data_events(raw: bytes) -> list[dict[str, Any]]:
    """The JSON events of a stream."""
    lines = [line[6:] for line in raw.split(b"\n") if line.startswith(b"data: ")]
    return [json.loads(line) for line in lines if line != b"[DONE]"]


async def fill(
    server: Server, count: int, tokens: int = 3_500, beside: int = 0, **more: Any
) -> list[asyncio.Task[Any]]:
    """Give an engine so many long requests, one by one, ``beside`` those that it has.

    Cancel them with ``drop``.
    """
    asking: list[asyncio.Task[Any]] = []
    async with asyncio.timeout(60):
        for wanted in range(beside + 1, beside + count + 1):
            asking.append(asyncio.create_task(post(server.url, body(tokens=tokens, **more))))
            while await running_in(server) < wanted:
                await asyncio.sleep(0.02)
    return asking


async def drop(server: Server, asking: list[asyncio.Task[Any]]) -> None:
    """Leave, and wait until the engine has noticed."""
    for task in asking:
        task.cancel()
    await asyncio.gather(*asking, return_exceptions=True)
    async with asyncio.timeout(30):
        while await running_in(server):
            await asyncio.sleep(0.1)
