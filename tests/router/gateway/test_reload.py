"""The YAML file again, while requests are under way."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from router.class_dispatcher import desk_of
from router.config.build import rebuild_dispatcher
from router.config.edit import write_weights
from router.config.load import load_config
from router.gateway.reload import Reloader
from router.log_replay import replay
from tests.fakes import ask
from tests.router.gateway.conftest import StartEngine
from tests.router.gateway.fakes import (
    MODEL,
    REQUEST,
    Gateway,
    chat,
    eventually,
    fleet,
    running,
    stream,
)
from tests.router.gateway.test_classes import Held


def write(path: Path, config: dict[str, Any]) -> None:
    path.write_text(json.dumps(config))  # YAML is a superset of JSON


@asynccontextmanager
async def served(path: Path, config: dict[str, Any]) -> AsyncIterator[tuple[Gateway, Reloader]]:
    """A gateway that reads ``path``."""
    write(path, config)
    async with running(config, load=lambda: load_config(path)) as gate:
        reloader = gate.relay._rest.state.runtime.reloader
        yield gate, reloader


def urls(gate: Gateway) -> list[str]:
    state = gate.relay.engine.dispatcher.state
    return [b.spec.url or "" for b in state.backends if b.usable]


async def test_a_reload_changes_what_it_can_and_drops_nothing(
    engine: StartEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    slow, other = await engine(stream(["a"] * 30, gap_s=0.01)), await engine(chat("new"))
    path, log = tmp_path / "fleet.yaml", tmp_path / "decisions.jsonl"
    before = fleet(slow, server={"decision_log": str(log)})
    async with served(path, before) as (gate, reloader):
        asked = asyncio.create_task(gate.post())
        await eventually(lambda: gate.books["in_flight"] == 1)
        after = fleet(other, aliases={"gpt-4": MODEL}, server={"decision_log": str(log), "port": 1})
        after["backends"][0]["name"] = "fresh"
        after["policy"] = {"name": "least-request"}
        write(path, after)
        result = reloader.reload("test")
        assert result.ok
        assert str(result.fleet) == "+fresh -e0"
        assert [str(change) for change in result.needs_restart] == ["server.port: 8000 -> 1"]
        renamed = await gate.post(body=REQUEST.replace(MODEL.encode(), b"gpt-4"))
        assert renamed.json()["choices"][0]["message"]["content"] == "new"
        assert renamed.headers["x-motley-policy"] == "least-request"
        assert (await asked).content.endswith(b"data: [DONE]\n\n"), "nothing is dropped"
        await eventually(lambda: gate.books["completed"] == 2)
    assert "reload (test): fleet +fresh -e0" in caplog.text
    assert "reload: policy.name: round-robin -> least-request" in caplog.text
    assert "reload: server.port: 8000 -> 1 needs a restart" in caplog.text
    lines = log.read_bytes().splitlines(keepends=True)
    assert b"use_policy" in b"".join(lines)
    assert replay(iter(lines), rebuild_dispatcher) == len(lines) - 1


async def test_what_waits_for_a_restart_is_told_until_it_is_taken_back(tmp_path: Path) -> None:
    path, good = tmp_path / "fleet.yaml", fleet("http://127.0.0.1:9")

    async def pending(gate: Gateway) -> list[str]:
        told: list[str] = (await gate.get("/debug/config")).json()["needs_restart"]
        return told

    async with served(path, good) as (gate, reloader):
        assert await pending(gate) == []
        write(path, {**good, "server": {"port": 1}})
        reloader.reload("test")
        write(path, {**good, "server": {"port": 1}, "aliases": {"gpt-4": MODEL}})
        reloader.reload("test")
        assert await pending(gate) == ["server.port: 8000 -> 1"]
        write(path, good)
        assert reloader.reload("test").needs_restart == ()
        assert await pending(gate) == []


@pytest.mark.parametrize(
    ("wrong", "why"),
    [
        ({"backends": []}, "the fleet is empty"),
        ({"policy": {"name": "nope"}}, "unknown policy 'nope'"),
        ({"policy": {"name": "motley", "params": {"nope": 1}}}, "has no parameter 'nope'"),
        ({"access": {"keys_file": "/no/such/file"}}, "cannot read the keys file"),
        ({"speling": 1}, "speling: no such setting"),
        ({"upstream": {"api_key_file": "/no/such/file"}}, "cannot read /no/such/file"),
        (fleet("http://127.0.0.1:10", "ftp://h:1"), "is not of the form http://host:port"),
    ],
)
async def test_a_bad_file_keeps_the_old_configuration_and_says_why(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, wrong: dict[str, Any], why: str
) -> None:
    path = tmp_path / "fleet.yaml"
    good = fleet("http://127.0.0.1:9")
    async with served(path, good) as (gate, reloader):
        write(path, {**good, **wrong})
        result = reloader.reload("test")
        assert not result.ok
        assert why in result.error
        assert urls(gate) == ["http://127.0.0.1:9"]
        exposition = (await gate.get("/metrics")).text
        assert "motley_config_last_reload_ok_ratio 0.0" in exposition
        assert 'motley_config_reloads_total{result="refused"} 1.0' in exposition
        write(path, good)
        assert reloader.reload("test").ok
        assert "motley_config_last_reload_ok_ratio 1.0" in (await gate.get("/metrics")).text
    assert "the old configuration stays" in caplog.text


async def test_the_file_is_watched_and_sighup_is_heard(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    async with served(path, fleet("http://127.0.0.1:9")) as (gate, reloader):
        write(path, fleet("http://127.0.0.1:9", "http://127.0.0.1:10"))
        reloader.look()
        assert len(urls(gate)) == 2
        reloader.look()
        write(path, fleet("http://127.0.0.1:11"))
        os.kill(os.getpid(), signal.SIGHUP)
        await eventually(lambda: urls(gate) == ["http://127.0.0.1:11"])


async def test_keys_come_and_go_with_their_file(engine: StartEngine, tmp_path: Path) -> None:
    backend = await engine(chat())
    path, keys = tmp_path / "fleet.yaml", tmp_path / "keys.json"
    entry = {"name": "a", "hash": "sha256:" + "0" * 64}
    keys.write_text(json.dumps({"keys": [entry]}))
    settings = fleet(backend, access={"keys_file": str(keys)}, server={"api_keys": ["k"]})
    async with served(path, settings) as (gate, reloader):
        assert (await gate.post(authorization="Bearer k")).status_code == 200
        assert "authorization" not in backend.received[0].headers
        from router.gateway.access.keys_file import make_key

        key, digest = make_key()
        keys.write_text(json.dumps({"keys": [entry, {"name": "b", "hash": digest}]}))
        reloader.look()
        assert (await gate.post(authorization=f"Bearer {key}")).status_code == 200
        keys.write_text("{")
        reloader.look()
        assert (await gate.post(authorization=f"Bearer {key}")).status_code == 200, "as they were"
        keys.write_text(json.dumps({"keys": [entry]}))
        reloader.look()
        assert (await gate.post(authorization=f"Bearer {key}")).status_code == 401


async def test_weights_written_by_the_tuner_are_planned_with_from_the_next_round(
    engine: StartEngine, tmp_path: Path
) -> None:
    path = tmp_path / "fleet.yaml"
    planner = {"enabled": True, "interval_s": 60.0, "history": None}
    async with served(path, fleet(await engine(chat()), planner=planner)) as (gate, reloader):
        planned = gate.relay._rest.state.runtime.planned
        assert planned is not None
        assert planned.planning is not None
        await planned.planning.plan_once()
        assert planned.planning._planner._weights.cost == 0.05
        write_weights(path, {"cost": 3.5})
        reloaded = reloader.reload("test")
        assert reloaded.ok
        assert "planner.weights.cost" in {change.path for change in reloaded.applied}
        assert not reloaded.needs_restart
        await planned.planning.plan_once()
        assert planned.planning._planner._weights.cost == 3.5


async def test_a_planner_section_that_makes_no_sense_changes_nothing(
    engine: StartEngine, tmp_path: Path
) -> None:
    path = tmp_path / "fleet.yaml"
    planner = {"enabled": True, "interval_s": 60.0, "history": None}
    good = fleet(await engine(chat()), planner=planner)
    async with served(path, good) as (_, reloader):
        write(path, {**good, "planner": {**planner, "usd_per_hour": {"a1000": 1.0}}})
        reloaded = reloader.reload("test")
        assert not reloaded.ok
        assert "unknown GPU" in reloaded.error


async def test_new_targets_reach_who_schedules_the_classes(
    tmp_path: Path, engine: StartEngine
) -> None:
    path = tmp_path / "motley.yaml"
    config = fleet(await engine(chat()), admission={"enabled": True})
    async with served(path, config) as (gate, reloader):
        desk = desk_of(gate.relay.engine.dispatcher)
        assert desk is not None
        request = ask("r", slo_class="interactive")
        assert desk.slo_of(request).ttft_s == 2.0
        slos = {"interactive": {"ttft_s": 0.7}, "gold": {"ttft_s": 0.2}}
        write(path, config | {"slos": slos})
        assert reloader.reload("test").ok
        assert desk.slo_of(request).ttft_s == 0.7
        answered = await gate.post(x_motley_class="gold")
        assert answered.status_code == 200
        assert desk.slo_of(ask("s", slo_class="gold")).ttft_s == 0.2
        assert desk.events["unknown_class", "interactive"] == 0
        assert desk.limits(MODEL, gate.clock.now()).ttft_s == 0.2, "it counts as in use"


async def test_who_waits_in_the_queue_of_classes_outlives_a_reload(
    tmp_path: Path, engine: StartEngine
) -> None:
    """Their class goes, its targets change, and the backend that they wait for is another's."""
    held = Held()
    first, second = await engine(held), await engine(stream(["second"]))
    path = tmp_path / "motley.yaml"
    seats: dict[str, Any] = {"engine_args": {"max_num_seqs": 1}}
    gold = {"slos": {"gold": {"ttft_s": 30.0}}, "admission": {"enabled": True}}
    config = fleet(first, **gold)
    config["backends"][0] |= seats
    async with served(path, config) as (gate, reloader):
        running_now = asyncio.create_task(gate.post(x_motley_class="gold"))
        await eventually(lambda: gate.books["in_flight"] == 1)
        waiting = [
            asyncio.create_task(gate.post(x_motley_class=name))
            for name in ("gold", "gold", "bulk", "bulk")
        ]
        await eventually(lambda: gate.books["queued"] == 4)
        changed = fleet(first, second, admission=gold["admission"])
        changed["backends"][0] |= seats
        del changed["backends"][0]
        write(path, changed)
        assert reloader.reload("test").ok
        answers = await asyncio.wait_for(asyncio.gather(*waiting), 10)
        assert [a.status_code for a in answers] == [200] * 4
        assert {a.headers["x-motley-backend"] for a in answers} == {"e1"}
        held.open.set()
        assert (await running_now).status_code == 200
        gate.assert_at_rest()
        desk = desk_of(gate.relay.engine.dispatcher)
        assert desk is not None
        assert not desk.room.lanes
