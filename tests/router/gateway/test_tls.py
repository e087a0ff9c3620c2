"""TLS on both sides: trusted, or not at all."""

from __future__ import annotations

import asyncio
import logging
import socket
import ssl
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import httpx
import pytest
from cryptography import x509

from router.config.load import load_config
from router.domain.errors import ConfigError
from router.gateway import server as server_module
from router.gateway.app import build_app
from router.gateway.server import check_tls
from tests.fakes.certificates import Authority
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    REQUEST,
    FakeEngine,
    answer,
    chat,
    eventually,
    fleet,
    running,
    stream,
)


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("tls"))


@pytest.fixture(scope="module")
def client_authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("clients"), "client authority")


async def started(fake: FakeEngine) -> AsyncIterator[FakeEngine]:
    await fake.start()
    yield fake
    await fake.stop()


@pytest.fixture
async def tls_engine(authority: Authority) -> AsyncIterator[FakeEngine]:
    fake = FakeEngine(chat("secret"), stream(["a", "b"]))
    fake.tls = authority.server_context("engine")
    async for one in started(fake):
        yield one


@pytest.fixture
async def mtls_engine(
    authority: Authority, client_authority: Authority
) -> AsyncIterator[FakeEngine]:
    fake = FakeEngine(chat("very secret"))
    fake.tls = authority.server_context("shy-engine", clients=client_authority)
    async for one in started(fake):
        yield one


def trust(authority: Authority, **more: str) -> dict[str, Any]:
    return {"tls": {"ca_file": str(authority.ca_file), **more}}


# Towards the engines


async def test_a_backend_is_trusted_by_the_systems_certificates(
    tls_engine: FakeEngine,
    gateway: StartGateway,
    authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", str(authority.ca_file))
    gate = await gateway(tls_engine)
    answered = await gate.post()
    assert answered.json()["choices"][0]["message"]["content"] == "secret"
    assert (await gate.post()).content.endswith(b"data: [DONE]\n\n")


async def test_a_backend_is_trusted_by_a_private_authority(
    tls_engine: FakeEngine, gateway: StartGateway, authority: Authority
) -> None:
    gate = await gateway(tls_engine, upstream={"backends": {"e*": trust(authority)}})
    assert (await gate.post()).status_code == 200


async def test_a_certificate_that_nobody_vouches_for_is_no_backend(
    tls_engine: FakeEngine, gateway: StartGateway
) -> None:
    gate = await gateway(tls_engine)
    answered = await gate.post()
    assert answered.status_code == 503
    assert "certificate" in answered.json()["error"]["message"]
    assert tls_engine.received == []


async def test_verification_may_be_given_up_on_purpose(
    tls_engine: FakeEngine, gateway: StartGateway
) -> None:
    gate = await gateway(tls_engine, upstream={"tls": {"verify": False}})
    assert (await gate.post()).status_code == 200


async def test_a_backend_that_asks_for_our_certificate_gets_it(
    mtls_engine: FakeEngine,
    gateway: StartGateway,
    authority: Authority,
    client_authority: Authority,
) -> None:
    pair = str(client_authority.issue("gateway"))
    gate = await gateway(mtls_engine, upstream=trust(authority, cert_file=pair))
    answered = await gate.post()
    assert answered.json()["choices"][0]["message"]["content"] == "very secret"


async def test_without_a_certificate_that_backend_is_out_of_reach(
    mtls_engine: FakeEngine, gateway: StartGateway, authority: Authority
) -> None:
    gate = await gateway(mtls_engine, upstream=trust(authority), reliability={"max_retries": 0})
    assert (await gate.post()).status_code in (502, 503)
    assert mtls_engine.received == []


# Keys of the engines


async def test_the_engines_key_goes_to_engines_and_nowhere_else(
    engine: StartEngine,
    gateway: StartGateway,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.DEBUG)
    monkeypatch.setenv("ENGINE_KEY", "sk-engine-1")
    echo = b'{"error":{"message":"Incorrect API key provided: sk-engine-1","code":401}}'
    backend = await engine(chat(), answer(401, echo))
    gate = await gateway(backend, upstream={"api_key_env": "ENGINE_KEY"})
    assert (await gate.post(authorization="Bearer the-clients")).status_code == 200
    assert backend.received[0].headers["authorization"] == "Bearer sk-engine-1"
    refused = await gate.post()
    assert (refused.status_code, refused.json()["error"]["code"]) == (502, "backend_credentials")
    pages = [(await gate.get(path)).text for path in ("/workers", "/debug/config", "/metrics")]
    for text in (refused.text, str(refused.headers), *pages, caplog.text):
        assert "sk-engine-1" not in text


async def test_an_engines_verdict_on_the_clients_own_key_is_passed_on(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(answer(401, b'{"error":"Unauthorized"}')))
    assert (await gate.post(authorization="Bearer the-clients")).status_code == 401


async def test_each_backend_may_have_a_key_of_its_own(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("VLLM_API_KEY", "sk-default")
    (tmp_path / "key").write_text("sk-of-e1\n")
    first, second = await engine(chat()), await engine(chat())
    section = {"backends": {"e1": {"api_key_file": str(tmp_path / "key")}}}
    gate = await gateway(first, second, upstream=section)
    await gate.post()
    await gate.post()
    shown = [b.received[0].headers["authorization"] for b in (first, second)]
    assert shown == ["Bearer sk-default", "Bearer sk-of-e1"]


async def test_an_engine_cannot_speak_in_the_gateways_name(
    engine: StartEngine, gateway: StartGateway
) -> None:
    lie = b"HTTP/1.1 200 OK\r\ncontent-length: 2\r\nx-motley-backend: liar\r\n\r\n{}"

    async def behave(request: Any) -> bool:
        await request.send(lie)
        return True

    gate = await gateway(await engine(behave))
    answered = await gate.post()
    assert answered.headers.get_list("x-motley-backend") == ["e0"]


# The gateway's own door


async def test_the_gateway_speaks_tls_itself(
    engine: StartEngine, authority: Authority, front_end: str
) -> None:
    pair = authority.issue("gateway-door")
    config = fleet(await engine(stream(["a"])), server={"tls": {"cert_file": str(pair)}})
    async with (
        running(config, front_end) as gate,
        httpx.AsyncClient(base_url=gate.url, verify=authority.client_context()) as client,
    ):
        assert gate.url.startswith("https://")
        answered = await client.post("/v1/chat/completions", content=REQUEST)
    assert answered.content.endswith(b"data: [DONE]\n\n")


async def test_clients_may_have_to_show_a_certificate(
    engine: StartEngine, authority: Authority, client_authority: Authority, front_end: str
) -> None:
    pair, own = authority.issue("strict-door"), client_authority.issue("client")
    tls = {"cert_file": str(pair), "client_ca_file": str(client_authority.ca_file)}
    config = fleet(await engine(chat()), server={"tls": tls})
    async with running(config, front_end) as gate:
        knows = authority.client_context(own)
        async with httpx.AsyncClient(base_url=gate.url, verify=knows) as client:
            assert (await client.get("/health")).status_code == 200
        stranger = authority.client_context()
        async with httpx.AsyncClient(base_url=gate.url, verify=stranger) as client:
            with pytest.raises(httpx.TransportError):
                await client.get("/health")


def serial_shown(url: str, trust: ssl.SSLContext) -> int:
    """Of the certificate that a new connection is shown."""
    host, port = url.removeprefix("https://").split(":")
    with (
        socket.create_connection((host, int(port)), timeout=5) as plain,
        trust.wrap_socket(plain, server_hostname=host) as secured,
    ):
        shown = secured.getpeercert(binary_form=True)
    assert shown is not None
    return x509.load_der_x509_certificate(shown).serial_number


async def test_a_renewed_certificate_is_shown_without_a_restart(
    engine: StartEngine,
    authority: Authority,
    front_end: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    monkeypatch.setattr(server_module, "RENEWAL_TICKS", 1)
    pair, trusted = authority.issue("renewed-door"), authority.client_context()
    config = fleet(
        await engine(stream(["a"] * 40, gap_s=0.02)), server={"tls": {"cert_file": str(pair)}}
    )

    async def shown(url: str) -> int:
        return await asyncio.to_thread(serial_shown, url, trusted)

    async with (
        running(config, front_end) as gate,
        httpx.AsyncClient(base_url=gate.url, verify=trusted) as client,
    ):
        open_stream = asyncio.create_task(client.post("/v1/chat/completions", content=REQUEST))
        first = await shown(gate.url)
        whole = pair.read_bytes()
        pair.write_bytes(whole[:100])  # a file that is being replaced changes nothing
        await eventually(lambda: "stays as it was" in caplog.text)
        assert await shown(gate.url) == first
        authority.issue("renewed-door")
        async with asyncio.timeout(5):
            while await shown(gate.url) == first:
                await asyncio.sleep(0.05)
        assert (await open_stream).content.endswith(b"data: [DONE]\n\n")


# Mistakes


@pytest.mark.parametrize(
    ("section", "says"),
    [
        ({"api_key_env": "NO_SUCH_VARIABLE"}, "NO_SUCH_VARIABLE is not set"),
        ({"api_key_file": "/no/such/file"}, "cannot read /no/such/file"),
        ({"tls": {"ca_file": "/no/such/ca"}}, "cannot use /no/such/ca"),
        ({"tls": {"key_file": "k"}}, "key_file needs cert_file"),
        ({"api_key_env": "A", "api_key_file": "b"}, "not both"),
    ],
)
def test_mistakes_are_named(section: dict[str, Any], says: str) -> None:
    with pytest.raises(ConfigError, match=says):
        build_app(load_config(fleet("http://h:1", upstream=section)))


def test_a_certificate_that_cannot_be_used_is_said_before_the_start() -> None:
    config = load_config(fleet("http://h:1", server={"tls": {"cert_file": "/no/such/pem"}}))
    with pytest.raises(ConfigError, match=r"server\.tls: cannot use its files"):
        check_tls(config.server.tls)


# What the gateway asks the engines itself


@pytest.fixture
async def locked_engine(
    authority: Authority, client_authority: Authority
) -> AsyncIterator[FakeEngine]:
    """Takes nobody without a certificate."""
    fake = FakeEngine(chat("very secret"))
    fake.tls = authority.server_context("locked-engine", clients=client_authority)
    async for one in started(fake):
        yield one


async def test_probe_and_scrape_show_the_key_and_the_certificate_that_requests_show(
    locked_engine: FakeEngine,
    gateway: StartGateway,
    authority: Authority,
    client_authority: Authority,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setenv("ENGINE_KEY", "k-123")
    pair = str(client_authority.issue("scraper"))
    gate = await gateway(
        locked_engine,
        upstream=trust(authority, cert_file=pair) | {"api_key_env": "ENGINE_KEY"},
        telemetry={"scrape_interval_s": 0.05},
        reliability={"health_interval_s": 0.05, "health_failures": 1},
    )
    await eventually(lambda: {"/health", "/metrics"} <= set(locked_engine.probes))
    assert set(locked_engine.probe_keys) == {"Bearer k-123"}
    (state,) = gate.relay.engine.dispatcher.state.backends
    assert state.healthy
    assert (await gate.post()).status_code == 200


async def test_neither_goes_where_a_worker_may_not_be(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """Its name pointed somewhere allowed when it was registered, and points elsewhere now."""
    backend = await engine(chat())
    gate = await gateway(
        backend,
        telemetry={"scrape_interval_s": 0.05},
        reliability={"health_interval_s": 0.05, "health_failures": 1},
    )
    await eventually(lambda: "/health" in backend.probes)
    gate.relay.engine.guards["e0"] = lambda address: f"{address} is refused"
    engine_side = backend.connections
    await backend.stop()  # what is open would still be used
    await backend.start()
    (state,) = gate.relay.engine.dispatcher.state.backends
    await eventually(lambda: not state.healthy)
    backend.probes.clear()
    await eventually(lambda: backend.connections > engine_side + 2)
    assert backend.probes == []
