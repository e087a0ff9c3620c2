"""Errors of ``/v1/messages`` as Anthropic's clients read them, whoever found the fault."""

from __future__ import annotations

import contextlib
import json

import httpx
import pytest

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, answer, chat, event, events, reset

ASK = {"model": MODEL, "max_tokens": 8, "messages": [{"role": "user", "content": "Hi"}]}


@pytest.mark.parametrize("path", ["/v1/messages", "/v1/messages/count_tokens"])
async def test_what_the_gateway_finds(
    engine: StartEngine, gateway: StartGateway, path: str
) -> None:
    gate = await gateway(await engine(chat()), server={"max_body_bytes": 2048})
    unknown = await gate.post(path, json.dumps(ASK | {"model": "gpt-9"}).encode())
    assert unknown.status_code == 404
    said = unknown.json()
    assert (said["type"], said["error"]["type"]) == ("error", "not_found_error")
    assert "gpt-9" in said["error"]["message"]
    large = await gate.post(path, b"x" * 4096)
    assert large.status_code == 413
    assert large.json()["error"]["type"] == "request_too_large"
    torn = await gate.post(path, b"{")
    assert torn.json()["error"]["type"] == "invalid_request_error"
    plain = await gate.post("/v1/chat/completions", b"{")
    assert set(plain.json()) == {"error"}, "OpenAI's paths keep OpenAI's shape"


async def test_a_missing_key(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(chat()), server={"api_keys": ["right"]})
    answered = await gate.post("/v1/messages", json.dumps(ASK).encode(), x_api_key="wrong")
    assert answered.status_code == 401
    assert answered.json()["error"]["type"] == "authentication_error"


@pytest.mark.parametrize(
    ("status", "kind"),
    [(400, "invalid_request_error"), (429, "rate_limit_error"), (503, "overloaded_error")],
)
async def test_what_an_engine_says(
    engine: StartEngine, gateway: StartGateway, status: int, kind: str
) -> None:
    backend = await engine(answer(status, {"error": {"message": "because", "code": status}}))
    gate = await gateway(backend, reliability={"max_retries": 0})
    answered = await gate.post("/v1/messages", json.dumps(ASK).encode())
    assert (answered.status_code, answered.json()["error"]["type"]) == (status, kind)
    assert "because" in answered.json()["error"]["message"]


async def test_a_stream_that_breaks(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(events(event({"content": "a"}), then=reset)))
    got = b""
    async with gate.client() as client:
        request = client.build_request("POST", "/v1/messages", json=ASK | {"stream": True})
        answered = await client.send(request, stream=True)
        with contextlib.suppress(httpx.RemoteProtocolError):  # it is cut after its last event
            async for part in answered.aiter_raw():
                got += part
    last = got.rstrip().split(b"\n\n")[-1]
    assert last.startswith(b"event: error\ndata: ")
    assert json.loads(last.partition(b"data: ")[2])["type"] == "error"
