"""Two backends share a request over HTTP: by vLLM's protocol, by SGLang's, and when either fails.

The engines are emulated ones: they move KV between each other as the real ones do, and a prompt
that was received is not computed again.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from dataclasses import replace
from typing import Any

import httpx
import pytest

from router.domain.fleet import BackendSpec, Role
from router.gateway.kv_transfer import prompt_only, shareable, with_fields
from simulator.engine_server.build import EngineOptions
from simulator.engine_server.fleet import make_server
from simulator.engine_server.listening import listen
from simulator.engine_server.server import EngineServer
from tests.router.gateway.fakes import MODEL, Gateway, eventually, running

LONG = "word " * 2_000  # 2,500 tokens by the emulator's rule
SPEED = 20.0
SPLIT = {"enabled": True, "min_prompt_tokens": 16}
BOTH = ("vllm", "sglang")
Ask = Callable[..., Awaitable[Any]]


class Pair:
    """Emulated engines and a gateway before them."""

    def __init__(self, stack: AsyncExitStack, front_end: str) -> None:
        self._stack, self._front_end = stack, front_end
        self.engines: dict[str, EngineServer] = {}
        self._entries: list[dict[str, Any]] = []
        self.gate: Gateway

    async def add(self, name: str, engine: Any, role: Role, gpu: str = "a100-80") -> EngineServer:
        listener = listen("127.0.0.1", 0)
        port = listener.getsockname()[1]
        spec = BackendSpec(name, gpu, engine, MODEL, role=role)
        if role == "prefill" and engine == "sglang":
            spec = replace(spec, bootstrap_port=port)
        server = make_server(spec, listener, EngineOptions(speed=SPEED))
        await server.start()
        self._stack.push_async_callback(server.stop)
        self.engines[name] = server
        entry: dict[str, Any] = {"name": name, "gpu": gpu, "engine": engine, "model": MODEL}
        entry |= {"role": role, "url": f"http://127.0.0.1:{port}"}
        if spec.bootstrap_port is not None:
            entry["bootstrap_port"] = port
        self._entries.append(entry)
        return server

    async def open(self, **sections: Any) -> Gateway:
        config = {
            "backends": self._entries,
            "disaggregation": SPLIT,
            "telemetry": {"enabled": False},
            "reliability": {"health_interval_s": 3600.0, "queue_timeout_s": 5.0},
            **sections,
        }
        self.gate = await self._stack.enter_async_context(running(config, self._front_end))
        return self.gate

    async def at_rest(self) -> None:
        """Nothing is under way anywhere: in the books, in the exchanges, in the engines (I2)."""
        await eventually(lambda: self.gate.relay.engine.live == 0)
        self.gate.assert_at_rest()
        alive = [server.app for server in self.engines.values()]
        await eventually(lambda: all(app.driver.in_engine == 0 for app in alive))


@pytest.fixture(params=["protocol", "asgi"])
async def pair(request: pytest.FixtureRequest) -> AsyncIterator[Pair]:
    async with AsyncExitStack() as stack:
        yield Pair(stack, request.param)


def body(*, stream: bool = True, tokens: int = 20, **more: Any) -> bytes:
    messages = [{"role": "user", "content": LONG}]
    asked = {"model": MODEL, "messages": messages, "max_tokens": tokens, "ignore_eos": True}
    return json.dumps(asked | {"stream": stream} | more).encode()


def said(content: bytes, *, stream: bool) -> str:
    if not stream:
        return str(json.loads(content)["choices"][0]["message"]["content"])
    events = [line[6:] for line in content.split(b"\n") if line.startswith(b"data: {")]
    choices = [choice for e in events for choice in json.loads(e)["choices"]]
    return "".join(choice["delta"].get("content") or "" for choice in choices)


async def post(gate: Gateway, asked: bytes, **headers: str) -> httpx.Response:
    return await gate.post(body=asked, content_type="application/json", **headers)


WORDS = " ".join(f"w{i}" for i in range(20))


@pytest.mark.parametrize("stream", [True, False])
@pytest.mark.parametrize("engine", BOTH)
async def test_the_prompt_is_computed_here_and_the_answer_there(
    pair: Pair, engine: str, stream: bool
) -> None:
    first = await pair.add("first", engine, "prefill")
    then = await pair.add("then", engine, "decode")
    gate = await pair.open()
    answered = await post(gate, body(stream=stream), x_motley_explain="1")
    assert answered.status_code == 200, answered.text
    assert said(answered.content, stream=stream) == WORDS
    assert answered.headers["x-motley-backend"] == "then"
    assert answered.headers["x-motley-prefill"] == "first"
    assert "prefill=first" in answered.headers["x-motley-explain"]
    handover = then.app.completions.handover
    assert handover is not None
    assert (handover.received, handover.recomputed) == (1, 0)
    prompt = first.app.driver.stats.computed_tokens
    assert prompt > 2_000
    assert then.app.driver.stats.computed_tokens == 1, "it was received, not computed again"
    await pair.at_rest()
    assert gate.books["completed"] == 1
    told = (await gate.get("/metrics")).text
    assert 'motley_disaggregated_total{backend="then",prefill="first"} 1.0' in told
    pairing = gate.relay.engine.dispatcher.pairing
    assert pairing is not None
    assert 2e8 < pairing.moved_bytes < 5e8, "2,500 tokens of 131 kB"
    assert "\nmotley_kv_transfer_bytes_total " in told
    request_id = answered.headers["x-request-id"]
    account = (await gate.get(f"/debug/decisions/{request_id}")).json()
    assert account["pair"]["prefill"] == "first"
    assert account["pair"]["decode"] == "then"


@pytest.mark.parametrize("engine", BOTH)
@pytest.mark.parametrize("ill", ["first", "then"])
async def test_if_either_side_fails_another_pair_serves(pair: Pair, engine: str, ill: str) -> None:
    roles: dict[str, Role] = {"first": "prefill", "then": "decode"}
    for name, role in roles.items():
        await pair.add(name, engine, role, gpu="h100")
        await pair.add(f"{name}-2", engine, role)
    gate = await pair.open()
    await pair.engines[ill].stop()
    answered = await post(gate, body())
    assert answered.status_code == 200, answered.text
    assert said(answered.content, stream=True) == WORDS
    assert ill not in (answered.headers["x-motley-backend"], answered.headers["x-motley-prefill"])
    del pair.engines[ill]
    await pair.at_rest()
    told = (await gate.get("/metrics")).text
    side = roles[ill]
    counted = f'motley_disaggregation_failures_total{{backend="{ill}",side="{side}"}} 1.0'
    assert counted in told
    assert f'motley_retries_total{{backend="{ill}",reason="connect"}} 1.0' in told


@pytest.mark.parametrize("ill", ["first", "then"])
async def test_or_it_is_served_whole(pair: Pair, ill: str) -> None:
    await pair.add("first", "vllm", "prefill", gpu="h100")
    await pair.add("then", "vllm", "decode", gpu="h100")
    await pair.add("old", "vllm", "both", gpu="l4")
    gate = await pair.open()
    await pair.engines.pop(ill).stop()
    answered = await post(gate, body())
    assert answered.headers["x-motley-backend"] == "old"
    assert "x-motley-prefill" not in answered.headers
    assert said(answered.content, stream=True) == WORDS
    await pair.at_rest()


@pytest.mark.parametrize("engine", BOTH)
async def test_an_engine_that_dies_at_work_loses_nobody(pair: Pair, engine: str) -> None:
    roles: dict[str, Role] = {"first": "prefill", "then": "decode"}
    for name, role in roles.items():
        await pair.add(name, engine, role)
        await pair.add(f"{name}-2", engine, role)
    gate = await pair.open()
    asked = [asyncio.create_task(post(gate, body(tokens=5))) for _ in range(12)]
    await eventually(lambda: pair.engines["first"].app.driver.in_engine > 0)
    dead = pair.engines.pop("first")
    await dead.stop()
    answers = await asyncio.gather(*asked)
    assert [a.status_code for a in answers] == [200] * 12, [a.text[:200] for a in answers]
    assert {said(a.content, stream=True) for a in answers} == {"w0 w1 w2 w3 w4"}
    await pair.at_rest()
    assert gate.books["completed"] == 12


@pytest.mark.parametrize("engine", BOTH)
async def test_a_client_that_leaves_stops_both(pair: Pair, engine: str) -> None:
    first = await pair.add("first", engine, "prefill")
    then = await pair.add("then", engine, "decode")
    gate = await pair.open()
    first.app.driver.slow_down(1_000.0)
    leaver = asyncio.create_task(post(gate, body()))
    await eventually(lambda: first.app.driver.in_engine == 1)
    leaver.cancel()
    await eventually(lambda: gate.books["cancelled"] == 1)
    await pair.at_rest()
    assert first.app.driver.stats.aborted == 1
    assert then.app.driver.in_engine == 0


async def test_an_engine_that_keeps_no_kv_is_found_out(pair: Pair) -> None:
    first = await pair.add("first", "vllm", "prefill", gpu="h100")
    await pair.add("then", "vllm", "decode", gpu="h100")
    await pair.add("old", "vllm", "both", gpu="l4")
    first.app.completions.handover = None  # started without --kv-transfer-config
    gate = await pair.open()
    answered = await post(gate, body())
    assert answered.headers["x-motley-backend"] == "old"
    told = (await gate.get("/metrics")).text
    assert 'motley_retries_total{backend="first",reason="no_kv"} 1.0' in told
    await pair.at_rest()


async def test_the_engines_own_refusal_reaches_the_client(pair: Pair) -> None:
    await pair.add("first", "vllm", "prefill")
    await pair.add("then", "vllm", "decode")
    gate = await pair.open()
    answered = await post(gate, body(temperature=-1))
    assert answered.status_code == 400
    assert "temperature" in answered.json()["error"]["message"]
    await pair.at_rest()


async def test_what_cannot_be_shared_is_served_whole(pair: Pair) -> None:
    await pair.add("first", "vllm", "prefill", gpu="h100")
    await pair.add("then", "vllm", "decode", gpu="h100")
    await pair.add("old", "vllm", "both", gpu="l4")
    gate = await pair.open()
    answered = await post(gate, body(best_of=2))
    assert answered.headers["x-motley-backend"] == "old"
    await pair.at_rest()


CHAT = b"/v1/chat/completions"


@pytest.mark.parametrize(
    ("path", "asked", "may"),
    [
        (CHAT, {}, True),
        (CHAT, {"n": 1, "stream": True}, True),
        (CHAT, {"n": 2}, False),
        (b"/v1/embeddings", {}, False),
        (b"/v1/completions", {"prompt": "one"}, True),
        (b"/v1/completions", {"prompt": ["one", "two"]}, False),
        (b"/v1/completions", {"prompt": "one", "echo": True}, False),
        (CHAT, {"prompt_logprobs": 1}, False),
    ],
)
def test_who_may_be_shared(path: bytes, asked: dict[str, Any], may: bool) -> None:
    assert shareable(path, json.dumps(asked).encode()) is may
    assert not shareable(path, b"not json")


def test_the_prompts_half_asks_for_one_token_and_the_rest_is_the_clients_own_bytes() -> None:
    sent = b'{"model":"m","x":1.50,"stream":true,"stream_options":{"include_usage":true},'
    sent += b'"max_completion_tokens":400,"min_tokens":9}'
    half = json.loads(prompt_only(sent))
    assert half["kv_transfer_params"]["do_remote_decode"] is True
    assert (half["max_tokens"], half["max_completion_tokens"], half["stream"]) == (1, 1, False)
    assert {"stream_options", "min_tokens"}.isdisjoint(half)
    assert b'"x":1.50' in prompt_only(sent), "no number is written anew"
    assert b'"x":1.50' in with_fields(sent, {"bootstrap_room": 7})
