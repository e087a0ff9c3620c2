"""``motley check --kubernetes`` as it is typed."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from pathlib import Path

import pytest
import yaml

from router.cli.main import run
from tests.deploy.chart import NAMESPACE, pool, template
from tests.fakes.kube_api import FakeKubeApi


def kubeconfig(path: Path, url: str, token: str = "") -> Path:
    """A file that leads to an API server."""
    path.write_text(
        yaml.safe_dump(
            {
                "apiVersion": "v1",
                "kind": "Config",
                "clusters": [{"name": "c", "cluster": {"server": url}}],
                "users": [{"name": "u", "user": {"token": token} if token else {}}],
                "contexts": [{"name": "x", "context": {"cluster": "c", "user": "u"}}],
                "current-context": "x",
            }
        )
    )
    return path


@pytest.fixture
async def kube(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> AsyncIterator[FakeKubeApi]:
    async with FakeKubeApi() as running:
        monkeypatch.setenv("KUBECONFIG", str(kubeconfig(tmp_path / "kubeconfig", running.url)))
        yield running


@pytest.fixture
def manifests(tmp_path: Path) -> Path:
    path = tmp_path / "rendered.yaml"
    path.write_text(template(values=pool()).stdout)
    return path


async def check(*arguments: str) -> int:
    return await asyncio.to_thread(run, ["check", *arguments])


async def test_a_rendered_chart_before_it_is_installed(
    kube: FakeKubeApi, manifests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert await check("--kubernetes", "--manifests", str(manifests)) == 1
    said = capsys.readouterr().out
    assert "problem: pool fleet-motley-p: no node has the labels agentpool=p" in said
    assert "meta-llama/Llama-3.1-8B-Instruct" in said, "and what its engines will be able to do"
    labels = {"agentpool": "p"}
    status = {
        "allocatable": {"nvidia.com/gpu": "1"},
        "conditions": [{"type": "Ready", "status": "True"}],
    }
    kube.put("nodes", {"metadata": {"name": "n", "labels": labels}, "status": status})
    assert await check("--kubernetes", "--manifests", str(manifests)) == 0
    assert "The cluster: nothing looks wrong." in capsys.readouterr().out


async def test_the_installed_chart(
    kube: FakeKubeApi, tmp_path: Path, manifests: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = tmp_path / "motley.yaml"
    for thing in yaml.safe_load_all(manifests.read_text()):
        if thing["kind"] == "ConfigMap":
            config.write_text(thing["data"]["motley.yaml"])
    assert await check(str(config), "--kubernetes", "--json") == 1
    (said,) = json.loads(capsys.readouterr().out)["cluster"]
    assert said["kind"] == "problem"
    assert f"no EndpointSlice in namespace {NAMESPACE!r}" in said["text"]


def test_manifests_that_are_none(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = tmp_path / "values.yaml"
    path.write_text("pools: {}")
    assert run(["check", "--kubernetes", "--manifests", str(path)]) == 2
    assert "holds no Kubernetes manifests" in capsys.readouterr().err
    path.write_text("kind: ConfigMap\napiVersion: v1\nmetadata: {name: a}")
    assert run(["check", "--kubernetes", "--manifests", str(path)]) == 2
    assert "has no config map with motley.yaml" in capsys.readouterr().err


def test_no_cluster_at_all(
    tmp_path: Path,
    manifests: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.setenv("KUBECONFIG", str(tmp_path / "none"))
    assert run(["check", "--kubernetes", "--manifests", str(manifests)]) == 2
    assert "no Kubernetes cluster is configured" in capsys.readouterr().err
