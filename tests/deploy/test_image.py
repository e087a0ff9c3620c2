"""The container image: linted, pinned, no root, no compiler; built and run where buildah is."""

from __future__ import annotations

import json
import os
import re
import shutil
import signal
import subprocess
import time
import tomllib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx
import pytest

from tests.deploy.monitoring import DEPLOY
from tests.deploy.programs import ROOT, beside_python, ran
from tests.fakes.http_server import free_port

DOCKERFILE = (DEPLOY / "docker" / "Dockerfile").read_text("utf-8")
BUILD, FINAL = DOCKERFILE.split("\nFROM ")[1:]
BASE = "docker.io/library/python:3.11-slim-bookworm"


def test_hadolint_finds_nothing() -> None:
    status, said = ran(beside_python("hadolint"), DEPLOY / "docker" / "Dockerfile")
    assert status == 0, said


def test_the_last_stage_has_no_root_and_no_tools() -> None:
    assert re.search(r"^USER 10001:10001$", FINAL, re.MULTILINE)
    assert "HEALTHCHECK" in FINAL
    assert not re.search(r"apt-get|pip install|gcc|curl|ADD ", FINAL)
    for label in ("source", "licenses", "version", "revision", "created"):
        assert f"org.opencontainers.image.{label}=" in FINAL


def test_both_stages_stand_on_one_base_that_can_be_pinned() -> None:
    assert DOCKERFILE.startswith("#")
    assert f"ARG PYTHON_IMAGE={BASE}\nARG PYTHON_DIGEST=\n" in DOCKERFILE
    for stage in (BUILD, FINAL):
        assert stage.startswith("${PYTHON_IMAGE}${PYTHON_DIGEST}")


def test_what_it_copies_exists_and_is_let_through() -> None:
    ignored = (ROOT / ".dockerignore").read_text("utf-8")
    copied = re.findall(r"^COPY (?!--from)(.*) \S+$", BUILD, re.MULTILINE)
    names = [name for line in copied for name in line.split()]
    assert "router" in names
    for name in names:
        assert (ROOT / name).exists(), name
        assert f"!{name}\n" in ignored, name


@pytest.mark.parametrize("name", ["runtime.txt", "build.txt"])
def test_every_package_is_pinned_by_hash_as_tested(name: str) -> None:
    text = (DEPLOY / "docker" / name).read_text("utf-8")
    tested = set(pins((ROOT / "constraints-full.txt").read_text("utf-8")))
    mine = pins(text)
    assert mine
    assert set(mine) <= tested
    # A block is the pin and its hashes; a pin without one would be refused by --require-hashes.
    for block in re.split(r"\n(?=[a-z])", text.strip()):
        assert "--hash=sha256:" in block, block


def test_the_image_has_what_a_gateway_needs_and_no_solver_that_nobody_asks() -> None:
    names = {
        pin.partition("==")[0] for pin in pins((DEPLOY / "docker" / "runtime.txt").read_text())
    }
    assert {"cvxpy", "highspy", "redis", "kubernetes-asyncio", "dnspython", "pyjwt"} <= names
    assert not {"scs", "sparsediffpy", "pyarrow", "matplotlib", "ray"} & names


def test_whatever_the_package_needs_is_in_the_image() -> None:
    project = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
    needed = {re.split(r"[<>=!;\[ ]", need)[0] for need in project["dependencies"]}
    names = {
        pin.partition("==")[0] for pin in pins((DEPLOY / "docker" / "runtime.txt").read_text())
    }
    assert needed <= names, "run make lock"


def pins(text: str) -> list[str]:
    return re.findall(r"^([a-z0-9][\w.-]*==[\w.+-]+)", text, re.MULTILINE)


# Built and run for real: a few minutes, and needs Debian's buildah with a base image of that name.

BUILDAH = ("buildah", "--storage-driver", "vfs")
AS_USER = ("run", "--isolation", "chroot", "--user", "10001:10001")
MODEL = "llama-3.1-8b"
SETTINGS = f"""
backends:
  - {{gpu: a100-80, engine: sglang, model: {MODEL}, url: "http://127.0.0.1:ENGINE"}}
planner: {{enabled: true, interval_s: 2}}
"""


def buildah(*arguments: str, check: bool = True) -> str:
    done = subprocess.run(
        [*BUILDAH, *arguments], capture_output=True, text=True, timeout=900, check=False, cwd=ROOT
    )
    assert not check or done.returncode == 0, done.stderr[-2000:]
    return done.stdout.strip()


@pytest.fixture
def container() -> Iterator[str]:
    if shutil.which("buildah") is None:
        pytest.skip("no buildah on this machine: apt-get install buildah")
    if not buildah("images", "--quiet", BASE, check=False):
        pytest.skip(f"no {BASE} here: buildah pull it")
    ca = "/etc/ssl/certs/ca-certificates.crt"
    buildah(
        *("bud", "--isolation", "chroot", "--pull-never", "--format", "docker"),
        *("-v", f"{ca}:{ca}:ro", "-f", "deploy/docker/Dockerfile", "-t", "localhost/motley:tested"),
        ".",
    )
    name = buildah("from", "--pull-never", "localhost/motley:tested")
    yield name
    buildah("rm", name)


@contextmanager
def running(container: str, *command: str) -> Iterator[None]:
    process = subprocess.Popen(
        [*BUILDAH, *AS_USER, container, "--", *command],
        start_new_session=True,
    )
    try:
        yield
    finally:
        os.killpg(process.pid, signal.SIGTERM)
        process.wait(30)


@pytest.mark.full
@pytest.mark.timeout(900)
def test_it_builds_and_serves_a_stream_without_root(container: str, tmp_path: Path) -> None:
    engine, port = free_port(), free_port()
    fleet = tmp_path / "fleet.yaml"
    fleet.write_text(SETTINGS.replace("ENGINE", str(engine)))
    fleet.chmod(0o644)
    buildah("copy", container, str(fleet), "/etc/motley/fleet.yaml")
    run = (*AS_USER, container, "--")
    assert buildah(*run, "id", "-u") == "10001"
    assert "Permission denied" in buildah(*run, "sh", "-c", "touch /opt/motley/x 2>&1 || true")
    assert buildah(*run, "sh", "-c", "command -v gcc cc make git curl || true") == ""
    with (
        running(
            container, "motley", "engine", "--gpu=a100-80", "--engine=sglang", f"--port={engine}"
        ),
        running(container, "motley", "serve", "-c", "/etc/motley/fleet.yaml", "--port", str(port)),
    ):
        url = f"http://127.0.0.1:{port}"
        wait_until_ready(url)
        pieces = streamed(url)
        assert len(pieces) > 20
        health = f"import os, urllib.request as r; r.urlopen('{url}/health', timeout=2)"
        buildah(*run, "python", "-c", health)
    size = json.loads(buildah("inspect", "--type", "image", "localhost/motley:tested"))
    assert size["OCIv1"]["config"]["User"] == "10001:10001"


def wait_until_ready(url: str) -> None:
    deadline = time.monotonic() + 60
    while True:
        try:
            if httpx.get(f"{url}/ready", trust_env=False).is_success:
                return
        except httpx.TransportError:
            pass
        assert time.monotonic() < deadline, "the gateway did not become ready"
        time.sleep(0.2)


def streamed(url: str) -> list[str]:
    body = {
        "model": MODEL,
        "stream": True,
        "max_tokens": 24,
        "ignore_eos": True,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    with httpx.stream("POST", f"{url}/v1/chat/completions", json=body, timeout=30) as answer:
        assert answer.status_code == 200
        lines = [line for line in answer.iter_lines() if line.startswith("data: ")]
    assert lines[-1] == "data: [DONE]"
    return lines
