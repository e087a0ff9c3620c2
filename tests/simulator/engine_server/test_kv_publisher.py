"""An emulated engine publishes its cache's events, and the gateway's subscriber follows them."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import httpx
import zmq.asyncio

from router.domain.fleet import BackendSpec
from router.gateway.kv_events.follow import Follower
from router.gateway.kv_events.subscribe import Subscriber
from simulator.engine_server.build import EngineOptions
from simulator.engine_server.fleet import make_server
from simulator.engine_server.listening import listen
from tests.fakes import ask, outcome
from tests.fakes.http_server import free_port

MODEL = "llama-3.1-8b"


class Told:
    """Stands in for the dispatcher."""

    def __init__(self) -> None:
        self.evicted: list[int] = []
        self.restarts = 0

    def cached(self, backend: str, now: float, **told: Any) -> None:
        self.evicted += told["evicted"]

    def restarted(self, backend: str, now: float) -> None:
        self.restarts += 1


async def test_what_is_stored_and_evicted_is_heard_as_it_happens() -> None:
    events, replay = (f"tcp://127.0.0.1:{free_port()}" for _ in range(2))
    spec = BackendSpec(
        "e",
        "a100-80",
        "vllm",
        MODEL,
        kv_capacity_tokens=4_096,
        max_model_len=3_000,
        kv_events=events,
        kv_replay=replay,
    )
    listener = listen("127.0.0.1", 0)
    url = f"http://127.0.0.1:{listener.getsockname()[1]}"
    server = make_server(spec, listener, EngineOptions(speed=50.0))
    await server.start()
    context = zmq.asyncio.Context()
    follower = Follower("e", told := Told())
    subscriber = Subscriber(spec, follower, asyncio.get_running_loop().time, context)
    listening = asyncio.create_task(subscriber.run())
    try:
        async with httpx.AsyncClient(base_url=url, timeout=20.0) as client, asyncio.timeout(20):
            first = await complete(client, "a" * 4_000, 33)
            # Until the subscription stands; what came before is replayed: prompt and answer.
            while follower.counts["stored"] <= first["prompt_tokens"] // 16:
                await complete(client, f"{len(told.evicted)} warm" * 30, 2)
                await asyncio.sleep(0.02)
            request = ask("r", prompt_tokens=500, prefix_hashes=(71,), prefix_block_tokens=250)
            follower.sent(request, asyncio.get_running_loop().time())
            again = await complete(client, "b" * 2_000, 40)
            done = outcome(
                "e",
                request_id="r",
                prompt_tokens=again["prompt_tokens"],
                output_tokens=again["completion_tokens"],
            )
            await asyncio.sleep(0.1)
            follower.observe(done)
            assert follower.counts["learned"] == 1
            for letter in "cdefgh":  # more than the cache holds
                await complete(client, letter * 6_000, 2)
            while not told.evicted:
                await asyncio.sleep(0.02)
            assert told.evicted == [71]
    finally:
        listening.cancel()
        await server.stop()
        context.destroy(linger=0)


async def complete(client: httpx.AsyncClient, prompt: str, tokens: int) -> dict[str, int]:
    body = {"model": MODEL, "prompt": prompt, "max_tokens": tokens, "ignore_eos": True}
    headers = {"content-type": "application/json"}
    answer = await client.post("/v1/completions", content=json.dumps(body), headers=headers)
    assert answer.status_code == 200, answer.text
    usage: dict[str, int] = answer.json()["usage"]
    return usage
