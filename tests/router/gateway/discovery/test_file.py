"""Backends from a file that others write, in a running gateway."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

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
