"""Keys are compared as digests, can be changed under way, and limits cannot be talked around."""

from __future__ import annotations

import dataclasses
from hashlib import sha256

import pytest

from router.config.access import AccessSection, KeySection
from router.config.load import load_config
from router.domain.errors import ConfigError
from router.gateway.access.build import build_ring
from router.gateway.access.ring import Ring, plain_keys
from router.gateway.app import build_app
from tests.fire.client import body_of
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import chat, fleet, stream


def digest(key: str) -> str:
    return f"sha256:{sha256(key.encode()).hexdigest()}"


class Opaque(bytes):
    """A key that nobody may compare, look into or use as a dictionary's key."""

    def _no(self, *_: object) -> bool:
        raise AssertionError(
            "the key itself was looked at: time would tell how much of it is right"
        )

    __eq__ = __ne__ = __lt__ = __gt__ = __le__ = __ge__ = __contains__ = _no  # type: ignore[assignment]
    startswith = endswith = find = _no  # type: ignore[assignment]
    __hash__ = _no  # type: ignore[assignment]
    __getitem__ = _no  # type: ignore[assignment]


@pytest.mark.parametrize("key", [b"sk-one", b"sk-onE", b"sk-", b"x"])
def test_only_the_digest_of_a_key_is_compared(key: bytes) -> None:
    """Then the time that it takes says nothing of how much of a guess is right."""
    ring = Ring(plain_keys(["sk-one", "sk-two"]))
    assert (ring.find(Opaque(key), 0.0) is not None) is (key == b"sk-one")


async def test_keys_change_while_streams_run(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(
        await engine(stream(["a"] * 20, gap_s=0.02)),
        access={"keys": [{"name": "u", "hash": digest("old")}]},
    )
    runtime = gate.relay._rest.state.runtime
    async with (
        gate.client(authorization="Bearer old") as client,
        client.stream("POST", "/v1/chat/completions", content=body_of(stream=True)) as answer,
    ):
        pieces = answer.aiter_raw()
        await anext(pieces)
        new = AccessSection(keys=[KeySection(name="u", hash=digest("new"))])
        ring = build_ring(dataclasses.replace(runtime.config, access=new))
        gate.relay.engine.gate.replace(ring, {})
        assert (await gate.post(authorization="Bearer old")).status_code == 401
        assert (await gate.post(authorization="Bearer new")).status_code == 200
        rest = b"".join([piece async for piece in pieces])
        assert rest.endswith(b"data: [DONE]\n\n"), "what had been let in goes on"


SPOOFS: list[dict[str, str]] = [
    {"x-forwarded-for": "10.0.0.{n}"},
    {"forwarded": "for=10.0.0.{n}"},
    {"x-real-ip": "10.0.0.{n}"},
    {"x-tenant-id": "tenant-{n}"},
    {"x-session-id": "session-{n}"},
    {"x-request-id": "request-{n}"},
    {"x-motley-class": "bulk"},
    {"user-agent": "agent-{n}"},
    {"authorization": "bearer   k"},
    {"x-api-key": "k"},
]


@pytest.mark.parametrize("spoof", SPOOFS, ids=lambda spoof: next(iter(spoof)))
async def test_no_header_brings_a_fresh_limit(
    engine: StartEngine, gateway: StartGateway, spoof: dict[str, str]
) -> None:
    key = {"name": "k", "hash": digest("k"), "requests_per_minute": 3}
    gate = await gateway(await engine(chat()), access={"keys": [key]})
    statuses = []
    for n in range(6):
        headers = {"authorization": "Bearer k"} | {k: v.format(n=n) for k, v in spoof.items()}
        if "x-api-key" in spoof and n % 2:
            del headers["authorization"]
        statuses.append((await gate.post(**headers)).status_code)
    assert statuses == [200] * 3 + [429] * 3


def test_a_holder_has_one_name_and_one_limit() -> None:
    keys = [{"name": "team", "hash": digest(k), "requests_per_minute": 3} for k in ("a", "b")]
    with pytest.raises(ConfigError, match="two API keys are named 'team'"):
        build_app(load_config(fleet("http://127.0.0.1:9", access={"keys": keys})))


async def test_guesses_are_not_kept(engine: StartEngine, gateway: StartGateway) -> None:
    """A hundred wrong keys cost no memory, and no other caller anything."""
    gate = await gateway(
        await engine(chat()), access={"keys": [{"name": "k", "hash": digest("k")}]}
    )
    inner = gate.relay.engine.gate
    async with gate.client() as client:
        for n in range(100):
            answer = await client.get("/v1/models", headers={"authorization": f"Bearer guess-{n}"})
            assert answer.status_code == 401
    assert len(inner._callers) == len(inner._meters) == len(inner._visits) == 0
    assert (await gate.post(authorization="Bearer k")).status_code == 200
