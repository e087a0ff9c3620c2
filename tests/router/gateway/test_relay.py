"""The plain path: bytes in, bytes out, nothing changed, everything counted."""

from __future__ import annotations

import json

import httpx

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, chat, stream

BODY = b'{ "model":"%b",  "messages":[{"role":"user","content":"h\\u00e9 \xc3\xa9"}] , "x":1.50}' % (
    MODEL.encode()
)


async def test_a_body_reaches_the_engine_byte_for_byte(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat("hello"))
    gate = await gateway(backend)
    async with httpx.AsyncClient(base_url=gate.url) as client:
        answer = await client.post("/v1/chat/completions?trace=1", content=BODY)
    assert answer.status_code == 200
    assert answer.json()["choices"][0]["message"]["content"] == "hello"
    received = backend.received[0]
    assert received.head == "POST /v1/chat/completions?trace=1 HTTP/1.1"
    assert received.body == BODY
    assert gate.books["completed"] == 1
