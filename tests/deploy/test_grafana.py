"""Dashboards: up to date, and every query of every panel answered by a real Prometheus that
scrapes a real gateway."""

from __future__ import annotations

import asyncio
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from router.config.load import MotleyConfig
from router.config.schema import (
    AdmissionSection,
    CanarySection,
    LearnedSection,
    RecordSection,
    ShadowSection,
)
from telemetry.learned import Learned, encode
from telemetry.metric_table import TABLE
from tests.deploy.monitoring import (
    DASHBOARDS,
    DEPLOY,
    Prometheus,
    known_names,
    names_in,
    panels,
    prometheus,
    rules,
    tool,
)
from tests.integration.fleet import HELLO, MODEL, Gateway, engines, gateway

QUERIES = [(path.stem, title, expr) for path in DASHBOARDS for title, expr in panels(path)]
QUIET = {
    "Preemptions per second": "SGLang counts none until it retracts",
    "Retries per second": "no engine fails here",
    "Trouble with signals": "the engines are well",
    "Attempts that failed": "none does",
    "Turned away": "nothing is",
    "Sudden changes of speed": "there are none within seconds",
    "Slower than when it was new": "needs a hundred requests a backend",
    "Coverage of the 90% band": "needs a band's worth of requests",
    "Replicas started and stopped": "no placement is put into effect",
    "Expected and actual mean E2E": "needs two rounds",
    "Configuration and discovery": "the configuration is not a file here",
    "Gateways that share their state": "one gateway has nobody to share it with",
    "Second attempts, continued streams, other models": "no engine is late or dies",
    "Canaries taken back": "the canary is as good as the others",
    "Waiting by class": "nobody waits",
    "Outliers taken out": "no engine fails more often than the others",
    "Requests shared by two backends": "none is shared here",
    "KV moved between backends": "none is",
    "Prefix index against the engines": "every prompt is another",
    "What engines publish of their caches": "these publish nothing",
    "Shed, recalled and aged": "the fleet is not overloaded",
    "Traffic record": "nothing is lost; what is written is asked for apart",
}
"""Panels that may be empty where nothing goes wrong, and why."""


def test_the_dashboards_are_those_of_the_panels_file() -> None:
    done = subprocess.run(
        [sys.executable, DEPLOY / "grafana" / "build.py", "--check"],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert {path.stem for path in DASHBOARDS} >= {
        *("fleet", "policy", "planner", "tenants", "cost-energy"),
    }


@pytest.mark.parametrize(("dashboard", "title", "expr"), QUERIES)
def test_a_panel_asks_for_metrics_that_exist(dashboard: str, title: str, expr: str) -> None:
    assert names_in(expr)
    assert names_in(expr) <= known_names()


def test_what_a_backend_is_is_joined_gateway_by_gateway() -> None:
    """Several gateways tell of one backend; joined on the backend alone, Prometheus refuses."""
    joins = [expr for _, _, expr in QUERIES if "motley_backend_info" in expr]
    joins += [str(rule["expr"]) for rule in rules() if "motley_backend_info" in str(rule["expr"])]
    assert len(joins) > 5
    for expr in joins:
        assert "on (backend)" not in " ".join(expr.split()), expr


def test_every_metric_is_on_a_dashboard() -> None:
    shown = {name for _, _, expr in QUERIES for name in names_in(expr)}
    for metric in TABLE:
        ends = ("", "_bucket", "_sum", "_count")
        # What recording rules make of a metric shows it too.
        recorded = any(
            metric.name in rule["expr"] for rule in rules() if rule.get("record") in shown
        )
        assert recorded or shown & {f"{metric.name}{end}" for end in ends}, metric.name


def test_panels_do_not_overlap_and_have_units() -> None:
    for path in DASHBOARDS:
        dashboard = json.loads(path.read_text("utf-8"))
        places = set()
        for panel in dashboard["panels"]:
            place = panel["gridPos"]
            cells = {(place["x"], place["y"])}
            assert not cells & places
            assert place["x"] + place["w"] <= 24
            places |= cells
            assert panel["fieldConfig"]["defaults"]["unit"]
            assert panel["datasource"]["uid"] == "${datasource}"


def test_provisioning_points_at_what_is_there() -> None:
    folder = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((folder / "datasources" / "prometheus.yaml").read_text("utf-8"))
    provider = yaml.safe_load((folder / "dashboards" / "motley.yaml").read_text("utf-8"))
    uid = source["datasources"][0]["uid"]
    for path in DASHBOARDS:
        variable = json.loads(path.read_text("utf-8"))["templating"]["list"][0]
        assert variable["current"]["value"] == uid
    assert provider["providers"][0]["options"]["path"].endswith("/dashboards/motley")


async def test_every_panel_is_answered_by_a_prometheus_that_scrapes_the_gateway(
    tmp_path: Path,
) -> None:
    tool("prometheus")
    with engines() as config:
        async with gateway(observed(config, tmp_path / "record")) as gate:
            target = urlsplit(gate.url).netloc
            (tmp_path / "p").mkdir()
            with prometheus(tmp_path / "p", target) as server:
                silent: list[str] = ["nobody has asked yet"]
                deadline = time.monotonic() + 75.0
                while silent and time.monotonic() < deadline:
                    await busy(gate, 20)
                    await asyncio.sleep(3.0)
                    silent = await asyncio.to_thread(silent_panels, server)
                assert not silent, "\n".join(silent)


def observed(config: MotleyConfig, record: Path) -> MotleyConfig:
    """The demo's fleet with everything switched on that exports something."""
    known = record.with_name("learned.json")
    known.write_bytes(encode(Learned("trace", 1.7e9, prompts={MODEL: (8800.0, 2000.0)})))
    telemetry = config.telemetry.model_copy(
        update={
            "record": RecordSection(directory=str(record)),
            "learned": LearnedSection(file=str(known), every_s=2.0),
        }
    )
    planner = config.planner.model_copy(
        update={"enabled": True, "interval_s": 2.0, "history": None}
    )
    policy = config.policy.model_copy(
        update={
            "shadow": ShadowSection(name="least-request"),
            "canary": CanarySection(name="least-request", share=0.3),
        }
    )
    admission = AdmissionSection(enabled=True)
    return replace(config, telemetry=telemetry, planner=planner, policy=policy, admission=admission)


async def busy(gate: Gateway, requests: int) -> None:
    async def one(n: int) -> None:
        await gate.client.chat.completions.create(
            model=MODEL,
            messages=HELLO,
            max_tokens=20 + n % 7,
            extra_body={"ignore_eos": True},
            extra_headers={"x-tenant-id": f"tenant-{n % 3}"},
        )

    await asyncio.gather(*(gate.ask(30) for _ in range(requests)), *map(one, range(requests)))


def silent_panels(server: Prometheus) -> list[str]:
    """Those without an answer; every query must be one."""
    return [
        f"{dashboard}: {title}: {expr}"
        for dashboard, title, expr in QUERIES
        if not server.ask(expr.replace("$__rate_interval", "10s")) and title not in QUIET
    ]
