"""Models, health, workers, metrics: the paths that FastAPI serves."""

from __future__ import annotations

import asyncio

import httpx
import pytest

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    MODEL,
    Gateway,
    chat,
    eventually,
    fleet,
    running,
    stream,
)

DEAD = "http://127.0.0.1:9"
KEY = {"authorization": "Bearer k"}


async def test_models_are_listed_with_their_aliases(gateway: StartGateway) -> None:
    gate = await gateway(DEAD, DEAD, aliases={"gpt-4": MODEL})
    listed = (await gate.get("/v1/models")).json()
    assert listed["object"] == "list"
    assert [(entry["id"], entry["root"]) for entry in listed["data"]] == [
        ("gpt-4", MODEL),
        (MODEL, MODEL),
    ]
    assert all(entry["object"] == "model" for entry in listed["data"])
    assert all(entry["max_model_len"] > 1_000 for entry in listed["data"])


async def test_one_model(gateway: StartGateway) -> None:
    gate = await gateway(DEAD)
    assert (await gate.get(f"/v1/models/{MODEL}")).json()["id"] == MODEL
    missing = await gate.get("/v1/models/org/nope")
    assert missing.status_code == 404
    assert missing.json()["error"]["code"] == "model_not_found"


async def test_health_is_about_the_gateway_and_ready_about_the_fleet(
    gateway: StartGateway,
) -> None:
    gate = await gateway(DEAD)
    assert (await gate.get("/health")).json() == {"status": "ok"}
    assert (await gate.get("/ready")).json() == {"status": "ready", "models": [MODEL]}
    gate.relay.engine.dispatcher.set_health("e0", healthy=False, now=0.0)
    assert (await gate.get("/health")).status_code == 200
    unready = await gate.get("/ready")
    assert unready.status_code == 503
    assert unready.json()["error"]["message"] == f"No usable backend for: {MODEL}."
    assert unready.headers["retry-after"] == "1"


async def test_a_load_balancer_may_ask_with_head(front_end: str) -> None:
    """The answer is that of GET without its body, so the next one comes on the same connection."""
    async with running(fleet(DEAD), front_end) as gate, gate.client() as client:
        for path in (
            "/health",
            "/ready",
            "/ready?any=true",
            "/liveness",
            "/readiness",
            "/v1/models",
        ):
            head, whole = await client.head(path), await client.get(path)
            assert (head.status_code, head.content) == (200, b"")
            assert head.headers["content-length"] == whole.headers["content-length"]
        for path in ("/metrics", "/"):
            assert (await client.head(path)).status_code == 200
        gate.relay.engine.dispatcher.set_health("e0", healthy=False, now=0.0)
        head = await client.head("/ready")
        assert (head.status_code, head.content) == (503, b"")
        assert head.headers["retry-after"] == "1"
        assert "head" not in (await client.get("/openapi.json")).json()["paths"]["/health"]
        assert (await client.head("/v1/chat/completions")).status_code == 405


async def test_a_load_balancer_may_be_content_with_any_model() -> None:
    """One model without an engine must not close the door of all the others."""
    other = {"name": "other", "gpu": "l4", "model": "llama-3.2-1b", "url": DEAD}
    config = fleet(DEAD)
    async with running({**config, "backends": [*config["backends"], other]}) as gate:
        await content_with_any(gate)


async def content_with_any(gate: Gateway) -> None:
    gate.relay.engine.dispatcher.set_health("e0", healthy=False, now=0.0)
    assert (await gate.get("/ready")).status_code == 503
    content = await gate.get("/ready?any=true")
    assert content.json() == {"status": "ready", "models": ["llama-3.2-1b"]}
    gate.relay.engine.dispatcher.set_health("other", healthy=False, now=0.0)
    assert (await gate.get("/ready?any=true")).status_code == 503


async def test_workers_tell_what_is_known_of_them(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()), "http://127.0.0.1:9")
    first, second = (await gate.get("/workers")).json()["workers"]
    assert first["name"] == "e0"
    assert first["model_id"] == MODEL
    assert first["gpu"] == "a100-80"
    assert first["is_healthy"] is True
    assert first["load"] == 0
    assert first["engine_running"] is None, "unknown is not zero"
    assert second["url"] == "http://127.0.0.1:9"


async def test_workers_join_and_leave(engine: StartEngine, gateway: StartGateway) -> None:
    backend = await engine(chat())
    gate = await gateway(DEAD, server={"api_keys": ["k"]})
    async with gate.client(**KEY) as client:
        entry = {"gpu": "t4", "model": "qwen2.5-0.5b", "url": backend.url}
        unknown = await client.post("/workers", json={**entry, "model": "nope"})
        assert unknown.status_code == 400
        assert "nope" in unknown.json()["error"]["message"]
        joined = await client.post("/workers", json={**entry, "model": MODEL, "gpu": "l4"})
        assert joined.status_code == 201, joined.text
        assert joined.json()["name"] == "l4-0"
        again = await client.post("/workers", json={**entry, "model": MODEL, "gpu": "l4"})
        assert again.json()["name"] == "l4-1"
        assert (await client.delete("/workers/e0")).json() == {"removed": "e0", "in_flight": 0}
        assert (await client.delete("/workers/e0")).status_code == 404
        answered = await gate.post(authorization="Bearer k")
        assert answered.headers["x-motley-backend"] in ("l4-0", "l4-1")


async def test_a_worker_that_leaves_finishes_what_it_has(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(stream(["a"] * 20, gap_s=0.01))
    gate = await gateway(backend, server={"api_keys": ["k"]})
    asked = asyncio.create_task(gate.post(authorization="Bearer k"))
    await eventually(lambda: gate.books["in_flight"] == 1)
    async with gate.client(**KEY) as client:
        assert (await client.delete("/workers/e0")).json()["in_flight"] == 1
    assert (await asked).content.endswith(b"data: [DONE]\n\n")
    await eventually(backend.received[0].reader.at_eof)


@pytest.mark.parametrize(
    ("entry", "what"),
    [
        ({"gpu": "l4", "model": MODEL, "url": "ftp://x"}, "ftp://x"),
        ({"gpu": "h100", "model": MODEL}, "no url"),
        ({"gpu": "abacus", "model": MODEL, "url": DEAD}, "abacus"),
        ({"gpu": "a100-80", "model": MODEL, "url": DEAD, "colour": "red"}, "colour"),
        ({"model": MODEL, "url": DEAD}, "gpu"),
        ({"gpu": "a100-80", "model": MODEL, "url": DEAD, "name": "e0"}, "e0"),
        ({"gpu": "t4", "model": MODEL, "url": DEAD}, "does not fit"),
    ],
)
async def test_a_worker_that_cannot_be(
    gateway: StartGateway, entry: dict[str, str], what: str
) -> None:
    gate = await gateway(DEAD, server={"api_keys": ["k"]})
    async with gate.client(**KEY) as client:
        answered = await client.post("/workers", json=entry)
    assert answered.status_code == 400
    assert what in answered.json()["error"]["message"]


async def test_workers_change_only_for_those_who_hold_a_key(gateway: StartGateway) -> None:
    """Whoever may add a worker may make the gateway talk to any address."""
    entry = {"gpu": "a100-80", "model": MODEL, "url": "http://169.254.169.254"}
    gate = await gateway(DEAD)
    async with gate.client() as client:
        refused = await client.post("/workers", json=entry)
        assert (refused.status_code, refused.json()["error"]["code"]) == (403, "keys_required")
        assert (await client.delete("/workers/e0")).status_code == 403


async def test_paths_that_do_not_exist(gateway: StartGateway) -> None:
    gate = await gateway(DEAD)
    missing = await gate.get("/v2/nothing", **{"x-request-id": "r1"})
    assert missing.status_code == 404
    assert missing.headers["x-request-id"] == "r1"
    assert missing.json()["error"]["message"].startswith("There is nothing at /v2/nothing. GET")
    for asked, meant in (
        ("/chat/completions", "/v1/chat/completions"),
        ("/v1/v1/messages", "/v1/messages"),
        ("//v1/completions", "/v1/completions"),
        ("/models", "/v1/models"),
    ):
        said = (await gate.get(asked)).json()["error"]["message"]
        assert f"Did you mean {meant}?" in said, asked


async def test_a_wrong_method_is_told_the_right_one(gateway: StartGateway) -> None:
    gate = await gateway(DEAD)
    wrong = await gate.get("/v1/chat/completions")
    assert (wrong.status_code, wrong.headers["allow"]) == (405, "POST")
    assert wrong.json()["error"]["message"] == "/v1/chat/completions does not take GET."


async def test_the_document_lists_every_path(gateway: StartGateway) -> None:
    gate = await gateway(DEAD)
    paths = (await gate.get("/openapi.json")).json()["paths"]
    assert {"/v1/chat/completions", "/v1/completions", "/v1/models", "/workers"} <= set(paths)
    assert {"/health", "/ready", "/metrics"} <= set(paths)


async def test_the_documented_route_relays_as_well(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """FastAPI's own route for a hot path is real: it hands the connection to the relay."""
    gate = await gateway(await engine(chat("hi")))
    api = gate.relay._rest
    transport = httpx.ASGITransport(app=api)  # type: ignore[arg-type]
    async with httpx.AsyncClient(transport=transport, base_url="http://g") as client:
        answered = await client.post("/v1/chat/completions", json={"model": MODEL})
    assert answered.json()["choices"][0]["message"]["content"] == "hi"
