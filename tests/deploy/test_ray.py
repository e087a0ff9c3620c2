"""The KubeRay job: its command is one that Motley knows, its files are mounted where it reads."""

from __future__ import annotations

import re
import shlex
from typing import Any

import yaml

from router.cli.main import run
from router.cli.sweep import check_sweep
from simulator.sweep.spec import load_spec
from tests.deploy.monitoring import DEPLOY

JOB, CLAIM = yaml.safe_load_all((DEPLOY / "ray" / "rayjob.yaml").read_text("utf-8"))
CLUSTER: dict[str, Any] = JOB["spec"]["rayClusterSpec"]
GROUPS: list[dict[str, Any]] = [CLUSTER["headGroupSpec"], *CLUSTER["workerGroupSpecs"]]


def test_the_sweep_that_it_runs_can_be_run() -> None:
    check_sweep(load_spec(DEPLOY / "ray" / "sweep.yaml"))


def test_its_command_has_flags_that_exist(capsys: Any) -> None:
    words = shlex.split(JOB["spec"]["entrypoint"])
    assert words[:4] == ["motley", "sweep", "/etc/motley/sweep.yaml", "auto"]
    assert run(["sweep", "--help"]) == 0
    told = capsys.readouterr().out
    flags = [word for word in words if word.startswith("--")]
    assert "--ray" in flags
    assert all(flag in told for flag in flags)


def test_every_machine_sees_the_same_files() -> None:
    paths = set(re.findall(r"(?:/etc/motley|/results)\b", JOB["spec"]["entrypoint"]))
    for group in GROUPS:
        pod = group["template"]["spec"]
        assert pod["securityContext"]["runAsNonRoot"]
        volumes = {volume["name"] for volume in pod["volumes"]}
        (container,) = pod["containers"]
        mounts = {mount["mountPath"]: mount["name"] for mount in container["volumeMounts"]}
        assert paths <= mounts.keys()
        assert set(mounts.values()) <= volumes
        assert container["image"].split(":")[1].startswith(CLUSTER["rayVersion"])
        assert container["resources"]["limits"]["memory"]
    claims = [v["persistentVolumeClaim"] for v in pod["volumes"] if "persistentVolumeClaim" in v]
    assert claims == [{"claimName": CLAIM["metadata"]["name"]}]
    assert CLAIM["spec"]["accessModes"] == ["ReadWriteMany"]


def test_the_cluster_gets_the_extras_that_are_needed() -> None:
    (needs,) = yaml.safe_load(JOB["spec"]["runtimeEnvYAML"])["pip"]
    extras = set(re.findall(r"\[(.*)\]", needs)[0].split(","))
    assert {"ray", "report"} <= extras
