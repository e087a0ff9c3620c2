"""What-if from the page: a process of its own, with progress, cancel and honest failures."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from router.config.load import load_config
from router.gateway.dashboard.whatif import Ask, Report, WhatIf, words, world
from telemetry.learned import Learned
from telemetry.learned_file import read_learned
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, Gateway, eventually, stream

DEAD = "http://127.0.0.1:9"
PATH = "/dashboard/whatif"


def write_record(folder: Path, requests: int) -> Path:
    rows = [
        {"arrival_s": 1e9 + i, "input_tokens": 200, "output_tokens": 20, "model": MODEL}
        for i in range(requests)
    ]
    lines = "".join(json.dumps(row | {"request_id": f"r{i}"}) + "\n" for i, row in enumerate(rows))
    (folder / "traffic-00000001-7.jsonl").write_text(lines)
    return folder


async def ask(gate: Gateway, method: str, **fields: Any) -> Any:
    async with gate.client() as client:
        return await client.request(method, PATH, json=fields or None)


async def until_over(gate: Gateway) -> dict[str, Any]:
    async with asyncio.timeout(60.0):
        while (report := (await gate.get(PATH)).json())["state"] == "running":
            await asyncio.sleep(0.1)
    found: dict[str, Any] = report
    return found


async def test_the_live_fleet_is_replayed_on_its_own_record(
    gateway: StartGateway, tmp_path: Path
) -> None:
    record = {"directory": str(write_record(tmp_path, 60))}
    gate = await gateway(DEAD, DEAD, telemetry={"enabled": False, "record": record})
    begun = await ask(gate, "POST", remove=["e1"], seeds=1)
    assert begun.status_code == 202
    assert (await ask(gate, "POST", remove=["e1"])).status_code == 409  # one at a time
    report = await until_over(gate)
    assert report["state"] == "done", report
    study = report["study"]
    assert study["requests"] == 60
    assert study["fleet_now"] == {"a100-80/vllm": 2}
    assert study["fleet_then"] == {"a100-80/vllm": 1}
    assert study["policy_now"] == "round-robin"


async def test_it_begins_with_what_the_gateway_has_learned(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    told: list[Learned] = []

    async def study(_: WhatIf, command: list[str], report: Report) -> None:
        (file,) = [word.partition("=")[2] for word in command if word.startswith("--learned=")]
        told.append(read_learned(file)[0])
        report.state = "done"

    monkeypatch.setattr(WhatIf, "_study", study)
    record = {"directory": str(write_record(tmp_path, 5))}
    backend = await engine(stream(["a"] * 30))
    gate = await gateway(backend, telemetry={"enabled": False, "record": record})
    for _ in range(3):
        assert (await gate.post()).status_code == 200
    await eventually(lambda: gate.relay.engine.live == 0)
    await ask(gate, "POST", load=2.0)
    await until_over(gate)
    assert told[0].origin == "gateway"
    leaf = told[0].lengths[0]
    assert (leaf.key[0], round(leaf.mean_tokens)) == (MODEL, 30)


async def test_what_fails_says_why(gateway: StartGateway, tmp_path: Path) -> None:
    gate = await gateway(DEAD, telemetry={"enabled": False, "record": {"directory": str(tmp_path)}})
    await ask(gate, "POST", add=["t5:1"])
    report = await until_over(gate)
    assert report["state"] == "failed"
    assert "no traffic in it yet" in report["error"]


async def test_it_can_be_cancelled(gateway: StartGateway, tmp_path: Path) -> None:
    record = {"directory": str(write_record(tmp_path, 5000))}
    gate = await gateway(DEAD, telemetry={"enabled": False, "record": record})
    await ask(gate, "POST", load=2.0, seeds=20)
    assert (await ask(gate, "DELETE")).json()["state"] == "cancelled"
    whatif = gate.relay._rest.state.whatif  # type: ignore[attr-defined]
    async with asyncio.timeout(20.0):
        await whatif.close()
    assert whatif._process is None or whatif._process.returncode is not None


async def test_without_a_record_it_says_what_to_set(gateway: StartGateway) -> None:
    gate = await gateway(DEAD)
    refused = await ask(gate, "POST", load=2.0)
    assert refused.status_code == 409
    assert "telemetry.record.directory" in refused.json()["error"]["message"]
    assert (await gate.get(PATH)).json()["state"] == "none"


@pytest.mark.parametrize(
    "fields", [{"load": 0}, {"seeds": 0}, {"surprise": 1}, {"add": ["t4"] * 99}, {"last_s": -1}]
)
async def test_nonsense_is_refused(gateway: StartGateway, fields: dict[str, Any]) -> None:
    gate = await gateway(DEAD)
    assert (await ask(gate, "POST", **fields)).status_code in (400, 422)


def test_values_never_become_options() -> None:
    command = words(Ask(add=["--help"], remove=["-x"]), Path("f.yaml"), "--json")
    assert "--help" not in command
    assert "--add=--help" in command
    assert "--from=--json" in command


def test_the_world_keeps_the_files_settings_and_no_secrets(tmp_path: Path) -> None:
    file = tmp_path / "fleet.yaml"
    said = {
        "backends": [{"gpu": "a100-80", "model": MODEL, "url": DEAD, "zone": "z"}],
        "slos": {"chat": {"ttft_s": 1.0}},
        "server": {"api_keys": ["sesame"]},
        "planner": {"usd_per_hour": {"a100-80": 1.5}},
    }
    file.write_text(yaml.safe_dump(said))
    config = load_config(file)
    kept = world(config, list(config.fleet.backends))
    assert "sesame" not in str(kept)
    assert kept["slos"] == said["slos"]
    again = tmp_path / "again.yaml"
    again.write_text(yaml.safe_dump(kept))
    loaded = load_config(again)
    assert [s.zone for s in loaded.fleet.backends] == ["z"]
    assert loaded.planner.usd_per_hour == {"a100-80": 1.5}
