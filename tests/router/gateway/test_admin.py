"""The admin surface: who may, and what SGLang's users know works here."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.config.access import AdminSection
from router.domain.errors import ConfigError
from router.gateway.admin import addresses
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    MODEL,
    REQUEST,
    FakeEngine,
    chat,
    eventually,
    fleet,
    running,
)

DEAD = "http://127.0.0.1:9"
OPS = {"authorization": "Bearer ops"}
ADMIN = {"api_keys": ["ops"]}


# Who may


@pytest.mark.parametrize(
    ("key", "status"),
    [("ops", 200), ("admin-grant", 200), ("plain", 403), ("operator", 403), ("wrong", 401)],
)
async def test_with_admin_keys_only_admins_come_in(
    gateway: StartGateway, key: str, status: int
) -> None:
    def entry(name: str, **rights: Any) -> dict[str, Any]:
        return {"name": name, "hash": f"sha256:{sha256(name.encode()).hexdigest()}", **rights}

    gate = await gateway(
        DEAD,
        admin=ADMIN,
        server={"api_keys": ["operator"]},
        access={"keys": [entry("admin-grant", admin=True), entry("plain")]},
    )
    for path in ("/workers", "/debug/fleet", "/debug/config", "/debug/queue"):
        assert (await gate.get(path, authorization=f"Bearer {key}")).status_code == status
    models = await gate.get("/v1/models", authorization=f"Bearer {key}")
    expected = 401 if key in ("ops", "wrong") else 200
    assert models.status_code == expected, "admin keys are no API keys"


async def test_on_a_port_of_its_own_the_api_knows_nothing_of_it(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()), admin={**ADMIN, "port": 0})
    for path in ("/workers", "/debug/config", "/add_worker", "/reload"):
        assert (await gate.get(path, **OPS)).status_code == 404
    own = gate.relay._rest.state.runtime.admin_url
    async with httpx.AsyncClient(base_url=own, headers=OPS) as client:
        assert (await client.get("/workers")).json()["workers"][0]["name"] == "e0"
        assert (await client.get("/health")).status_code == 200
        assert "motley_build_info" in (await client.get("/metrics")).text
        assert (await client.post("/v1/chat/completions", content=REQUEST)).status_code == 404
    async with httpx.AsyncClient(base_url=own) as client:
        assert (await client.get("/workers")).status_code == 401


# Workers


async def test_sglang_routers_words(engine: StartEngine, gateway: StartGateway) -> None:
    backend = await engine(chat("hi"))
    gate = await gateway(DEAD, admin=ADMIN)
    async with gate.client(**OPS) as client:
        entry = {"url": backend.url, "model_id": MODEL, "worker_type": "regular"}
        joined = await client.post("/workers", json={**entry, "labels": {"gpu": "l4"}})
        assert joined.status_code == 201, joined.text
        assert (joined.json()["model_id"], joined.json()["gpu"]) == (MODEL, "l4")
        assert joined.json()["source"] == "rest"
        assert (await client.get("/list_workers")).json() == {"urls": [DEAD, backend.url]}
        loads = (await client.get("/get_loads")).json()["workers"]
        assert loads[1] == {"worker": backend.url, "load": 0}
        assert (await client.post("/remove_worker", params={"url": DEAD})).status_code == 200
        encoded = backend.url.replace(":", "%3A").replace("/", "%2F")
        assert (await client.get(f"/workers/{encoded}")).json()["name"] == "l4-0"
        assert (await client.post("/workers/l4-0/drain")).json()["draining"] is True
        assert (await client.post("/workers/l4-0/resume")).json()["is_healthy"] is True
        assert (await gate.post()).headers["x-motley-backend"] == "l4-0"
        assert (await client.delete(f"/workers/{encoded}")).json()["removed"] == "l4-0"


async def test_json_that_is_not_called_json_is_told_how_to_be(gateway: StartGateway) -> None:
    """curl's ``-d`` calls everything a form."""
    gate = await gateway(DEAD, admin=ADMIN)
    form = {"content-type": "application/x-www-form-urlencoded"}
    async with gate.client(**OPS) as client:
        refused = await client.post("/workers", content=b'{"url": "http://a:1"}', headers=form)
        listed = await client.post("/workers", json=[])
    assert (refused.status_code, listed.status_code) == (400, 400)
    assert "send 'content-type: application/json'" in refused.json()["error"]["message"]
    assert "content-type" not in listed.json()["error"]["message"]


async def test_an_engine_is_asked_what_it_is(gateway: StartGateway) -> None:
    pages = {
        "/v1/models": {"data": [{"id": MODEL, "owned_by": "sglang", "max_model_len": 4096}]},
        "/v1/loads": {"loads": [], "accelerator": "NVIDIA A100-SXM4-80GB"},
    }
    fake = Told(pages)
    await fake.start()
    gate = await gateway(DEAD, admin=ADMIN)
    async with gate.client(**OPS) as client:
        joined = await client.post("/add_worker", params={"url": fake.url})
    await fake.stop()
    assert joined.status_code == 200, joined.text
    known = joined.json()
    assert (known["gpu"], known["engine"], known["model_id"]) == ("a100-80", "sglang", MODEL)
    assert known["max_context_tokens"] == 4096


@pytest.mark.parametrize("kind", ["vllm", "llamacpp"])
async def test_what_an_engine_does_not_tell_must_be_given(gateway: StartGateway, kind: str) -> None:
    fake = Told({"/v1/models": {"data": [{"id": MODEL, "owned_by": kind}]}})
    await fake.start()
    gate = await gateway(DEAD, admin=ADMIN)
    async with gate.client(**OPS) as client:
        refused = await client.post("/workers", json={"url": fake.url})
        given = await client.post("/workers", json={"url": fake.url, "gpu": "l4"})
    await fake.stop()
    assert refused.status_code == 400
    assert "gpu is missing" in refused.json()["error"]["message"]
    assert (given.status_code, given.json()["engine"]) == (201, kind)


class Told(FakeEngine):
    """Answers GETs with documents by path."""

    def __init__(self, pages: dict[str, object]) -> None:
        super().__init__(chat())
        self._pages = pages

    async def _serve(self, reader: Any, writer: Any) -> None:
        head = (await reader.readuntil(b"\r\n\r\n")).decode()
        page = json.dumps(self._pages.get(head.split()[1])).encode()
        writer.write(b"HTTP/1.1 200 OK\r\nconnection: close\r\n")
        writer.write(b"content-length: %d\r\n\r\n" % len(page) + page)
        await writer.drain()
        writer.close()


@pytest.mark.parametrize("field", ["priority", "cost", "api_key"])
async def test_what_has_no_meaning_here_is_said(gateway: StartGateway, field: str) -> None:
    gate = await gateway(DEAD, admin=ADMIN)
    async with gate.client(**OPS) as client:
        refused = await client.post("/workers", json={"url": DEAD, field: 1})
    assert refused.status_code == 400
    assert refused.json()["error"]["message"].startswith(f"{field}: ")


# Where a worker may be


@pytest.mark.parametrize(
    "url",
    [
        "http://169.254.169.254/latest",
        "http://[fe80::1%25eth0]:80",
        "http://[::ffff:169.254.169.254]:80",
        "http://[64:ff9b::a9fe:a9fe]:80",
        "http://100.100.100.200",
        "http://0.0.0.0:80",
        "http://224.0.0.1",
        "http://240.0.0.1",
        "http://2852039166",
        "file:///etc/passwd",
        "gopher://127.0.0.1",
    ],
)
async def test_addresses_that_no_worker_has(gateway: StartGateway, url: str) -> None:
    gate = await gateway(DEAD, admin=ADMIN)
    async with gate.client(**OPS) as client:
        entry = {"url": url, "model": MODEL, "gpu": "l4"}
        refused = await client.post("/workers", json=entry)
    assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_worker")
    state = gate.relay.engine.dispatcher.state
    assert [b.spec.name for b in state.backends] == ["e0"]


async def test_networks_may_be_narrowed_down() -> None:
    settings = AdminSection(worker_networks=["10.0.0.0/8", "fd00::/8"])
    await addresses.check("http://10.1.2.3:8000", settings)
    await addresses.check("http://[fd00::7]:8000", settings)
    with pytest.raises(ConfigError, match=r"in none of admin\.worker_networks"):
        await addresses.check("http://127.0.0.1:8000", settings)
    with pytest.raises(ConfigError, match="is no network"):
        addresses.guard(AdminSection(worker_networks=["ten"]))


async def test_a_name_that_later_points_elsewhere_gains_nothing(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """The address that was really reached is looked at before anything is sent there."""
    backend = await engine(chat())
    gate = await gateway(DEAD, admin={**ADMIN, "worker_networks": ["127.0.0.0/8"]})
    async with gate.client(**OPS) as client:
        entry = {"url": backend.url, "model": MODEL, "gpu": "l4"}
        await client.post("/workers", json=entry)
        await client.delete("/workers/e0")
        rebound = AdminSection(worker_networks=["10.0.0.0/8"])
        gate.relay.engine.guards["l4-0"] = addresses.guard(rebound)
        refused = await gate.post()
    assert refused.status_code == 503
    assert "admin.worker_networks" in refused.json()["error"]["message"]
    assert backend.received == []


async def test_a_worker_that_is_refused_changes_nothing_for_its_namesake(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """Where workers may be does not hold for the file's own backends."""
    admin = {**ADMIN, "worker_networks": ["10.0.0.0/8"]}
    gate = await gateway(await engine(chat()), admin=admin)
    async with gate.client(**OPS) as client:
        entry = {"name": "e0", "url": "http://10.0.0.1:1", "model": MODEL, "gpu": "l4"}
        assert (await client.post("/workers", json=entry)).status_code == 400
    assert (await gate.post()).status_code == 200


@pytest.mark.parametrize(
    ("more", "status"),
    [
        (b"authorization: Bearer a\r\nauthorization: Bearer ops\r\n\r\n", 400),
        (b"x: 1\r\n" * 200 + b"\r\n", 431),
        (b"content-type: application/json\r\ncontent-length: 99999999\r\n\r\n", 413),
    ],
    ids=["two keys", "many headers", "much"],
)
async def test_the_port_of_its_own_is_as_strict(
    gateway: StartGateway, more: bytes, status: int
) -> None:
    gate = await gateway(DEAD, admin={**ADMIN, "port": 0})
    url = gate.relay._rest.state.runtime.admin_url  # type: ignore[attr-defined]
    reader, writer = await asyncio.open_connection("127.0.0.1", int(url.rpartition(":")[2]))
    writer.write(b"POST /workers HTTP/1.1\r\nhost: g\r\n" + more)
    async with asyncio.timeout(10):
        assert (await reader.readline()).startswith(b"HTTP/1.1 %d " % status)
    writer.close()


# Looking inside


async def test_debug_pages(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(DEAD, aliases={"gpt-4": MODEL}, server={"api_keys": ["sk-hidden"]})
    key = {"authorization": "Bearer sk-hidden"}
    config = await gate.get("/debug/config", **key)
    assert config.json()["policy"]["name"] == "round-robin"
    assert config.json()["server"]["api_keys"] == ["***"]
    assert "sk-hidden" not in config.text
    seen = (await gate.get("/debug/fleet", **key)).json()
    assert (seen["models"], seen["aliases"]) == ({MODEL: ["e0"]}, {"gpt-4": MODEL})
    assert seen["backends"][0]["source"] == "config"
    queue = (await gate.get("/debug/queue", **key)).json()
    assert queue == {"queued": 0, "in_flight": 0, "shown": 0, "requests": []}


async def test_the_queue_is_shown_without_what_is_asked(gateway: StartGateway) -> None:
    gate = await gateway(DEAD)
    gate.relay.engine.dispatcher.set_health("e0", healthy=False, now=0.0)
    _, writer = await gate.ask()
    await eventually(lambda: gate.books["queued"] == 1)
    shown = (await gate.get("/debug/queue")).json()
    assert shown["requests"][0]["model"] == MODEL
    assert "hello" not in json.dumps(shown)
    writer.close()
    await eventually(lambda: gate.books["queued"] == 0)


async def test_reload_over_rest(tmp_path: Path) -> None:
    from router.config.load import load_config

    path = tmp_path / "f.yaml"
    config = fleet(DEAD, admin=ADMIN)
    path.write_text(json.dumps(config))
    async with (
        running(config, load=lambda: load_config(path)) as gate,
        gate.client(**OPS) as client,
    ):
        path.write_text(json.dumps(fleet(DEAD, "http://127.0.0.1:10", admin=ADMIN)))
        done = (await client.post("/reload")).json()
        assert (done["ok"], done["fleet"]["joined"]) == (True, ["e1"])
        path.write_text("{")
        refused = await client.post("/reload")
        assert (refused.status_code, refused.json()["error"]["code"]) == (400, "bad_config")
    async with running(config) as gate, gate.client(**OPS) as client:
        assert (await client.post("/reload")).json()["error"]["code"] == "no_file"


# Stopping


async def test_not_ready_before_not_accepting(engine: StartEngine) -> None:
    """Load balancers get ``drain_delay_s`` to notice, and requests are served meanwhile."""
    async with running(fleet(await engine(chat()))) as gate:
        assert (await gate.get("/ready")).status_code == 200
        gate.relay.on_drain()
        unready = await gate.get("/ready")
        assert (unready.status_code, unready.json()["error"]["code"]) == (503, "draining")
        assert (await gate.get("/health")).status_code == 200
        assert (await gate.post()).status_code == 200


async def test_a_gateway_with_an_admin_port_of_its_own_stops_without_a_complaint(
    engine: StartEngine, caplog: pytest.LogCaptureFixture
) -> None:
    async with running(fleet(await engine(chat()), admin={"port": 0})) as gate:
        assert (await gate.post()).status_code == 200
    assert "Traceback" not in caplog.text
    assert "shutdown failed" not in caplog.text
