"""Real engines that crash, hang, drain and vanish behind the gateway."""

from __future__ import annotations

import asyncio
import os
import signal
import subprocess
import time
from collections import Counter

import httpx
import pytest

from tests.engines.conftest import need
from tests.engines.fleet import (
    FLEET,
    JSON,
    MODEL,
    NARROW,
    body,
    data_events,
    drop,
    fill,
    post,
    running_in,
    streamed,
)
from tests.engines.servers import Wanted, serving
from tests.router.gateway.fakes import eventually

pytestmark = [pytest.mark.engines, pytest.mark.timeout(2_400)]

QUICK = {"breaker": {"failure_threshold": 2, "open_s": 5.0}, "health_interval_s": 0.5}


@pytest.fixture(scope="module")
def engines(models):
    """One to stand firm and three to suffer; each test kills another one."""
    need("vllm", "sglang")
    wanted = {
        "firm": FLEET["fast"],
        "narrow": NARROW,
        "sglang": FLEET["sglang"],
    }
    with serving(models, *wanted.values()) as servers:
        yield dict(zip(wanted, servers, strict=True))


def only(engines, *names):
    return {name: engines[name] for name in names}


async def started(answer):
    """Read on until the first token has come."""
    pieces = answer.aiter_raw()
    seen = b""
    while seen.count(b"data:") < 3:
        seen += await anext(pieces)
    return seen, pieces


async def rest_of(pieces):
    """What comes until the end or the cut; whether it was cut."""
    read = b""
    try:
        async for piece in pieces:
            read += piece
    except httpx.HTTPError:
        return read, True
    return read, False


async def ask_many(gate, count=20):
    """Statuses and backends of short requests, a few at a time."""
    statuses, backends = Counter(), Counter()
    async with httpx.AsyncClient(base_url=gate.url, timeout=120.0, headers=JSON) as client:
        for _ in range(count // 4):
            four = [client.post("/v1/chat/completions", content=body(tokens=8)) for _ in range(4)]
            for answer in await asyncio.gather(*four):
                statuses[answer.status_code] += 1
                backends[answer.headers["x-motley-backend"]] += 1
    return statuses, backends


async def test_keep_alive_comments_are_no_first_token(engines, gateway):
    """vLLM sends comments to whoever waits in its queue."""
    server = engines["narrow"]
    gate = await gateway(only(engines, "narrow"))
    (backend,) = gate.relay.engine.dispatcher.state.backends
    async with streamed(server.url, body(tokens=3_000, stream=True)) as ahead:
        _, held = await started(ahead)
        async with streamed(server.url, body(stream=True)) as direct:
            assert (await anext(direct.aiter_raw())).startswith(b":")
        asking = asyncio.create_task(post(gate.url, body(tokens=8, stream=True)))
        await asyncio.sleep(3.5)
        assert (backend.prefilling, backend.decoding) == (1, 0)
        assert not asking.done()
        await held.aclose()
    answer = await asking
    assert answer.status_code == 200
    assert answer.content.endswith(b"data: [DONE]\n\n")


async def test_a_full_vllm_is_busy_and_not_broken(engines, gateway):
    server = engines["narrow"]
    filling = await fill(server, 3)
    refused = await post(server.url, body())
    assert (refused.status_code, refused.headers.get("retry-after")) == (503, None)
    alone = await gateway(only(engines, "narrow"))
    answer = await post(alone.url, body(stream=True))
    assert answer.status_code == 503
    assert answer.headers["retry-after"]
    both = await gateway(only(engines, "narrow", "firm"))
    statuses, backends = await ask_many(both, 8)
    assert statuses == {200: 8}
    assert backends == {"firm": 8}
    assert {b.breaker.state for b in both.relay.engine.dispatcher.state.backends} == {"closed"}
    await drop(server, filling)


@pytest.mark.parametrize(("name", "full"), [("narrow", 1), ("sglang", 2)])
async def test_the_lower_priority_goes_first_on_both_engines(engines, gateway, name, full):
    """vLLM serves the lower number first, SGLang the higher one; clients know one order."""
    server = engines[name]
    gate = await gateway(only(engines, name))
    first = -100 if name == "narrow" else 100  # in the engine's own order: none preempts these
    # Of two places one becomes free, and not both at once.
    staying = await fill(server, full - 1, priority=first)
    leaving = await fill(server, 1, tokens=1_500, beside=full - 1, priority=first)
    finished = []

    async def ask(priority):
        answer = await post(gate.url, body(tokens=64, priority=priority))
        assert answer.status_code == 200
        finished.append(priority)

    async with asyncio.timeout(90):
        asking = [asyncio.create_task(ask(10))]
        while await running_in(server) < full + 1:
            await asyncio.sleep(0.02)
        asking.append(asyncio.create_task(ask(-5)))
        await asyncio.gather(*asking, *leaving)
    await drop(server, staying)
    assert finished == [-5, 10]


async def test_a_frozen_engine_that_looks_healthy_is_left_by_its_streams(engines, gateway):
    """With its worker stopped, /health and /metrics go on saying 200."""
    server = engines["narrow"]
    gate = await gateway(only(engines, "narrow"), reliability={"idle_timeout_s": 3.0})
    worker = _descendant(server.process.pid, "VLLM::Worker", "VLLM::EngineCore")
    async with streamed(gate.url, body(tokens=3_000, stream=True)) as answer:
        _, pieces = await started(answer)
        os.kill(worker, signal.SIGSTOP)
        try:
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"{server.url}/health", timeout=10)).status_code == 200
            silent_s = time.monotonic()
            read, cut = await rest_of(pieces)
        finally:
            os.kill(worker, signal.SIGCONT)
        assert cut
        assert 2.0 < time.monotonic() - silent_s < 10.0
        assert "fell silent" in data_events(read.rpartition(b"\n\n")[0])[-1]["error"]["message"]
    assert gate.books["failed"] == 1


async def test_what_a_stopped_vllm_cuts_short_or_leaves_hanging_is_no_success(engines, gateway):
    """On SIGTERM it closes its door. Open streams end with ``abort`` and ``[DONE]``, or with an
    error event, or get nothing but comments for ever, as the race goes."""
    server = engines["narrow"]
    limits = {"idle_timeout_s": 4.0, **QUICK}
    gate = await gateway(only(engines, "narrow", "firm"), reliability=limits)
    content = body(tokens=3_500, stream=True)
    async with streamed(gate.url, content) as one, streamed(gate.url, content) as other:
        streams = {answer.headers["x-motley-backend"]: answer for answer in (one, other)}
        assert set(streams) == {"narrow", "firm"}
        _, others = await started(streams["firm"])
        seen, pieces = await started(streams["narrow"])
        server.process.send_signal(signal.SIGTERM)
        at_s = time.monotonic()
        (read, cut), (statuses, backends) = await asyncio.gather(rest_of(pieces), ask_many(gate))
        last = data_events((seen + read).rpartition(b"\n\n")[0])[-1]
        if cut:
            assert "fell silent" in last["error"]["message"]
        else:
            assert "error" in last or last["choices"][0]["finish_reason"] == "abort", last
        assert time.monotonic() - at_s < 30.0
        assert (statuses, set(backends)) == ({200: 20}, {"firm"})
        read, cut = await rest_of(others)
        assert (cut, read[-14:]) == (False, b"data: [DONE]\n\n")
    await eventually(lambda: gate.relay.engine.live == 0)
    assert gate.books["failed"] == 1


async def test_a_killed_sglang_costs_what_was_in_mid_stream_and_nothing_else(engines, gateway):
    """Its HTTP server lives on for seconds, accepts, and answers nothing."""
    server = engines["sglang"]
    limits = {"first_byte_timeout_s": 3.0, "idle_timeout_s": 3.0, **QUICK}
    gate = await gateway(only(engines, "sglang", "firm"), reliability=limits)
    content = body(tokens=3_500, stream=True)
    async with streamed(gate.url, content) as one, streamed(gate.url, content) as other:
        streams = {answer.headers["x-motley-backend"]: answer for answer in (one, other)}
        assert set(streams) == {"sglang", "firm"}
        _, others = await started(streams["firm"])
        _, pieces = await started(streams["sglang"])
        os.kill(_descendant(server.process.pid, "sglang::scheduler"), signal.SIGKILL)
        (_, cut), (statuses, backends) = await asyncio.gather(rest_of(pieces), ask_many(gate))
        assert cut
        assert (statuses, set(backends)) == ({200: 20}, {"firm"})
        read, cut = await rest_of(others)
        assert (cut, read[-14:]) == (False, b"data: [DONE]\n\n")
    await eventually(lambda: gate.relay.engine.live == 0)
    assert gate.books["failed"] == 1


async def test_a_draining_vllm_says_healthy_and_fails_every_request(engines, gateway, models):
    """With ``--shutdown-timeout``: /health 200, streams finish, new requests get 500."""
    server = engines["firm"]
    with serving(models, FLEET["fast"]) as (heir,):
        backends = {"firm": server, "heir": heir}
        gate = await gateway(backends, reliability=QUICK)
        content = body(tokens=1_500, stream=True)
        async with streamed(gate.url, content) as one, streamed(gate.url, content) as other:
            streams = {answer.headers["x-motley-backend"]: answer for answer in (one, other)}
            _, pieces = await started(streams["firm"])
            server.process.send_signal(signal.SIGTERM)
            await asyncio.sleep(0.5)
            async with httpx.AsyncClient() as client:
                assert (await client.get(f"{server.url}/health", timeout=10)).status_code == 200
            assert (await post(server.url, body())).status_code == 500
            statuses, served = await ask_many(gate)
            assert (statuses, set(served)) == ({200: 20}, {"heir"})
            read, cut = await rest_of(pieces)
            assert (cut, read[-14:]) == (False, b"data: [DONE]\n\n")


async def test_an_engine_that_crashes_at_every_request_is_ejected(gateway, models):
    """It starts, says that it is healthy, and dies of the first request it gets."""
    need("vllm")
    crash = Wanted("vllm", "crash", "bytes", MODEL, {"--dtype": "bfloat16"})
    with serving(models, FLEET["fast"], crash) as (firm, doomed):
        gate = await gateway({"firm": firm, "doomed": doomed}, reliability=QUICK)
        statuses, backends = await ask_many(gate, 40)
        assert (statuses, set(backends)) == ({200: 40}, {"firm"})
        state = gate.relay.engine.dispatcher.state
        await eventually(lambda: not state.get("doomed").usable, 20)
        async with asyncio.timeout(30):
            while doomed.process.poll() is None:
                await asyncio.sleep(0.2)


async def test_a_killed_engine_core_tells_its_streams_and_fails_nobody_elses(gateway, models):
    """vLLM's API server outlives its core for a moment: open streams get an error event inside
    their 200, and ``[DONE]`` after it. That is no success."""
    need("vllm")
    with serving(models, FLEET["slow"], FLEET["fast"]) as (mortal, heir):
        gate = await gateway({"mortal": mortal, "heir": heir}, reliability=QUICK)
        content = body(tokens=3_000, stream=True)
        async with streamed(gate.url, content) as one, streamed(gate.url, content) as other:
            streams = {answer.headers["x-motley-backend"]: answer for answer in (one, other)}
            assert set(streams) == {"mortal", "heir"}
            seen, pieces = await started(streams["mortal"])
            _, others = await started(streams["heir"])
            os.kill(_descendant(mortal.process.pid, "VLLM::EngineCore"), signal.SIGKILL)
            (read, cut), (statuses, served) = await asyncio.gather(rest_of(pieces), ask_many(gate))
            assert cut or b'"error"' in seen + read
            assert (statuses, set(served)) == ({200: 20}, {"heir"})
            read, cut = await rest_of(others)
            assert (cut, read[-14:]) == (False, b"data: [DONE]\n\n")
        await eventually(lambda: gate.relay.engine.live == 0)
        assert gate.books["failed"] == 1
        state = gate.relay.engine.dispatcher.state
        await eventually(lambda: not state.get("mortal").usable, 30)


def _descendant(pid, *names):
    """Process id of the first descendant with one of these titles."""
    table = subprocess.run(
        ["ps", "-eo", "pid=,ppid=,args="], capture_output=True, text=True, check=True
    ).stdout
    rows = [line.split(None, 2) for line in table.splitlines()]
    family = {pid}
    for _ in range(4):
        family |= {int(child) for child, parent, _ in rows if int(parent) in family}
    for name in names:
        for child, _, title in rows:
            if int(child) in family and title.startswith(name):
                return int(child)
    raise AssertionError(f"no {names} below {pid}: {[r for r in rows if int(r[0]) in family]}")
