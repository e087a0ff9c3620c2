"""The gateway in front of two real ``llama-server``, as ``engine: llamacpp``."""

from __future__ import annotations

import asyncio
import re
import signal
import time

import openai
import pytest

from tests.engines.conftest import need
from tests.engines.fleet import (
    HELLO,
    MODEL,
    anonymous,
    body,
    config,
    data_events,
    post,
    running_in,
    streamed,
)
from tests.engines.servers import Wanted, serving
from tests.engines.test_deaths import rest_of, started
from tests.router.gateway.fakes import eventually, running

pytestmark = [pytest.mark.engines, pytest.mark.timeout(600)]

LLAMAS = {
    "fast": Wanted("llamacpp", "tiny", serves=MODEL),
    "slow": Wanted("llamacpp", serves=MODEL),
}
SLOTS = 2
USAGE = {"stream": True, "stream_options": {"include_usage": True}}
ASKS = {
    "chat": ("/v1/chat/completions", body()),
    "chat, streamed": ("/v1/chat/completions", body(stream=True)),
    "chat, streamed, usage": ("/v1/chat/completions", body(**USAGE)),
    "completion": ("/v1/completions", body(chat=False)),
    "completion, streamed": ("/v1/completions", body(chat=False, **USAGE)),
}


@pytest.fixture(scope="module")
def llamas(models):
    """A fast one and a slow one; each has two slots of 2,048 tokens."""
    need("llamacpp")
    with serving(models, *LLAMAS.values()) as servers:
        yield dict(zip(LLAMAS, servers, strict=True))


@pytest.fixture
async def gate(llamas):
    """Both behind a gateway that takes them for the same card."""
    async with running(as_llamacpp(llamas)) as opened:
        yield opened
        await eventually(lambda: opened.relay.engine.live == 0)
        opened.assert_at_rest()


def as_llamacpp(servers, **settings):
    """As ``motley`` is told of them: how they were started."""
    told = config(servers, **settings)
    for entry in told["backends"]:
        entry |= {"engine": "llamacpp", "max_model_len": 2048}
        del entry["max_num_seqs"]
        entry["engine_args"] = {"parallel": SLOTS, "ctx-size": 4096}
    return told


def untimed(answer: bytes) -> bytes:
    """Without what differs every time; ``llama-server`` tells how long each part took."""
    answer = re.sub(rb'"timings":\{[^}]*\}', b'"timings":{}', anonymous(answer))
    return re.sub(rb'"cached_tokens":\d+', b'"cached_tokens":0', answer)


@pytest.mark.parametrize("ask", ASKS)
async def test_answers_are_the_engines_byte_for_byte(llamas, gate, ask):
    path, content = ASKS[ask]
    for _ in range(2):  # one after the other
        other = await post(gate.url, content, path)
        name = other.headers["x-motley-backend"]
        one = await post(llamas[name].url, content, path)
        assert (one.status_code, other.status_code) == (200, 200)
        assert other.headers["content-type"] == one.headers["content-type"]
        assert untimed(one.content) == untimed(other.content)


async def test_tokens_are_counted_whether_the_engine_tells_them_or_not(gate):
    for more in (USAGE, {"stream": True}, {}):
        answer = await post(gate.url, body(tokens=20, **more))
        assert answer.status_code == 200
    assert gate.books["completed"] == 3
    page = (await gate.get("/metrics")).text
    told = re.findall(r"^motley_output_tokens_total\{.*\} (\S+)$", page, re.MULTILINE)
    assert 60.0 <= sum(map(float, told)) <= 61.0, "its last event is beside those of the tokens"


async def test_a_busy_engine_and_what_it_had_cached_are_read(llamas):
    async with running(as_llamacpp({"slow": llamas["slow"]})) as gate:
        (backend,) = gate.relay.engine.dispatcher.state.backends
        assert backend.max_num_seqs == SLOTS
        await eventually(lambda: backend.signals is not None, 10)
        asking = [asyncio.create_task(post(gate.url, body(tokens=300))) for _ in range(4)]
        await eventually(lambda: (backend.signals.running, backend.signals.waiting) == (2, 2), 30)
        answers = await asyncio.gather(*asking)
        assert {answer.status_code for answer in answers} == {200}
        await eventually(lambda: (backend.signals.running, backend.signals.waiting) == (0, 0), 10)
        assert 0.0 < backend.signals.prefix_hit_ratio < 1.0


async def test_a_client_that_leaves_a_stream_frees_the_slot(llamas):
    """Of an answer that is not streamed ``llama-server`` computes the rest, whoever asks it."""
    server = llamas["slow"]
    async with running(as_llamacpp({"slow": server})) as gate:
        asking = asyncio.create_task(post(gate.url, body(tokens=1_900, stream=True)))
        async with asyncio.timeout(30):
            while not await running_in(server):
                await asyncio.sleep(0.05)
        asking.cancel()
        await asyncio.wait([asking])
        left_s = time.monotonic()
        async with asyncio.timeout(30):
            while await running_in(server):
                await asyncio.sleep(0.05)
        assert time.monotonic() - left_s < 5.0
        await eventually(lambda: gate.books["cancelled"] == 1)


async def test_what_it_refuses_is_the_clients_and_opens_no_breaker(gate):
    long = body(messages=[{"role": "user", "content": "hello there you " * 800}])
    embeddings = b'{"model":"random-llama","input":"hi"}'
    for _ in range(6):
        answer = await post(gate.url, long)
        assert answer.status_code == 400
        assert "exceeds the available context size" in answer.json()["error"]["message"]
        answer = await post(gate.url, embeddings, "/v1/embeddings")
        assert answer.status_code == 501
        assert "does not support embeddings" in answer.json()["error"]["message"]
    assert {b.breaker.state for b in gate.relay.engine.dispatcher.state.backends} == {"closed"}
    assert (await post(gate.url, body())).status_code == 200


async def test_the_openai_sdk_is_served(gate):
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="k", max_retries=0) as client:
        whole = await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=8)
        assert whole.usage.completion_tokens <= 8
        stream = await client.chat.completions.create(
            model=MODEL, messages=HELLO, max_tokens=8, stream=True, extra_body={"ignore_eos": True}
        )
        text = [c.choices[0].delta.content async for c in stream if c.choices]
        assert len([t for t in text if t]) == 8
        responded = await client.responses.create(model=MODEL, input="hi", max_output_tokens=8)
        assert responded.output_text


@pytest.mark.parametrize("how", [signal.SIGKILL, signal.SIGTERM])
async def test_one_that_dies_in_mid_answer_is_told_truly_and_left_out(models, llamas, how):
    """After SIGTERM it says nothing more and ends nothing: the idle timeout ends the answer."""
    reliability = {"idle_timeout_s": 3.0, "health_interval_s": 0.5}
    with serving(models, LLAMAS["slow"]) as (doomed,):
        both = {"doomed": doomed, "fast": llamas["fast"]}
        async with running(as_llamacpp(both, reliability=reliability)) as gate:
            async with streamed(gate.url, body(tokens=1_900, stream=True)) as answer:
                assert answer.headers["x-motley-backend"] == "doomed"
                seen, pieces = await started(answer)
                doomed.process.send_signal(how)
                async with asyncio.timeout(30):
                    rest, cut = await rest_of(pieces)
            assert cut
            assert b"[DONE]" not in rest
            assert "doomed" in data_events(seen + rest)[-1]["error"]["message"]
            for _ in range(4):
                later = await post(gate.url, body())
                assert (later.status_code, later.headers["x-motley-backend"]) == (200, "fast")
            await eventually(lambda: gate.relay.engine.live == 0)
            assert (gate.books["failed"], gate.books["completed"]) == (1, 4)
