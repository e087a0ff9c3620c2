"""The files under deploy/ as the tests read them, and a real Prometheus."""

from __future__ import annotations

import json
import re
import shutil
import socket
import subprocess
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from telemetry.metric_table import TABLE

DEPLOY = Path(__file__).parents[2] / "deploy"
RULES = sorted((DEPLOY / "prometheus" / "rules").glob("*.yml"))
DASHBOARDS = sorted((DEPLOY / "grafana" / "dashboards").glob("*.json"))


def tool(name: str) -> str:
    """Path of a program, or skip the test, saying how to get it."""
    found = shutil.which(name)
    if found is None:
        pytest.skip(f"no {name} on this machine: apt-get install prometheus")
    return found


def panels(dashboard: Path) -> Iterator[tuple[str, str]]:
    """(title, query) of every line of every panel."""
    for panel in json.loads(dashboard.read_text("utf-8"))["panels"]:
        for target in panel["targets"]:
            yield panel["title"], target["expr"]


def rules() -> list[dict[str, Any]]:
    """Every rule of every group of every file."""
    files = [yaml.safe_load(path.read_text("utf-8")) for path in RULES]
    return [rule for file in files for group in file["groups"] for rule in group["rules"]]


def known_names() -> set[str]:
    """Every series that the gateway or a recording rule makes."""
    names = {rule["record"] for rule in rules() if "record" in rule}
    for metric in TABLE:
        if metric.kind == "histogram":
            names |= {f"{metric.name}{end}" for end in ("_bucket", "_sum", "_count")}
        else:
            names.add(metric.name)
    return names


def names_in(expr: str) -> set[str]:
    """The metrics that a query asks for."""
    return set(re.findall(r"\bmotley[_:][a-zA-Z0-9_:]+", expr))


class Prometheus:
    """A running server."""

    def __init__(self, url: str) -> None:
        self._client = httpx.Client(base_url=url, timeout=10.0, trust_env=False)

    def ask(self, expr: str) -> list[dict[str, Any]]:
        """The instant vector of a query.

        Raises:
            AssertionError: it is no query.
        """
        answer = self._client.get("/api/v1/query", params={"query": expr}).json()
        assert answer["status"] == "success", f"{expr}: {answer.get('error')}"
        found: list[dict[str, Any]] = answer["data"]["result"]
        return found

    def ready(self) -> bool:
        try:
            return self._client.get("/-/ready").is_success
        except httpx.TransportError:
            return False


@contextmanager
def prometheus(folder: Path, target: str) -> Iterator[Prometheus]:
    """The shipped configuration, faster, against one gateway (``host:port``)."""
    program = tool("prometheus")
    (folder / "rules").mkdir()
    for path in RULES:
        text = path.read_text("utf-8").replace("interval: 15s", "interval: 1s")
        (folder / "rules" / path.name).write_text(text, "utf-8")
    config = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    config["global"] = {"scrape_interval": "500ms", "evaluation_interval": "1s"}
    config["scrape_configs"][0]["static_configs"] = [{"targets": [target]}]
    (folder / "prometheus.yml").write_text(yaml.safe_dump(config), "utf-8")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{free.getsockname()[1]}"
    process = subprocess.Popen(
        [
            program,
            f"--config.file={folder / 'prometheus.yml'}",
            f"--storage.tsdb.path={folder / 'data'}",
            f"--web.listen-address={address}",
        ],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        server = Prometheus(f"http://{address}")
        deadline = time.monotonic() + 30
        while not server.ready():
            assert process.poll() is None, "prometheus ended"
            assert time.monotonic() < deadline, "prometheus did not become ready"
            time.sleep(0.1)
        yield server
    finally:
        process.terminate()
        process.wait(10)
