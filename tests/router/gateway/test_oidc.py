"""Tokens of an identity provider, its keys behind a real HTTP server on loopback."""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec, rsa
from jwt.algorithms import ECAlgorithm, RSAAlgorithm

from router.config.load import load_config
from router.domain.errors import ConfigError
from router.gateway.access.build import build_gate
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import chat, eventually, fleet

ISSUER, AUDIENCE = "https://id.example", "motley"


class Provider:
    """Signs tokens and serves its public keys."""

    def __init__(self) -> None:
        self.keys: dict[str, Any] = {}
        self.algorithms: dict[str, str] = {}
        self.asked = 0
        self.url = ""
        self._server: asyncio.Server | None = None

    def add_key(self, kid: str, algorithm: str = "ES256") -> None:
        if algorithm == "RS256":
            self.keys[kid] = rsa.generate_private_key(public_exponent=65537, key_size=2048)
        else:
            self.keys[kid] = ec.generate_private_key(ec.SECP256R1())
        self.algorithms[kid] = algorithm

    def jwks(self) -> bytes:
        keys = []
        for kid, key in self.keys.items():
            kind = RSAAlgorithm if self.algorithms[kid] == "RS256" else ECAlgorithm
            keys.append({**json.loads(kind.to_jwk(key.public_key())), "kid": kid, "use": "sig"})
        return json.dumps({"keys": keys}).encode()

    def token(self, kid: str = "k1", headers: dict[str, Any] | None = None, **claims: Any) -> str:
        told = {"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": time.time() + 60, **claims}
        told = {name: value for name, value in told.items() if value is not None}
        named = {"kid": kid, **(headers or {})}
        return jwt.encode(told, self.keys[kid], self.algorithms[kid], headers=named)

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._serve, "127.0.0.1", 0)
        self.url = f"http://127.0.0.1:{self._server.sockets[0].getsockname()[1]}/jwks"

    async def stop(self) -> None:
        assert self._server is not None
        self._server.close()

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        await reader.readuntil(b"\r\n\r\n")
        self.asked += 1
        body = self.jwks()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(body) + body)
        await writer.drain()
        writer.close()


@pytest.fixture
async def provider() -> AsyncIterator[Provider]:
    one = Provider()
    one.add_key("k1")
    await one.start()
    yield one
    await one.stop()


def section(jwks: str, **more: Any) -> dict[str, Any]:
    return {"oidc": {"issuer": ISSUER, "audience": AUDIENCE, "jwks": jwks, **more}}


def bearer(token: str) -> dict[str, str]:
    return {"authorization": f"Bearer {token}"}


async def test_a_token_opens_the_gateway_and_brings_its_tenant(
    engine: StartEngine, gateway: StartGateway, provider: Provider
) -> None:
    provider.add_key("k2", "RS256")
    backend = await engine(chat())
    grant = {"requests_per_minute": 3, "classes": ["bulk"], "default_class": "bulk"}
    gate = await gateway(backend, access=section(provider.url, grant=grant))
    await eventually(lambda: provider.asked >= 1)
    await asyncio.sleep(0.1)
    first = await gate.post(**bearer(provider.token()))
    assert first.status_code == 200, first.text
    assert first.headers["x-ratelimit-limit-requests"] == "3"
    assert (await gate.post(**bearer(provider.token("k2")))).status_code == 200
    assert "authorization" not in backend.received[0].headers
    other = await gate.post(**bearer(provider.token(sub="bob")))
    assert other.headers["x-ratelimit-remaining-requests"] == "2", "limits are each tenant's own"
    assert (await gate.post()).status_code == 401


@pytest.mark.parametrize(
    "claims",
    [
        {"aud": "other"},
        {"iss": "https://evil.example"},
        {"exp": 1.0},
        {"exp": None},
        {"nbf": 4e9},
        {"sub": None},
        {"sub": 7},
    ],
    ids=str,
)
def test_tokens_that_do_not_hold(tmp_path: Path, claims: dict[str, Any]) -> None:
    one = Provider()
    one.add_key("k1")
    gate = gate_over(one, tmp_path)
    bad = gate.admit({b"authorization": b"Bearer " + one.token(**claims).encode()})
    assert hasattr(bad, "status")
    good = gate.admit({b"authorization": b"Bearer " + one.token().encode()})
    assert good.grant.holder == "ann"


def gate_over(one: Provider, folder: Path, **more: Any) -> Any:
    path = folder / "jwks.json"
    path.write_bytes(one.jwks())
    config = load_config(fleet("http://h:1", access=section(str(path), **more)))
    return build_gate(config, time.time)


def test_forgeries(tmp_path: Path) -> None:
    """Another key under the same name, no signature, and the public key as a shared secret."""
    one, forger = Provider(), Provider()
    one.add_key("k1")
    forger.add_key("k1")
    gate = gate_over(one, tmp_path)
    head, body, _ = one.token().split(".")
    unsigned = jwt.encode({"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": 4e9}, "", "none")
    confused = jwt.encode(
        {"iss": ISSUER, "aud": AUDIENCE, "sub": "x", "exp": 4e9},
        "a" * 64,
        "HS256",
        headers={"kid": "k1"},
    )
    torn = (f"{head}.{body}.AAAA", f"{head}.{body}.", "..")
    for token in (forger.token(), unsigned, confused, *torn):
        assert hasattr(gate.admit({b"x-api-key": token.encode()}), "status"), token


def test_admins_are_told_by_a_claim(tmp_path: Path) -> None:
    one = Provider()
    one.add_key("k1")
    gate = gate_over(one, tmp_path, admin_claim="groups", admin_value="ops")
    caller = gate.admit({b"x-api-key": one.token(groups=["dev", "ops"]).encode()})
    assert caller.grant.admin
    assert not gate.admit({b"x-api-key": one.token(groups=["dev"]).encode()}).grant.admin


async def test_keys_that_change_are_followed(provider: Provider) -> None:
    config = load_config(fleet("http://h:1", access=section(provider.url)))
    gate = build_gate(config, time.time)
    reader = gate.tokens
    assert reader is not None
    assert await reader.refresh()  # type: ignore[attr-defined]
    old = {b"x-api-key": provider.token().encode()}
    assert not hasattr(gate.admit(old), "status")
    del provider.keys["k1"]
    provider.add_key("k9")
    await reader.refresh()  # type: ignore[attr-defined]
    assert hasattr(gate.admit(old), "status"), "a withdrawn key is not remembered"
    assert not hasattr(gate.admit({b"x-api-key": provider.token("k9").encode()}), "status")
    await provider.stop()
    assert not await reader.refresh()  # type: ignore[attr-defined]
    assert not hasattr(gate.admit({b"x-api-key": provider.token("k9").encode()}), "status")


def test_a_remembered_token_still_expires(tmp_path: Path) -> None:
    one = Provider()
    one.add_key("k1")
    path = tmp_path / "jwks.json"
    path.write_bytes(one.jwks())
    clock = [time.time()]
    config = load_config(fleet("http://h:1", access=section(str(path), leeway_s=0)))
    gate = build_gate(config, lambda: clock[0])
    shown = {b"x-api-key": one.token().encode()}
    assert not hasattr(gate.admit(shown), "status")
    clock[0] += 61
    assert hasattr(gate.admit(shown), "status")


@pytest.mark.parametrize(
    ("more", "says"),
    [
        ({"jwks": "http://id.example/jwks"}, "must be https"),
        ({"jwks": "/no/such/file"}, "cannot read /no/such/file"),
        ({"jwks": "https://id.example/j", "algorithms": ["HS256"]}, "cannot be verified"),
        ({"jwks": "https://id.example/j", "algorithms": ["none"]}, "cannot be verified"),
    ],
)
def test_mistakes_are_named(more: dict[str, Any], says: str) -> None:
    wanted = {"oidc": {"issuer": ISSUER, "audience": AUDIENCE, **more}}
    with pytest.raises(ConfigError, match=says):
        build_gate(load_config(fleet("http://h:1", access=wanted)), time.time)
