"""vLLM engines that take turns on the same cards, emulated, over HTTP."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from dataclasses import replace
from pathlib import Path

import httpx
import pytest

from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec
from router.gateway.placement.adapter import PlacementError
from router.gateway.placement.vllm import VllmAdapter
from router.gateway.plan_history import read_history
from simulator.engine_server.build import EngineOptions
from simulator.engine_server.fleet import EngineFleet
from simulator.engine_server.listening import listen, url_of
from tests.router.gateway.fakes import running

LARGE, SMALL, TUNED = "llama-3.1-8b", "llama-3.2-3b", "sql-8b"
FAST = EngineOptions(speed=50.0)


def _spec(name: str, model: str, slot: str) -> BackendSpec:
    return BackendSpec(name, "a100-80", "vllm", model, labels={"slot": slot})


@pytest.fixture
async def specs() -> AsyncIterator[list[BackendSpec]]:
    """Two cards; on each a large and a small model may be awake, and an adapter on the first."""
    planned = [
        _spec(f"{name}{n}", model, f"card{n}")
        for n in range(2)
        for name, model in (("large", LARGE), ("small", SMALL))
    ]
    listeners = {spec.name: (spec, listen("127.0.0.1", 0)) for spec in planned}
    urls = {name: url_of(listener) for name, (_, listener) in listeners.items()}
    async with EngineFleet(listeners, FAST):
        made = [replace(spec, url=urls[spec.name]) for spec in planned]
        async with httpx.AsyncClient() as http:
            for spec in made:
                if spec.model == SMALL:
                    await http.post(f"{spec.url}/sleep")
        yield made


@pytest.fixture
async def adapter(specs: list[BackendSpec]) -> AsyncIterator[VllmAdapter]:
    made = VllmAdapter(specs, ready_timeout_s=5.0, look_s=0.01)
    yield made
    await made.close()


async def _asks(spec: BackendSpec) -> int:
    body = {"model": spec.model, "messages": [{"role": "user", "content": "hi"}], "max_tokens": 2}
    async with httpx.AsyncClient() as http:
        return (await http.post(f"{spec.url}/v1/chat/completions", json=body)).status_code


async def test_it_tells_who_is_asleep(adapter: VllmAdapter, specs: list[BackendSpec]) -> None:
    assert [spec.name for spec in await adapter.asleep()] == ["small0", "small1"]
    assert await _asks(specs[0]) == 200
    assert await _asks(specs[1]) == 503


async def test_the_cards_of_a_slot_count_once(
    adapter: VllmAdapter, specs: list[BackendSpec]
) -> None:
    survey = await adapter.survey([specs[0], specs[2]])
    assert [(pool.gpu, pool.cards) for pool in survey.pools] == [("a100-80", 2)]
    assert [spec.name for spec in survey.startable] == ["small0", "small1"]


async def test_one_sleeps_and_the_other_wakes(
    adapter: VllmAdapter, specs: list[BackendSpec]
) -> None:
    large0, small0, large1, _ = specs
    group = small0.group
    assert not adapter.can_start(group, [large0, large1])
    await adapter.stop(large0)
    assert await _asks(large0) == 503
    assert await adapter.start(group, [large1]) == small0
    assert await _asks(small0) == 200
    assert await adapter.asleep() == [large0, specs[3]]


async def test_a_neighbour_that_was_left_awake_is_put_to_sleep_first(
    adapter: VllmAdapter, specs: list[BackendSpec]
) -> None:
    await adapter.start(specs[1].group, [specs[2]])
    assert await _asks(specs[0]) == 503


async def test_adapters_are_loaded_and_unloaded(specs: list[BackendSpec]) -> None:
    base = specs[0]
    tuned = replace(base, name="tuned", model=TUNED, labels={"slot": "card0", "lora": "/sql"})
    adapter = VllmAdapter([base, tuned], ready_timeout_s=5.0)
    assert await adapter.asleep() == [tuned]
    await adapter.stop(base)  # its engine stays awake: the adapter is served from it
    assert await adapter.start(tuned.group, []) == tuned
    assert await _asks(tuned) == 200
    async with httpx.AsyncClient() as http:
        listed = (await http.get(f"{base.url}/v1/models")).json()["data"]
    assert [(one["id"], one["parent"]) for one in listed] == [(LARGE, None), (TUNED, LARGE)]
    await adapter.stop(tuned)
    assert await _asks(tuned) == 404
    assert await _asks(base) == 200
    await adapter.close()


async def test_an_engine_that_is_gone_is_named(specs: list[BackendSpec]) -> None:
    gone = replace(specs[0], url="http://127.0.0.1:9")
    adapter = VllmAdapter([gone], ready_timeout_s=1.0)
    with pytest.raises(PlacementError, match="large0: GET /is_sleeping"):
        await adapter.asleep()
    await adapter.close()


def test_slots_must_make_sense() -> None:
    other = replace(_spec("b", SMALL, "card0"), gpu="t4")
    with pytest.raises(ConfigError, match="same gpu, zone and tensor_parallel"):
        VllmAdapter([_spec("a", LARGE, "card0"), other], ready_timeout_s=1.0)
    with pytest.raises(ConfigError, match="only vLLM can sleep"):
        VllmAdapter([replace(_spec("a", LARGE, "card0"), engine="sglang")], ready_timeout_s=1.0)


def _config(specs: list[BackendSpec], history: Path, **placement: object) -> dict[str, object]:
    return {
        "backends": [
            {
                "name": spec.name,
                "gpu": spec.gpu,
                "engine": spec.engine,
                "model": spec.model,
                "url": spec.url,
                "labels": dict(spec.labels),
            }
            for spec in specs
        ],
        "planner": {
            "enabled": True,
            "interval_s": 60.0,
            "history": str(history),
            "placement": {"interval_s": 0.3, "time_limit_s": 1.0, **placement},
        },
        "reliability": {"health_interval_s": 60.0},
    }


async def test_the_gateway_moves_a_card_to_the_model_that_is_asked_for(
    specs: list[BackendSpec], tmp_path: Path
) -> None:
    """Both large engines run; the plan wants the small model ready too; nobody is cut off."""
    history = tmp_path / "plans.sqlite"
    async with running(_config(specs, history, adapter="vllm")) as gate:

        def models() -> list[str]:
            backends = gate.relay.engine.dispatcher.state.backends
            return sorted(backend.spec.model for backend in backends if backend.usable)

        async def ask(model: str) -> int:
            body = {"model": model, "messages": [{"role": "user", "content": "hi"}]}
            return (
                await gate.post(
                    body=json.dumps({**body, "max_tokens": 4}).encode(),
                    content_type="application/json",
                )
            ).status_code

        for _ in range(300):
            assert await ask(LARGE) == 200
            if models() == [LARGE, SMALL]:
                break
            await asyncio.sleep(0.05)
        assert models() == [LARGE, SMALL]
        assert await ask(SMALL) == 200
        page = ""
        for _ in range(200):  # the step is counted once all of them are done
            page = (await gate.get("/metrics")).text
            if "motley_placement_steps_total{" in page:
                break
            await asyncio.sleep(0.02)
        assert 'motley_placement_steps_total{outcome="ok",step="start"} 1.0' in page
        assert 'motley_placement_steps_total{outcome="ok",step="stop"} 1.0' in page
    row = next(row for row in read_history(history) if row.outcome == "applied")
    assert [step["kind"] for step in row.result["steps"]] == ["stop", "start"]
    assert row.inputs["stock"] == {"a100-80": 2}
    assert row.expected_e2e_s is not None
