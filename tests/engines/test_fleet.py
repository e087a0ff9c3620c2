"""The gateway in front of two real vLLMs and a real SGLang: what clients and operators rely on."""

from __future__ import annotations

import asyncio
import json
import re
import time
from collections import Counter
from contextlib import AsyncExitStack, asynccontextmanager

import httpx
import pytest

from tests.engines.fleet import (
    JSON,
    KV_TOKENS,
    anonymous,
    body,
    counter,
    data_events,
    drop,
    fill,
    post,
    running_in,
    streamed,
)
from tests.router.gateway.fakes import eventually

pytestmark = [pytest.mark.engines, pytest.mark.timeout(2_400)]

ENGINES = ["fast", "sglang"]
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
ASKS = {
    "chat": ("/v1/chat/completions", body()),
    "chat, streamed": ("/v1/chat/completions", body(stream=True)),
    "chat, streamed, usage": ("/v1/chat/completions", body(**USAGE)),
    "chat, logprobs": ("/v1/chat/completions", body(logprobs=True, top_logprobs=2)),
    "completion": ("/v1/completions", body(chat=False)),
    "completion, streamed": ("/v1/completions", body(chat=False, **USAGE)),
    "tokenize": ("/tokenize", b'{"model":"random-llama","prompt":"say hello"}'),
}


@pytest.mark.parametrize("ask", ASKS)
@pytest.mark.parametrize("name", ENGINES)
async def test_answers_are_the_engines_byte_for_byte(fleet, gateway, name, ask):
    """Under load an engine may put two tokens into one event, so streams get a few tries."""
    path, content = ASKS[ask]
    gate = await gateway(fleet.only(name))
    direct, routed = set(), set()
    for _ in range(8):
        one = await post(fleet.servers[name].url, content, path)
        other = await post(gate.url, content, path)
        assert one.status_code == other.status_code == 200
        assert other.headers["content-type"] == one.headers["content-type"]
        assert other.headers["x-motley-backend"] == name
        direct.add(anonymous(one.content))
        routed.add(anonymous(other.content))
        if direct & routed:
            return
    pytest.fail(f"{direct} and {routed} have nothing in common")


@asynccontextmanager
async def slowed(server, seconds):
    """An SGLang that sleeps in every iteration."""
    await post(server.url, json.dumps({"forward_sleep_time": seconds}).encode(), "/slow_down")
    try:
        yield
    finally:
        await post(server.url, b'{"forward_sleep_time": null}', "/slow_down")


@pytest.mark.parametrize("name", ["slow", "sglang"])
@pytest.mark.parametrize("stream", [True, False])
async def test_a_client_that_leaves_stops_the_engine(fleet, gateway, name, stream):
    server = fleet.servers[name]
    gate = await gateway(fleet.only(name))
    async with AsyncExitStack() as stack:
        if name == "sglang":
            await stack.enter_async_context(slowed(server, 0.02))
        asking = asyncio.create_task(post(gate.url, body(tokens=3_500, stream=stream)))
        async with asyncio.timeout(30):
            while not await running_in(server):
                await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait([asking])
        left_s = time.monotonic()
        async with asyncio.timeout(30):
            while await running_in(server):
                await asyncio.sleep(0.05)
        # The whole answer takes a minute. SGLang looks only every few seconds whether a client
        # that waits for a whole one is still there.
        assert time.monotonic() - left_s < 15.0
    await eventually(lambda: gate.books["cancelled"] == 1)


@pytest.mark.parametrize("name", ENGINES)
async def test_the_metrics_of_a_busy_engine_are_read(fleet, gateway, name):
    gate = await gateway(fleet.only(name))
    (backend,) = gate.relay.engine.dispatcher.state.backends
    asking = [asyncio.create_task(post(gate.url, body(tokens=1_500))) for _ in range(4)]
    await eventually(lambda: backend.signals is not None and backend.signals.running, 30)
    seen = backend.signals
    assert 1 <= seen.running <= 4
    # SGLang here runs two at once and keeps the others.
    await eventually(
        lambda: backend.signals.running + backend.signals.waiting == 4 or asking[0].done(), 30
    )
    assert backend.signals.kv_capacity_tokens == KV_TOKENS
    await eventually(lambda: 0.0 < backend.signals.kv_usage < 1.0, 30)
    answers = await asyncio.gather(*asking)
    assert {answer.status_code for answer in answers} == {200}
    await eventually(lambda: backend.signals.running == 0, 30)


async def test_vllm_sends_its_load_along_with_its_answers(fleet, gateway):
    """ORCA: asked for by a header, read from each answer, never shown to the client."""
    gate = await gateway(fleet.only("fast"))
    for _ in range(3):
        answer = await post(gate.url, body(tokens=8, stream=False))
        assert answer.status_code == 200
        assert not any("endpoint-load" in header for header in answer.headers)
    told = (await gate.get("/debug/signals")).json()["backends"]["fast"]
    assert told["orca_headers"] >= 1  # not more often than it is of use


@pytest.mark.parametrize("name", ENGINES)
async def test_chunks_are_not_tokens(fleet, gateway, name):
    """A token that is half a character gets no chunk; the engine's own count is what counts."""
    gate = await gateway(fleet.only(name))
    answer = await post(gate.url, body(tokens=128, temperature=1.0, seed=7, **USAGE))
    events = data_events(answer.content)
    told = [event["usage"]["completion_tokens"] for event in events if event.get("usage")]
    chunks = sum(
        bool(choice["delta"].get("content")) for event in events for choice in event["choices"]
    )
    assert told == [128]
    assert chunks < 128
    page = (await gate.get("/metrics")).text
    assert re.search(r"^motley_output_tokens_total{[^}]*} 128\.0$", page, re.MULTILINE), page


async def test_an_unknown_model_never_reaches_an_engine_that_would_take_it(fleet, gateway):
    unknown = body().replace(b"random-llama", b"gpt-5")
    direct = await post(fleet.servers["sglang"].url, unknown)
    assert (direct.status_code, direct.json()["model"]) == (200, "gpt-5")
    gate = await gateway(fleet.only("sglang"))
    routed = await post(gate.url, unknown)
    assert routed.status_code == 404
    assert routed.json()["error"]["code"] == "model_not_found"


MISTAKES = {
    "temperature": body(temperature=-1.0),
    "no messages": b'{"model":"random-llama"}',
    "too long": body(tokens=5_000),
}


@pytest.mark.parametrize("mistake", MISTAKES)
@pytest.mark.parametrize("name", ENGINES)
async def test_errors_have_one_shape_whatever_the_engines_say(fleet, gateway, name, mistake):
    gate = await gateway(fleet.only(name))
    direct = await post(fleet.servers[name].url, MISTAKES[mistake])
    routed = await post(gate.url, MISTAKES[mistake])
    assert routed.status_code == direct.status_code == 400
    assert ("error" in direct.json()) is (name == "fast")  # SGLang's are flat
    error = routed.json()["error"]
    assert set(error) == {"message", "type", "param", "code"}
    assert error["message"] in direct.text or json.dumps(error["message"])[1:-1] in direct.text


async def test_sglangs_full_queue_inside_a_200_is_a_503_and_goes_elsewhere(fleet, gateway):
    """Two run, four wait: the seventh stream gets HTTP 200 and then an error event."""
    server = fleet.servers["sglang"]
    filling = await fill(server, 6)
    async with streamed(server.url, body(stream=True)) as answer:
        assert answer.status_code == 200
        told = data_events(await answer.aread())
    assert told[0]["error"]["code"] == 503
    alone = await gateway(fleet.only("sglang"))
    refused = await post(alone.url, body(stream=True))
    assert refused.status_code == 503
    assert refused.headers["retry-after"]
    both = await gateway(fleet.only("sglang", "fast"))
    for _ in range(4):
        answer = await post(both.url, body(stream=True))
        assert (answer.status_code, answer.headers["x-motley-backend"]) == (200, "fast")
    assert {b.breaker.state for b in both.relay.engine.dispatcher.state.backends} == {"closed"}
    await drop(server, filling)


async def test_health_checks_cost_no_generation(fleet, gateway):
    """SGLang's own ``/health`` generates a token each time."""
    server = fleet.servers["sglang"]
    gate = await gateway(fleet.only("sglang"), reliability={"health_interval_s": 0.1})
    before = await counter(server, "sglang:prompt_tokens_total")
    await asyncio.sleep(2.0)
    (backend,) = gate.relay.engine.dispatcher.state.backends
    assert backend.healthy
    assert await counter(server, "sglang:prompt_tokens_total") == before


async def test_the_slow_model_is_used_less(fleet, gateway):
    """Told nothing of their speeds, the gateway learns them from the answers."""
    gate = await gateway(fleet.only("fast", "slow"), policy={"name": "motley"})
    await load(gate, seconds=20.0, at_once=4)
    statuses, used = await load(gate, seconds=20.0, at_once=4)
    learned = corrections(gate)
    assert set(statuses) == {200}
    assert used["fast"] > 2 * used["slow"], (used, learned)
    assert learned["slow"] > 1.5 * learned["fast"], learned


async def test_a_slowdown_is_noticed_and_avoided(fleet, gateway):
    """SGLang can be told to sleep in every iteration, as a card that throttles does."""
    gate = await gateway(fleet.only("slow", "sglang"), policy={"name": "motley"})
    await load(gate, seconds=15.0, at_once=2)
    _, before = await load(gate, seconds=10.0, at_once=2)
    healthy = corrections(gate)["sglang"]
    async with slowed(fleet.servers["sglang"], 0.1):
        await load(gate, seconds=40.0, at_once=2)
        _, after = await load(gate, seconds=15.0, at_once=2)
    throttled = corrections(gate)["sglang"]
    assert share(before, "sglang") > 0.7, before
    assert share(after, "sglang") < 0.3, after
    assert throttled > 2 * healthy, (healthy, throttled)


def corrections(gate):
    """How much slower than the catalogue each backend is believed to decode."""
    return {b.spec.name: b.correction[1] for b in gate.relay.engine.dispatcher.state.backends}


def share(used, name):
    return used[name] / max(1, used.total())


async def load(gate, *, seconds, at_once):
    """Streams one after the other, ``at_once`` side by side; statuses and backends."""
    statuses, backends = Counter(), Counter()
    until_s = time.monotonic() + seconds

    async def keep_asking(client):
        while time.monotonic() < until_s:
            answer = await client.post("/v1/chat/completions", content=body(tokens=48, **USAGE))
            statuses[answer.status_code] += 1
            backends[answer.headers["x-motley-backend"]] += 1

    async with httpx.AsyncClient(base_url=gate.url, timeout=120.0, headers=JSON) as client:
        await asyncio.gather(*[keep_asking(client) for _ in range(at_once)])
    return statuses, backends
