"""The compose file: valid by the Compose specification, and its parts fit each other."""

from __future__ import annotations

from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import yaml

from router.cli.main import run
from router.config.load import load_config
from tests.deploy.monitoring import DEPLOY, tool
from tests.deploy.programs import beside_python, ran

FOLDER = DEPLOY / "compose"
COMPOSE: dict[str, Any] = yaml.safe_load((FOLDER / "compose.yaml").read_text("utf-8"))
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]


def test_it_is_valid_by_the_specification() -> None:
    status, said = ran(
        beside_python("check-jsonschema"),
        *("--builtin-schema", "vendor.compose-spec", FOLDER / "compose.yaml"),
    )
    assert status == 0, said


def test_the_fleet_is_its_engines() -> None:
    fleet = load_config(FOLDER / "fleet.yaml").fleet
    for backend in fleet.backends:
        address = urlsplit(backend.url)
        flags = SERVICES[str(address.hostname)]["command"]
        assert flags[0] == "engine"
        given = dict(flag.lstrip("-").split("=") for flag in flags[1:])
        assert (given["gpu"], given["engine"]) == (backend.gpu, backend.engine)
        assert int(given["port"]) == address.port
        assert int(given.get("tensor-parallel", 1)) == backend.tensor_parallel
    assert run(["check", str(FOLDER / "fleet.yaml")]) == 0


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_is_confined_and_bounded(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert "no-new-privileges:true" in service["security_opt"]
    assert service["mem_limit"]
    for port in service.get("ports", []):
        assert port.startswith("127.0.0.1:"), "nothing is opened to the network"
    assert "healthcheck" in service or service["image"].startswith("${MOTLEY_IMAGE")
    assert "latest" not in service["image"] or service["image"].startswith("${MOTLEY_IMAGE")


def test_whoever_is_waited_for_can_say_that_it_is_healthy() -> None:
    for service in SERVICES.values():
        for other, wanted in service.get("depends_on", {}).items():
            assert wanted["condition"] == "service_healthy"
            assert other in SERVICES


def test_every_file_and_volume_that_is_mounted_exists() -> None:
    for service in SERVICES.values():
        for mount in service.get("volumes", []):
            source = mount.split(":")[0]
            if source.startswith("."):
                assert (FOLDER / source).exists(), source
                assert mount.endswith(":ro")
            else:
                assert source in COMPOSE["volumes"]


def test_grafana_finds_prometheus_and_the_dashboards() -> None:
    provisioning = DEPLOY / "grafana" / "provisioning"
    source = yaml.safe_load((provisioning / "datasources" / "prometheus.yaml").read_text("utf-8"))
    address = urlsplit(source["datasources"][0]["url"])
    assert str(address.hostname) in SERVICES
    folder = yaml.safe_load((provisioning / "dashboards" / "motley.yaml").read_text("utf-8"))
    path = folder["providers"][0]["options"]["path"]
    assert f"../grafana/dashboards:{path}:ro" in SERVICES["grafana"]["volumes"]


def test_prometheus_scrapes_the_gateway_by_its_name(tmp_path: Path) -> None:
    config = yaml.safe_load((FOLDER / "prometheus.yml").read_text("utf-8"))
    own = yaml.safe_load((DEPLOY / "prometheus" / "prometheus.yml").read_text("utf-8"))
    assert config["global"] == own["global"]
    (job,) = config["scrape_configs"]
    assert job["job_name"] == own["scrape_configs"][0]["job_name"]
    host, _, port = job["static_configs"][0]["targets"][0].partition(":")
    assert f"--port={port}" in SERVICES[host]["command"]
    config["rule_files"] = [str(DEPLOY / "prometheus" / "rules" / "*.yml")]
    (tmp_path / "prometheus.yml").write_text(yaml.safe_dump(config))
    status, said = ran(tool("promtool"), "check", "config", tmp_path / "prometheus.yml")
    assert status == 0, said
