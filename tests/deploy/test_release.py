"""What is released: the archives, their metadata, the changelog, the workflows."""

from __future__ import annotations

import email
import json
import os
import re
import socket
import subprocess
import tarfile
import time
import tomllib
import venv
import zipfile
from email.message import Message
from pathlib import Path
from typing import Any

import httpx
import pytest
import yaml

from router.cli.main import COMMANDS, run
from tests.deploy.programs import ROOT, beside_python, ran

PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]
MAKEFILE = (ROOT / "Makefile").read_text("utf-8")
WORKFLOWS = sorted((ROOT / ".github" / "workflows").glob("*.yml"))
PACKAGES = ("router", "simulator", "solver", "telemetry")


@pytest.fixture(scope="module")
def archives(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """The wheel and the sdist, built from what git tracks."""
    folder = tmp_path_factory.mktemp("dist")
    status, said = ran(beside_python("hatchling"), "build", "-d", folder, timeout_s=100)
    assert status == 0, said
    return next(folder.glob("*.whl")), next(folder.glob("*.tar.gz"))


def tracked(*folders: str) -> set[str]:
    status, said = ran("git", "ls-files", "-co", "--exclude-standard", "--", *folders)
    if status:
        pytest.skip("not a git checkout: what should be packed is unknown")
    return {name for name in said.splitlines() if (ROOT / name).is_file()}


def test_the_wheel_holds_every_file_of_the_packages(archives: tuple[Path, Path]) -> None:
    with zipfile.ZipFile(archives[0]) as wheel:
        names = {name for name in wheel.namelist() if ".dist-info/" not in name}
    assert names == tracked(*PACKAGES)
    assert "router/gateway/dashboard/static/index.html" in names
    # "Typing :: Typed" is true for a type checker only where the package says so (PEP 561).
    assert {f"{package}/py.typed" for package in PACKAGES} <= names


def test_a_wheel_can_be_built_from_the_sdist(archives: tuple[Path, Path]) -> None:
    with tarfile.open(archives[1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert tracked(*PACKAGES) | {"pyproject.toml", "README.md", "LICENSE", "Makefile"} <= names
    assert not any(".venv" in name or "__pycache__" in name for name in names)


def metadata(wheel: Path) -> Message:
    with zipfile.ZipFile(wheel) as archive:
        name = next(n for n in archive.namelist() if n.endswith(".dist-info/METADATA"))
        return email.message_from_bytes(archive.read(name))


def test_the_metadata_is_whole(archives: tuple[Path, Path]) -> None:
    told = metadata(archives[0])
    assert (told["Name"], told["Version"]) == ("motley-router", PROJECT["version"])
    assert told["License-Expression"] == "Apache-2.0"
    assert told["Requires-Python"] == ">=3.11"
    assert told["Description-Content-Type"] == "text/markdown"
    needs = told.get_all("Requires-Dist") or []
    extras = set(told.get_all("Provides-Extra") or [])
    assert extras == set(PROJECT["optional-dependencies"])
    for extra in extras:
        assert any(f"extra == '{extra}'" in need or f'extra == "{extra}"' in need for need in needs)
    assert {url.partition(",")[0] for url in told.get_all("Project-URL") or []} >= {"Source"}


def test_every_extra_that_the_code_names_exists() -> None:
    """The error says `extra NAME`, or `motley-router[NAME]`: it must be one."""
    named = set()
    for package in PACKAGES:
        for path in (ROOT / package).rglob("*.py"):
            named |= set(re.findall(r"motley(?:-router)?\[([a-z]+)\]", path.read_text("utf-8")))
    assert named
    assert named <= set(PROJECT["optional-dependencies"])


def test_it_says_which_version_it_is(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--version"]) == 0
    assert re.fullmatch(r"motley (\d+\.\d+\.\d+\S*|0\+source)\n", capsys.readouterr().out)


def test_the_changelog_is_versioned() -> None:
    text = (ROOT / "CHANGELOG.md").read_text("utf-8")
    heads = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert heads[0] == "[Unreleased]"
    released = [re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", h) for h in heads[1:]]
    assert all(released), heads
    numbers = [tuple(map(int, match.groups())) for match in released if match]
    assert numbers == sorted(numbers, reverse=True)
    mine = tuple(map(int, PROJECT["version"].split(".")[:3]))
    assert not numbers or mine >= numbers[0]


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.name)
def test_a_workflow_is_valid_pinned_and_modest(path: Path) -> None:
    schema = ("--builtin-schema", "vendor.github-workflows")
    status, said = ran(beside_python("check-jsonschema"), *schema, path)
    assert status == 0, said
    text = path.read_text("utf-8")
    for used in re.findall(r"uses: (\S+)(.*)", text):
        action, comment = used
        pinned = re.fullmatch(r"[\w./-]+@[0-9a-f]{40}", action) and "# v" in comment
        assert pinned or action.startswith("./"), action
    workflow = yaml.safe_load(text)
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "uses" in job or job["timeout-minutes"] <= 90
        for step in job.get("steps", []):
            # What others may write (titles, branch names) must not become shell.
            assert "${{" not in step.get("run", "")


def test_the_workflows_call_targets_that_exist() -> None:
    targets = set(re.findall(r"^([a-z-]+):", MAKEFILE, re.MULTILINE))
    called = {
        target
        for path in WORKFLOWS
        for line in re.findall(r"make ((?:-s )?[a-z-]+(?: [a-z]+)*)", path.read_text("utf-8"))
        for target in line.removeprefix("-s ").split()
    }
    assert {"lint", "test", "docs", "dist", "sbom", "image"} <= called
    assert called <= targets


def test_python_versions_of_the_matrix_are_those_promised() -> None:
    ci = yaml.safe_load((ROOT / ".github" / "workflows" / "ci.yml").read_text("utf-8"))
    tested = ci["jobs"]["test"]["strategy"]["matrix"]["python"]
    promised = [
        line.rpartition(" ")[2]
        for line in PROJECT["classifiers"]
        if re.fullmatch(r"Programming Language :: Python :: 3\.\d+", line)
    ]
    assert tested == promised


# Installed for real, in an environment of its own: a minute, and asks the package index.


@pytest.fixture(scope="module")
def installed(
    archives: tuple[Path, Path], tmp_path_factory: pytest.TempPathFactory
) -> tuple[Path, Path]:
    """(its ``motley``, a folder to work in), with the versions that are tested."""
    folder = tmp_path_factory.mktemp("clean")
    venv.create(folder / "venv", with_pip=True)
    python = folder / "venv" / "bin" / "python"
    pins = re.findall(
        r"^([a-z0-9][\w.-]*==[\w.+-]+(?: ;[^\\\n]*)?)",
        (ROOT / "constraints-full.txt").read_text("utf-8"),
        re.MULTILINE,
    )
    (folder / "pins.txt").write_text("\n".join(pins))
    pip = (python, "-m", "pip", "install", "--quiet", "--disable-pip-version-check")
    wanted = f"{archives[0]}[redis,dns]"
    status, said = ran(*pip, "-c", folder / "pins.txt", wanted, timeout_s=400)
    assert status == 0, said
    (folder / "work").mkdir()
    return folder / "venv" / "bin" / "motley", folder / "work"


def motley(installed: tuple[Path, Path], *arguments: str) -> str:
    program, folder = installed
    done = subprocess.run(
        [program, *arguments],
        cwd=folder,
        env={"PATH": "/usr/bin:/bin", "HOME": str(folder)},
        capture_output=True,
        text=True,
        timeout=120,
        check=False,
    )
    assert done.returncode == 0, f"{arguments}: {done.stdout}{done.stderr}"
    return done.stdout


FLEET = "backends: [{gpu: a100-80, count: 2, model: llama-3.1-8b}]\n"
DOES = (
    ("check", "fleet.yaml"),
    ("metrics",),
    ("keys", "create", "somebody"),
    ("simulate", "azure-conv-like", "--fleet", "fleet.yaml", "--duration", "20"),
    ("trace", "azure-conv-like", "--duration", "20"),
    ("plan", "--fleet", "fleet.yaml", "--workload", "azure-conv-like", "--duration", "60"),
)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_every_command_works_where_it_is_installed(installed: tuple[Path, Path]) -> None:
    assert motley(installed, "--version") == f"motley {PROJECT['version']}\n"
    for command in COMMANDS:
        assert "Usage" in motley(installed, command, "--help")
    (installed[1] / "fleet.yaml").write_text(FLEET)
    for arguments in DOES:
        assert motley(installed, *arguments)


@pytest.mark.full
@pytest.mark.timeout(600)
def test_the_installed_demo_serves_its_page_and_its_assets(installed: tuple[Path, Path]) -> None:
    program, folder = installed
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = subprocess.Popen(
        [program, "demo", "--port", str(port)],
        cwd=folder,
        env={"PATH": os.environ["PATH"], "HOME": str(folder)},
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    try:
        with httpx.Client(base_url=f"http://127.0.0.1:{port}", trust_env=False) as client:
            deadline = time.monotonic() + 60
            while not up(client):
                assert process.poll() is None, "the demo ended"
                assert time.monotonic() < deadline, "the demo did not start"
                time.sleep(0.3)
            page = client.get("/").text
            assets = re.findall(r'(?:src|href)="([^":#]+)"', page)
            assert len(assets) > 2
            for asset in assets:
                assert client.get(f"/{asset.lstrip('./')}").status_code == 200, asset
            body = {
                "model": "llama-3.1-8b",
                "max_tokens": 4,
                "messages": [{"role": "user", "content": "Hi"}],
            }
            assert client.post("/v1/chat/completions", json=body, timeout=30).status_code == 200
    finally:
        process.terminate()
        process.wait(30)


def up(client: httpx.Client) -> bool:
    try:
        return client.get("/ready").is_success
    except httpx.TransportError:
        return False


@pytest.mark.full
def test_the_bill_of_materials_lists_what_is_in_the_image(tmp_path: Path) -> None:
    pytest.importorskip("cyclonedx_py", reason="cyclonedx-bom comes with make test-full")
    locked = ROOT / "deploy" / "docker" / "runtime.txt"
    recipe = re.findall(
        r"^\t\$\(BIN\)/(cyclonedx-py.*?)$", MAKEFILE.replace("\\\n", ""), re.MULTILINE
    )
    words = recipe[0].replace("dist/motley.cdx.json", str(tmp_path / "bom.json")).split()
    status, said = ran(beside_python(words[0]), *words[1:])
    assert status == 0, said
    bom = json.loads((tmp_path / "bom.json").read_text("utf-8"))
    assert bom["metadata"]["component"]["name"] == "motley-router"
    listed = {f"{c['name']}=={c['version']}" for c in bom["components"]}
    assert listed == set(
        re.findall(r"^([a-z0-9][\w.-]*==[\w.+-]+)", locked.read_text(), re.MULTILINE)
    )
