"""The gateway's own keys."""

from __future__ import annotations

from hashlib import sha256

import pytest

from router.gateway.access.ring import Ring, offered_key, plain_keys
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import chat

KEYS = {"api_keys": ["sk-one", "sk-two"]}


@pytest.mark.parametrize(
    ("headers", "admitted"),
    [
        ({b"authorization": b"Bearer sk-one"}, True),
        ({b"authorization": b"bearer  sk-two "}, True),
        ({b"x-api-key": b"sk-one"}, True),
        ({b"authorization": b"Basic sk-one"}, False),
        ({b"authorization": b"Bearer sk-on"}, False),
        ({b"authorization": b"Bearer "}, False),
        ({b"authorization": b"sk-one"}, False),
        ({}, False),
    ],
)
def test_who_is_admitted(headers: dict[bytes, bytes], admitted: bool) -> None:
    ring = Ring(plain_keys(["sk-one", "sk-two"]))
    assert (ring.find(offered_key(headers), 0.0) is not None) is admitted


def test_a_key_may_be_given_as_its_digest() -> None:
    ring = Ring(plain_keys(["sha256:" + sha256(b"sk-three").hexdigest()]))
    assert ring.find(b"sk-three", 0.0) is not None
    assert ring.find(b"sha256:" + sha256(b"sk-three").hexdigest().encode(), 0.0) is None


def test_no_key_opens_nothing_even_where_an_empty_one_is_configured() -> None:
    """As from a variable that was not set; it made everybody an operator."""
    ring = Ring(plain_keys(["sha256:" + sha256(b"").hexdigest(), "sk-one"]))
    for headers in ({}, {b"authorization": b"Bearer "}, {b"x-api-key": b""}):
        assert ring.find(offered_key(headers), 0.0) is None


async def test_without_keys_everybody_is_admitted(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    assert (await gate.post()).status_code == 200


async def test_without_a_key_nothing_reaches_an_engine(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend, server=KEYS)
    for path in ("/v1/chat/completions", "/v1/embeddings"):
        refused = await gate.post(path, authorization="Bearer wrong", x_request_id="r")
        assert refused.status_code == 401
        assert refused.json()["error"]["code"] == "invalid_api_key"
        assert refused.headers["x-request-id"] == "r"
    for path in ("/v1/models", "/workers"):
        assert (await gate.get(path)).status_code == 401
    for path in ("/health", "/ready", "/metrics"):
        assert (await gate.get(path)).status_code == 200
    assert backend.received == []
    assert gate.books["arrived"] == 0


async def test_the_gateways_keys_go_no_further(engine: StartEngine, gateway: StartGateway) -> None:
    backend = await engine(chat())
    gate = await gateway(backend, server=KEYS)
    assert (await gate.post(authorization="Bearer sk-one")).status_code == 200
    assert (await gate.post(x_api_key="sk-two")).status_code == 200
    for request in backend.received:
        assert not {"authorization", "x-api-key"} & set(request.headers)
