"""The gateway's bills: prices from the file, power from DCGM, the prior where it is away."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from router.config.load import load_config
from router.domain.errors import ConfigError, UnknownNameError
from router.gateway.app import build_app
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import Gateway, fleet, stream
from tests.telemetry.test_power import PAGE
from tests.telemetry.web import page, serving

USAGE = {"prompt_tokens": 70, "completion_tokens": 30}


def metering(gate: Gateway) -> Any:
    return gate.relay._rest.state.runtime.metering  # type: ignore[attr-defined]


async def test_costs_are_told_by_tenant_model_and_gpu(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(
        await engine(stream(["a", "b"], usage=USAGE)), planner={"usd_per_hour": {"a100-80": 36.0}}
    )
    await gate.post(x_tenant_id="acme")
    gate.clock.ahead_s += 10.0
    metering(gate).sample()
    gate.clock.ahead_s += 10.0
    metering(gate).sample()
    costs = (await gate.get("/debug/costs")).json()["costs"]
    acme = next(row for row in costs if row["tenant"] == "acme")
    assert (acme["model"], acme["gpu"]) == ("llama-3.1-8b", "a100-80")
    assert (acme["prompt_tokens"], acme["output_tokens"], acme["requests"]) == (70, 30, 1)
    assert acme["usd_per_million_tokens"] == pytest.approx(acme["cost_usd"] * 1e4)
    assert sum(row["cost_usd"] for row in costs) == pytest.approx(0.01 * 20, rel=0.1)
    told = (await gate.get("/metrics")).text
    labels = 'gpu="a100-80",model="llama-3.1-8b",tenant="acme"'
    assert f"motley_cost_usd_total{{{labels}}}" in told
    assert 'motley_power_watts{backend="e0",source="prior"}' in told
    assert 'motley_backend_info{accelerator="",backend="e0"' in told


async def test_power_and_card_come_from_dcgm(engine: StartEngine, gateway: StartGateway) -> None:
    backend = await engine(stream(["a"]))
    async with serving(lambda *_: page(PAGE)) as (url, _):
        power = {"e0": {"dcgm": f"{url}/metrics", "gpus": [0, "GPU-b"]}}
        gate = await gateway(backend, telemetry={"enabled": False, "power": power})
        await metering(gate).read_power()
        metering(gate).sample()
        told = (await gate.get("/metrics")).text
    assert 'motley_power_watts{backend="e0",source="dcgm"} 311.3' in told
    assert 'accelerator="NVIDIA A100-SXM4-80GB"' in told
    gate.clock.ahead_s += 120.0
    metering(gate).sample()
    assert 'source="prior"' in (await gate.get("/metrics")).text, "what is old is not believed"


async def test_an_exporter_that_is_away_is_said_once(
    gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    power = {"e0": {"dcgm": "http://127.0.0.1:9/metrics"}}
    gate = await gateway("http://127.0.0.1:9", telemetry={"enabled": False, "power": power})
    for _ in range(2):
        await metering(gate).read_power()
    said = [r for r in caplog.records if "cannot read the power" in r.getMessage()]
    assert len(said) == 1
    assert "the prior is used" in said[0].getMessage()


@pytest.mark.parametrize(
    ("settings", "error", "says"),
    [
        ({"telemetry": {"power": {"e9": {"nvml": [0]}}}}, ConfigError, "'e9'"),
        ({"telemetry": {"power": {"e0": {}}}}, ConfigError, "either dcgm"),
        ({"telemetry": {"power": {"e0": {"dcgm": "x"}}}}, ConfigError, "dcgm"),
        ({"planner": {"usd_per_hour": {"a100-81": 1.0}}}, UnknownNameError, "a100-80"),
        ({"planner": {"usd_per_hour": {"a100-80": -1.0}}}, ConfigError, "usd_per_hour"),
    ],
)
def test_mistakes_are_named(
    settings: dict[str, Any], error: type[Exception], says: str, tmp_path: Path
) -> None:
    with pytest.raises(error, match=says):
        build_app(load_config(fleet("http://127.0.0.1:9") | settings))
