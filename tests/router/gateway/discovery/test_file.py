"""Backends from a file that others write, in a running gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from router.config.discovery import FileSource
from router.config.load import load_config
from router.gateway.discovery.file import FromFile
from router.gateway.discovery.seam import DiscoveryError
from tests.router.gateway.conftest import StartEngine
from tests.router.gateway.fakes import MODEL, Gateway, chat, eventually, fleet, running, stream


def write(path: Path, *urls: str) -> None:
    """As careful writers do: whole or not at all."""
    backends = [{"gpu": "a100-80", "model": MODEL, "url": u, "name": f"f{u[-5:]}"} for u in urls]
    fresh = path.with_suffix(".new")
    fresh.write_text(json.dumps({"backends": backends}))
    fresh.replace(path)


def names(gate: Gateway) -> list[str]:
    state = gate.relay.engine.dispatcher.state
    return [backend.spec.url or "" for backend in state.backends if backend.usable]


def settings(path: Path) -> dict[str, Any]:
    config = fleet(discovery={"files": [{"path": str(path), "interval_s": 0.02}]})
    return {**config, "backends": []}


async def test_a_file_may_come_change_break_and_go(engine: StartEngine, tmp_path: Path) -> None:
    one, two = await engine(chat("one")), await engine(chat("two"))
    path = tmp_path / "fleet.yaml"
    async with running(settings(path)) as gate:
        assert (await gate.get("/ready")).status_code == 503
        write(path, one.url)
        await eventually(lambda: names(gate) == [one.url])
        assert (await gate.post()).status_code == 200
        write(path, one.url, two.url)
        await eventually(lambda: names(gate) == [one.url, two.url])
        path.write_text("backends: {")
        await eventually(lambda: b"motley_discovery_errors_total{" in metrics(gate))
        assert names(gate) == [one.url, two.url], "a broken file changes nothing"
        write(path, two.url)
        await eventually(lambda: names(gate) == [two.url])
        path.unlink()
        await asyncio.sleep(0.1)
        assert names(gate) == [two.url], "a file that is gone is an error, not a fleet of none"


async def test_a_model_whose_last_backend_left_is_awaited_for_a_while(
    engine: StartEngine, tmp_path: Path
) -> None:
    """It is on its way to another node, say: clients are to come again, not to give up."""
    backend, other = await engine(chat()), await engine(chat())
    path = tmp_path / "fleet.yaml"
    write(path, backend.url)
    config = settings(path)
    config["discovery"]["grace_s"] = 100.0
    config["backends"] = [
        {"gpu": "a100-80", "model": "qwen2.5-7b", "name": "other", "url": other.url}
    ]
    async with running(config) as gate:
        await eventually(lambda: backend.url in names(gate))
        path.write_text(json.dumps({"backends": []}))
        await eventually(lambda: len(list(gate.relay.engine.dispatcher.state.backends)) == 1)
        answered = await gate.post()
        assert (answered.status_code, answered.headers["retry-after"]) == (503, "5")
        error = answered.json()["error"]
        assert (error["code"], MODEL in error["message"]) == ("no_healthy_backend", True)
        never = await gate.post(body=b'{"model":"gpt-9"}')
        assert never.status_code == 404, "what nobody ever served is unknown"
        gate.clock.ahead_s += 101.0
        assert (await gate.post()).status_code == 404
        write(path, backend.url)
        await eventually(lambda: backend.url in names(gate))
        assert (await gate.post()).status_code == 200


async def test_a_model_that_the_configuration_dropped_is_unknown_at_once(
    engine: StartEngine, tmp_path: Path
) -> None:
    path = tmp_path / "fleet.yaml"
    backend, other = await engine(chat()), await engine(chat())
    keeps = {"gpu": "a100-80", "model": "qwen2.5-7b", "name": "other", "url": other.url}
    config = fleet(backend)
    config["backends"].append(keeps)
    path.write_text(json.dumps(config))
    async with running(config, load=lambda: load_config(path)) as gate:
        assert (await gate.post()).status_code == 200
        path.write_text(json.dumps(config | {"backends": [keeps]}))
        assert gate.relay._rest.state.runtime.reloader.reload("test").ok
        await eventually(lambda: len(list(gate.relay.engine.dispatcher.state.backends)) == 1)
        assert (await gate.post()).status_code == 404


async def test_a_backend_that_leaves_finishes_its_streams(
    engine: StartEngine, tmp_path: Path
) -> None:
    slow, other = await engine(stream(["a"] * 30, gap_s=0.01)), await engine(chat())
    path = tmp_path / "fleet.yaml"
    write(path, slow.url)
    async with running(settings(path)) as gate:
        await eventually(lambda: names(gate) == [slow.url])
        asked = asyncio.create_task(gate.post())
        await eventually(lambda: gate.books["in_flight"] == 1)
        write(path, other.url)
        await eventually(lambda: names(gate) == [other.url])
        state = gate.relay.engine.dispatcher.state
        assert len(list(state.backends)) == 2, "it drains"
        assert (await asked).content.endswith(b"data: [DONE]\n\n")
        await eventually(lambda: len(list(state.backends)) == 1)


def metrics(gate: Gateway) -> bytes:
    return gate.relay._rest.state.runtime.instruments.metrics.exposition()[0]


async def test_a_file_that_is_nested_too_deep_ends_nothing(tmp_path: Path) -> None:
    path = tmp_path / "workers.yaml"
    path.write_text("backends: " + "[" * 3000)
    source = FromFile(FileSource(path=str(path), interval_s=0.01))
    with pytest.raises(DiscoveryError, match="nested too deep"):
        await anext(source.fleets())
