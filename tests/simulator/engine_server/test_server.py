"""Emulated engines on real sockets: the official OpenAI SDK, crashes, processes."""

import asyncio
import os
import signal
import socket
import subprocess
import sys
import time

import httpx
import openai
import pytest
from openai import AsyncOpenAI

from router.domain.errors import MotleyError
from router.domain.fleet import BackendSpec
from simulator.engine_server import host as host_module
from simulator.engine_server.build import EngineOptions
from simulator.engine_server.fleet import EngineFleet
from simulator.engine_server.host import EngineHost
from simulator.engine_server.listening import PortError, listen, url_of
from simulator.engine_server.tokens import LengthRule, words

MODEL = "llama-3.1-8b"
FAST = EngineOptions(speed=50.0)
HELLO = [{"role": "user", "content": "hello"}]


def spec(engine, name="one"):
    return BackendSpec(name, "a100-80", engine, MODEL)


@pytest.fixture(params=["vllm", "sglang"])
async def engine(request):
    """One engine and the base URL it listens on."""
    listener = listen("127.0.0.1", 0)
    url = url_of(listener)
    async with EngineFleet({"one": (spec(request.param), listener)}, FAST) as fleet:
        yield request.param, url, fleet.servers["one"]


def sdk(url):
    return AsyncOpenAI(base_url=f"{url}/v1", api_key="none", max_retries=0, timeout=10)


async def read_on(chunks):
    async for _ in chunks:
        pass


async def test_the_openai_sdk_streams_every_token_in_order(engine):
    _, url, _ = engine
    async with sdk(url) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            stream=True,
            max_tokens=300,
            stream_options={"include_usage": True},
            extra_body={"ignore_eos": True},
        )
        text, usage = "", None
        async for chunk in stream:
            usage = chunk.usage or usage
            text += "".join(choice.delta.content or "" for choice in chunk.choices)
    assert text == words(0, 300)
    assert usage.completion_tokens == 300


async def test_the_openai_sdk_reads_whole_answers_models_and_errors(engine):
    name, url, _ = engine
    async with sdk(url) as client:
        answer = await client.chat.completions.create(model=MODEL, messages=HELLO, max_tokens=3)
        assert answer.choices[0].message.content == "w0 w1 w2"
        legacy = await client.completions.create(model=MODEL, prompt="hello", max_tokens=3)
        assert legacy.choices[0].text == "w0 w1 w2"
        assert [m.id async for m in client.models.list()] == [MODEL]
        with pytest.raises(openai.BadRequestError):
            await client.chat.completions.create(model=MODEL, messages=[])
        if name == "vllm":
            with pytest.raises(openai.NotFoundError, match="does not exist"):
                await client.chat.completions.create(model="nope", messages=HELLO)


async def test_a_client_that_leaves_is_noticed_on_the_socket(engine):
    _, url, server = engine
    async with sdk(url) as client:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            stream=True,
            max_tokens=20_000,
            extra_body={"ignore_eos": True},
        )
        await anext(aiter(stream))
        assert server.app.driver.in_engine == 1
        await stream.close()
        async with asyncio.timeout(5):
            while server.app.driver.in_engine:
                await asyncio.sleep(0.001)


async def test_a_killed_engine_refuses_connections_and_comes_back_when_told(engine):
    _, url, server = engine
    async with httpx.AsyncClient(base_url=url) as client:
        first = server.app
        assert (await client.post("/fault", json={"kill": True, "restart_after_s": 0})).is_success
        async with asyncio.timeout(5):
            while server.app is first:
                await asyncio.sleep(0.001)
            while True:
                try:
                    assert (await client.get("/v1/models")).is_success
                    break
                except httpx.TransportError:
                    await asyncio.sleep(0.001)
    assert not server.gone.is_set()


async def test_a_kill_cuts_the_streams_and_is_for_good(engine):
    _, url, server = engine
    async with sdk(url) as client, httpx.AsyncClient(base_url=url) as control:
        stream = await client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            stream=True,
            max_tokens=20_000,
            extra_body={"ignore_eos": True},
        )
        chunks = aiter(stream)
        await anext(chunks)
        await control.post("/fault", json={"kill": True})
        with pytest.raises((openai.APIError, httpx.TransportError)):
            await read_on(chunks)
        async with asyncio.timeout(5):
            await server.gone.wait()
        with pytest.raises(httpx.TransportError):
            await control.get("/v1/models")


def test_a_taken_port_is_named_with_a_remedy():
    with listen("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(PortError, match=f"port {port} on 127.0.0.1 is taken.*--port"):
            listen("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "192.0.2.1", ".."])
def test_a_foreign_host_is_named(host):
    with pytest.raises(PortError, match=r"not an address of this machine"):
        listen(host, 0)


def test_an_ipv6_url_has_brackets():
    if not socket.has_ipv6:
        pytest.skip("this machine has no IPv6")
    try:
        listener = listen("::1", 0)
    except PortError as error:
        pytest.skip(f"this machine has no IPv6 loopback: {error}")
    with listener:
        assert url_of(listener).startswith("http://[::1]:")


def test_a_process_of_engines_serves_and_stops():
    specs = [spec("vllm", "a"), spec("sglang", "b")]
    with EngineHost(specs) as engines:
        engines.start(speed=50)
        engines.wait_until_ready()
        for name, url in engines.urls.items():
            assert (
                httpx.get(f"{url}/v1/models").json()["data"][0]["owned_by"]
                in {
                    "a": "vllm",
                    "b": "sglang",
                }[name]
            )
    for url in engines.urls.values():
        with pytest.raises(httpx.TransportError):
            httpx.get(f"{url}/v1/models")
    engines.stop()


def test_how_long_answers_get_can_be_what_the_client_asked_for_at_least():
    with EngineHost([spec("vllm")]) as engines:
        engines.start(speed=50, lengths=LengthRule(median_tokens=1.0, sigma=0.0))
        engines.wait_until_ready()
        body = {"messages": HELLO, "min_tokens": 7, "max_tokens": 400}
        for url in engines.urls.values():
            answer = httpx.post(f"{url}/v1/chat/completions", json=body).json()
            assert answer["usage"]["completion_tokens"] == 7
            assert answer["choices"][0]["finish_reason"] == "stop"


def test_engines_go_when_the_parent_dies_however_it_dies():
    parent = """
import sys, time
from router.domain.fleet import BackendSpec
from simulator.engine_server.host import EngineHost
host = EngineHost([BackendSpec("a", "a100-80", "vllm", "llama-3.1-8b")])
host.start()
print(host.urls["a"], flush=True)
time.sleep(60)
"""
    process = subprocess.Popen([sys.executable, "-c", parent], stdout=subprocess.PIPE, text=True)
    url = process.stdout.readline().strip()
    assert httpx.get(f"{url}/health").is_success
    os.kill(process.pid, signal.SIGKILL)
    process.wait()
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        try:
            httpx.get(f"{url}/health")
        except httpx.TransportError:
            break
        time.sleep(0.01)
    else:
        pytest.fail("the engines outlived their parent")
    process.stdout.close()


def test_engines_that_do_not_start_are_an_error(monkeypatch):
    monkeypatch.setattr(host_module.sys, "executable", "/bin/false")
    with EngineHost([spec("vllm")]) as engines:
        engines.start()
        with pytest.raises(MotleyError, match="did not start"):
            engines.wait_until_ready()
