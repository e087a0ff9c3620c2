"""The plain path: bytes in, bytes out, nothing changed, everything counted."""

from __future__ import annotations

import asyncio
import json
import re
import uuid

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    DONE,
    MODEL,
    REQUEST,
    Received,
    answer,
    chat,
    chunk,
    event,
    events,
    stream,
)

USAGE = {"prompt_tokens": 7, "completion_tokens": 2, "total_tokens": 9}


async def test_a_body_reaches_the_engine_byte_for_byte(
    engine: StartEngine, gateway: StartGateway
) -> None:
    body = b'{ "model":"%b",  "messages":[{"content":"h\\u00e9 \xc3\xa9"}] , "x":1.50}' % (
        MODEL.encode()
    )
    backend = await engine(chat("hello"))
    gate = await gateway(backend)
    answered = await gate.post("/v1/chat/completions?trace=1", body)
    assert answered.status_code == 200
    assert answered.json()["choices"][0]["message"]["content"] == "hello"
    received = backend.received[0]
    assert received.head == "POST /v1/chat/completions?trace=1 HTTP/1.1"
    assert received.body == body
    assert gate.books["completed"] == 1


async def test_an_answer_reaches_the_client_byte_for_byte(
    engine: StartEngine, gateway: StartGateway
) -> None:
    body = b'{ "odd" : "\\u00e9",\n "usage":{"prompt_tokens":1,"completion_tokens":1} }\n'
    gate = await gateway(await engine(answer(200, body, ("x-engine", "says"))))
    answered = await gate.post()
    assert answered.content == body
    assert answered.headers["x-engine"] == "says"


async def test_a_stream_reaches_the_client_event_by_event(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """Each event is passed on before the next exists: nothing is buffered."""
    first, second = event({"content": "a"}), event({"content": "b"})
    go_on = asyncio.Event()

    async def rest(request: Received) -> bool:
        await go_on.wait()
        await request.send(chunk(second), chunk(DONE), b"0\r\n\r\n")
        return True

    gate = await gateway(await engine(events(first, then=rest)))
    reader, writer = await gate.ask()
    head = await reader.readuntil(b"\r\n\r\n")
    assert b"text/event-stream" in head
    assert await reader.readexactly(len(chunk(first))) == chunk(first)
    go_on.set()
    # What the engine sent in one go may arrive in one chunk or in two.
    left = await reader.readuntil(b"0\r\n\r\n")
    assert b"".join(re.split(rb"[0-9a-f]+\r\n|\r\n(?=[0-9a-f]+\r\n|$)", left)) == second + DONE
    writer.close()


async def test_usage_in_the_stream_closes_the_books_with_the_engines_count(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(stream(["a", "b"], usage=USAGE)))
    outcomes = []
    complete = gate.relay.engine.dispatcher.complete

    def spy(*args: object, **kwargs: object) -> object:
        outcomes.append(complete(*args, **kwargs))  # type: ignore[arg-type]
        return outcomes[-1]

    gate.relay.engine.dispatcher.complete = spy  # type: ignore[method-assign, assignment]
    await gate.post()
    (outcome,) = outcomes
    assert (outcome.prompt_tokens, outcome.output_tokens) == (7, 2)
    assert outcome.first_token_s is not None
    assert outcome.arrival_s <= outcome.dispatched_s <= outcome.first_token_s <= outcome.finished_s


async def test_connections_to_the_engine_are_reused(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend)
    for _ in range(5):
        assert (await gate.post()).status_code == 200
    relayed = [request.writer for request in backend.received]
    assert len(set(relayed)) == 1


async def test_an_answer_that_ends_with_the_connection_is_whole(
    engine: StartEngine, gateway: StartGateway
) -> None:
    async def old_style(request: Received) -> None:
        await request.send(b"HTTP/1.1 200 OK\r\ncontent-type: application/json\r\n\r\n{}")

    gate = await gateway(await engine(old_style))
    answered = await gate.post()
    assert (answered.status_code, answered.content) == (200, b"{}")


async def test_early_hints_are_not_the_answer(engine: StartEngine, gateway: StartGateway) -> None:
    async def hinting(request: Received) -> bool:
        await request.send(b"HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\n")
        return bool(await chat()(request))

    gate = await gateway(await engine(hinting))
    for _ in range(2):
        answered = await gate.post()
        assert answered.status_code == 200
        assert "link" not in answered.headers


async def test_an_answer_without_a_body(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(answer(200, b"")))
    answered = await gate.post()
    assert (answered.status_code, answered.content) == (200, b"")


async def test_a_megabyte_both_ways(engine: StartEngine, gateway: StartGateway) -> None:
    async def echo(request: Received) -> bool:
        return bool(await answer(200, request.body)(request))

    big = json.dumps({"model": MODEL, "prompt": "x" * 3_000_000}).encode()
    gate = await gateway(await engine(echo))
    assert (await gate.post("/v1/completions", big)).content == big


async def test_every_relayed_path_keeps_its_name(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend)
    for path in ("/v1/completions", "/v1/embeddings", "/v1/messages", "/tokenize"):
        assert (await gate.post(path)).status_code == 200
        assert backend.received[-1].head == f"POST {path} HTTP/1.1"


async def test_a_backend_below_a_path(engine: StartEngine, gateway: StartGateway) -> None:
    backend = await engine(chat())
    gate = await gateway(f"{backend.url}/engines/a/v1/")
    assert (await gate.post()).status_code == 200
    assert backend.received[0].head == "POST /engines/a/v1/chat/completions HTTP/1.1"


async def test_an_alias_reaches_the_engine_under_the_models_own_name(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend, aliases={"gpt-4": MODEL})
    body = REQUEST.replace(MODEL.encode(), b"gpt-4")
    assert (await gate.post(body=body)).status_code == 200
    assert backend.received[0].body == REQUEST


# Headers


async def test_answers_tell_request_backend_and_policy(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    answered = await gate.post(x_request_id="abc-123")
    assert answered.headers["x-request-id"] == "abc-123"
    assert answered.headers["x-motley-backend"] == "e0"
    assert answered.headers["x-motley-policy"] == "round-robin"


async def test_the_engine_gets_the_same_request_id(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """A made one is a UUID, since llama.cpp takes no other."""
    backend = await engine(chat())
    gate = await gateway(backend)
    made = (await gate.post()).headers["x-request-id"]
    assert str(uuid.UUID(made)) == made
    assert uuid.UUID(made).version == 4
    assert backend.received[0].headers["x-request-id"] == made


async def test_an_insane_request_id_is_replaced(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(chat()))
    for bad in ("x" * 129, "two words", "semi;colon", "<script>"):
        echoed = (await gate.post(x_request_id=bad)).headers["x-request-id"]
        assert echoed != bad
        assert uuid.UUID(echoed)


async def test_two_requests_may_carry_the_same_id(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(stream(["a"] * 5, gap_s=0.01)))
    both = await asyncio.gather(*(gate.post(x_request_id="same") for _ in range(2)))
    assert [answered.headers["x-request-id"] for answered in both] == ["same", "same"]
    assert gate.books["completed"] == 2


async def test_headers_of_the_hop_stay_on_the_hop(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(
        answer(200, {}, ("keep-alive", "timeout=5"), ("server", "engine"), ("x-a", "1"))
    )
    gate = await gateway(backend)
    answered = await gate.post(
        x_custom="yes", te="trailers", accept_encoding="gzip", authorization="Bearer for-engine"
    )
    received = backend.received[0].headers
    assert received["x-custom"] == "yes"
    assert received["authorization"] == "Bearer for-engine"
    assert received["host"] == backend.url.removeprefix("http://")
    assert not {"te", "connection", "accept-encoding"} & set(received)
    assert answered.headers["x-a"] == "1"
    assert not {"keep-alive", "server"} & set(answered.headers)


async def test_prompt_length_is_learned_from_usage(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat(prompt_tokens=2_000)))
    body = json.dumps({"model": MODEL, "prompt": "x" * 4_000}).encode()
    before = gate.relay.engine.sizer.bytes_per_token(MODEL)
    for _ in range(5):
        await gate.post("/v1/completions", body)
    assert gate.relay.engine.sizer.bytes_per_token(MODEL) < 0.7 * before
