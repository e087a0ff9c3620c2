"""Before the first byte another backend is tried; afterwards the truth is told."""

from __future__ import annotations

import asyncio
import json

import pytest

from tests.fakes.http_server import free_port
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    DONE,
    STREAM_HEAD,
    Behaviour,
    Received,
    answer,
    chat,
    chunk,
    close,
    event,
    events,
    garbage,
    hang,
    reset,
    stream,
)

FULL = b'data: {"error": {"object": "error", "message": "full", "code": 503}}\n\n'


FAILURES = {
    "reset": reset,
    "closed without an answer": close,
    "not HTTP": garbage,
    "500": answer(500, b"cannot schedule new futures after shutdown"),
    "502": answer(502, b""),
    "503": answer(503, {"error": {"message": "busy", "code": 503}}),
    "429": answer(429, {"error": {"message": "slow down"}}),
    "503 inside a 200 stream": events(FULL, DONE),
    "500 inside a 200 stream": events(b'data: {"error": "dead"}\n\n'),
    "an empty stream": events(),
    "a stream of comments only": events(b": keep-alive\n\n"),
    "died between head and first event": events(b"data: {", then=reset),
}


@pytest.mark.parametrize("failure", FAILURES.values(), ids=FAILURES.keys())
async def test_a_failure_before_the_first_byte_is_tried_elsewhere(
    engine: StartEngine, gateway: StartGateway, failure: Behaviour
) -> None:
    bad, good = await engine(failure), await engine(chat("saved"))
    gate = await gateway(bad, good)
    for _ in range(4):
        answered = await gate.post()
        assert answered.status_code == 200, answered.text
        assert answered.json()["choices"][0]["message"]["content"] == "saved"
        assert answered.headers["x-motley-backend"] == "e1"
    assert gate.books["completed"] == 4
    assert bad.received, "the bad one was never asked: the test shows nothing"


async def test_a_backend_that_refuses_connections_is_tried_elsewhere(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(f"http://127.0.0.1:{free_port()}", await engine(chat("saved")))
    for _ in range(4):
        assert (await gate.post()).headers["x-motley-backend"] == "e1"


async def test_the_retried_request_is_the_same_request(
    engine: StartEngine, gateway: StartGateway
) -> None:
    bad, good = await engine(reset), await engine(chat())
    gate = await gateway(bad, good)
    await gate.post(x_request_id="one")
    await gate.post(x_request_id="two")
    assert {request.body for request in bad.received} == {good.received[0].body}
    assert [r.headers["x-request-id"] for r in good.received] == ["one", "two"]


@pytest.mark.parametrize("status", [400, 401, 404, 405, 413, 422])
async def test_a_client_error_is_never_retried(
    engine: StartEngine, gateway: StartGateway, status: int
) -> None:
    """And never opens a breaker: peers lost whole fleets to one client's bad requests."""
    first = await engine(answer(status, {"object": "error", "message": "bad", "code": status}))
    second = await engine(answer(status, {"detail": "bad"}))
    gate = await gateway(first, second)
    for _ in range(10):
        answered = await gate.post()
        assert answered.status_code == status
        assert answered.json()["error"]["message"] == "bad"
    assert len(first.received) == len(second.received) == 5
    assert all(b.breaker.state == "closed" for b in gate.relay.engine.dispatcher.state.backends)
    assert gate.books["failed"] == 10


async def test_what_an_engine_cannot_do_is_tried_elsewhere_and_opens_no_breaker(
    engine: StartEngine, gateway: StartGateway
) -> None:
    cannot = answer(501, {"error": {"code": 501, "message": "no embeddings", "type": "x"}})
    gate = await gateway(await engine(cannot), await engine(cannot))
    for _ in range(6):
        answered = await gate.post("/v1/embeddings")
        assert answered.status_code == 501
        assert answered.json()["error"]["message"].startswith("no embeddings Tried: e")
    assert all(b.breaker.state == "closed" for b in gate.relay.engine.dispatcher.state.backends)
    gate = await gateway(await engine(cannot), await engine(chat()))
    assert [(await gate.post()).status_code for _ in range(4)] == [200] * 4


async def test_a_client_error_inside_a_stream_gets_its_status_back(
    engine: StartEngine, gateway: StartGateway
) -> None:
    bad = b'data: {"error": {"message": "no such template", "code": 400}}\n\n'
    gate = await gateway(await engine(events(bad, DONE)))
    answered = await gate.post()
    assert answered.status_code == 400
    assert answered.json()["error"]["message"] == "no such template"


async def answers_with_no_status(request: Received) -> bool:
    await request.send(b"HTTP/1.1 999 Request denied\r\ncontent-length: 2\r\n\r\n{}")
    return True


async def sends_a_head_without_end(request: Received) -> None:
    await request.send(b"HTTP/1.1 200 OK\r\n")
    while True:
        await request.send(b"x-filler: " + b"a" * 65_536 + b"\r\n")


@pytest.mark.parametrize("sick", [answers_with_no_status, sends_a_head_without_end])
async def test_what_no_http_server_says_is_tried_elsewhere(
    engine: StartEngine, gateway: StartGateway, sick: Behaviour
) -> None:
    gate = await gateway(await engine(sick), await engine(chat()))
    for _ in range(2):
        assert (await gate.post()).status_code == 200
    alone = await gateway(await engine(sick))
    answered = await alone.post()
    assert (answered.status_code, answered.json()["error"]["code"]) == (502, "backend_garbage")


async def test_a_busy_fleet_is_told_as_busy(engine: StartEngine, gateway: StartGateway) -> None:
    """Back-pressure is not death: no breaker opens, and clients learn when to come back."""
    full = answer(503, {"object": "error", "message": "The queue is full.", "code": 503})
    gate = await gateway(await engine(full), await engine(full))
    for _ in range(5):
        answered = await gate.post()
        assert answered.status_code == 503
        assert answered.headers["retry-after"] == "1"
        assert answered.json()["error"]["message"] == "The queue is full. Tried: " + (
            "e0, e1." if answered.headers["x-motley-backend"] == "e1" else "e1, e0."
        )
    assert all(b.breaker.state == "closed" for b in gate.relay.engine.dispatcher.state.backends)


async def test_no_backend_is_asked_twice(engine: StartEngine, gateway: StartGateway) -> None:
    engines = [await engine(reset) for _ in range(3)]
    gate = await gateway(*engines, reliability={"max_retries": 9})
    answered = await gate.post()
    assert answered.status_code == 502
    assert answered.json()["error"]["code"] == "backend_broken"
    assert [len(fake.received) for fake in engines] == [1, 1, 1]


async def test_retries_are_limited(engine: StartEngine, gateway: StartGateway) -> None:
    engines = [await engine(reset) for _ in range(4)]
    gate = await gateway(*engines, reliability={"max_retries": 1})
    assert (await gate.post()).status_code == 502
    assert sum(len(fake.received) for fake in engines) == 2


async def test_a_dead_fleet_is_a_clear_message(gateway: StartGateway) -> None:
    gate = await gateway(f"http://127.0.0.1:{free_port()}")
    answered = await gate.post()
    assert answered.status_code == 503
    assert answered.headers["retry-after"] == "1"
    assert answered.json()["error"]["message"] == ("Backend e0 cannot connect: Connection refused.")


async def test_a_connection_that_went_stale_is_no_failure_of_the_backend(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """The engine closes an idle connection as the request is written: a race all clients have."""

    async def drop_second(request: Received) -> bool:
        await chat()(request)
        await request.reader.readexactly(1)
        request.writer.transport.abort()
        return False

    backend = await engine(drop_second, chat("again"))
    gate = await gateway(backend, reliability={"max_retries": 0})
    assert (await gate.post()).status_code == 200
    answered = await gate.post()
    assert answered.json()["choices"][0]["message"]["content"] == "again"
    assert gate.books["failed"] == 0


# After the first byte


async def test_a_stream_that_breaks_says_so_and_is_cut(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """An error event for clients that look, no proper end for those that do not."""
    good = event({"content": "a"})
    first = await engine(events(good, then=reset))
    second = await engine(chat())
    gate = await gateway(first, second)
    reader, writer = await gate.ask()
    raw = await reader.read()
    writer.close()
    assert raw.startswith(b"HTTP/1.1 200 OK")
    assert not raw.endswith(b"0\r\n\r\n")
    events_seen = [line[6:] for line in raw.splitlines() if line.startswith(b"data: ")]
    assert json.loads(events_seen[0])["choices"][0]["delta"] == {"content": "a"}
    error = json.loads(events_seen[1])["error"]
    assert error["code"] == "backend_broken"
    assert "e0" in error["message"]
    assert not second.received
    assert gate.books["failed"] == 1


async def test_a_stream_that_breaks_inside_an_event_is_only_cut(
    engine: StartEngine, gateway: StartGateway
) -> None:
    async def half(request: Received) -> None:
        whole = event({"content": "a"})
        await request.send(STREAM_HEAD, chunk(whole))
        await asyncio.sleep(0.01)
        await request.send(chunk(whole[:30]))
        await asyncio.sleep(0.01)

    gate = await gateway(await engine(half))
    reader, writer = await gate.ask()
    raw = await reader.read()
    writer.close()
    assert b"backend_broken" not in raw
    assert not raw.endswith(b"0\r\n\r\n")


async def test_a_plain_answer_that_breaks_is_cut(
    engine: StartEngine, gateway: StartGateway
) -> None:
    async def half(request: Received) -> None:
        await request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 100\r\n\r\n", b"{" * 50)

    gate = await gateway(await engine(half))
    reader, writer = await gate.ask()
    raw = await reader.read()
    writer.close()
    assert raw.endswith(b"{" * 50)
    assert gate.books["failed"] == 1


async def test_an_engine_that_reports_its_own_death_is_counted_as_failed(
    engine: StartEngine, gateway: StartGateway
) -> None:
    died = b'data: {"error": {"message": "EngineCore encountered an issue.", "code": 500}}\n\n'
    gate = await gateway(await engine(events(event({"content": "a"}), died, DONE)))
    answered = await gate.post()
    assert answered.content.endswith(died + DONE)
    assert gate.books["failed"] == 1


async def test_failures_open_the_breaker_and_a_success_closes_it(
    engine: StartEngine, gateway: StartGateway
) -> None:
    bad, good = await engine(reset, reset, chat()), await engine(chat())
    gate = await gateway(bad, good, reliability={"breaker": {"failure_threshold": 2, "open_s": 20}})
    for _ in range(4):
        await gate.post()
    (ill, _) = gate.relay.engine.dispatcher.state.backends
    assert ill.breaker.state == "open"
    asked = len(bad.received)
    await gate.post()
    assert len(bad.received) == asked
    gate.clock.ahead_s += 21
    for _ in range(2):
        await gate.post()
    assert ill.breaker.state == "closed"


async def test_hanging_is_retried_as_well(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(
        await engine(hang),
        await engine(stream(["a"])),
        reliability={"first_byte_timeout_s": 1.0},
    )
    for _ in range(2):
        answered = await gate.post()
        assert answered.headers["x-motley-backend"] == "e1"
