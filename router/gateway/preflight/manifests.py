"""What is about to be installed: are its kinds known, and are the secrets there that it names?"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import yaml

from router.config.yaml_error import in_a_line
from router.domain.errors import ConfigError
from router.gateway.preflight.api import KubeApi, RefusedError
from router.gateway.preflight.finding import Finding, Thing, note, problem

OPERATORS = {
    "monitoring.coreos.com": (
        "install kube-prometheus-stack, or set monitoring.serviceMonitor, podMonitor and rules to "
        "false"
    ),
    "keda.sh": "install KEDA, or set gateway.autoscaling.kind to none or hpa",
    "gateway.networking.k8s.io": "install Gateway API and a controller, or use ingress.enabled",
}
FILE, POOLS = "motley.yaml", "pools.yaml"


def read_manifests(text: str, source: str) -> list[Thing]:
    """The objects of a rendered chart.

    Raises:
        ConfigError: it is no YAML, or holds something else.
    """
    try:
        things = [thing for thing in yaml.safe_load_all(text) if thing]
    except yaml.YAMLError as error:
        raise ConfigError(f"{source} is not valid YAML: {in_a_line(error)}") from error
    if not things or not all(isinstance(t, dict) and "kind" in t for t in things):
        raise ConfigError(
            f"{source} holds no Kubernetes manifests: give the output of 'helm template'"
        )
    return things


def config_in(things: Sequence[Thing], source: str) -> dict[str, Any]:
    """The gateway's file, out of its config map.

    Raises:
        ConfigError: there is none.
    """
    for thing in things:
        if thing["kind"] == "ConfigMap" and FILE in (thing.get("data") or {}):
            content: dict[str, Any] = yaml.safe_load(thing["data"][FILE])
            return content
    raise ConfigError(f"{source} has no config map with {FILE}: is it the Motley chart?")


def pools_in(things: Sequence[Thing]) -> dict[str, Any] | None:
    """The pools as ``backends``, out of the same config map."""
    for thing in things:
        if thing["kind"] == "ConfigMap" and POOLS in (thing.get("data") or {}):
            content: dict[str, Any] = yaml.safe_load(thing["data"][POOLS])
            return content
    return None


def read_file(path: Path) -> list[Thing]:
    """The objects of a file.

    Raises:
        ConfigError: it cannot be read.
    """
    try:
        text = path.read_text(encoding="utf-8")
    except OSError as error:
        raise ConfigError(f"cannot read {path}: {error.strerror}") from error
    return read_manifests(text, str(path))


async def unknown_kinds(api: KubeApi, things: Sequence[Thing]) -> list[Finding]:
    """Kinds that this cluster has no definition of."""
    found: list[Finding] = []
    kinds = sorted({(t["apiVersion"], t["kind"]) for t in things})
    for version in sorted({version for version, _ in kinds}):
        wanted = [kind for at, kind in kinds if at == version]
        known = await _kinds_of(api, version)
        absent = [kind for kind in wanted if kind not in known]
        if absent:
            remedy = OPERATORS.get(version.partition("/")[0], "a newer Kubernetes is needed")
            found.append(problem(f"the cluster has no {', '.join(absent)} ({version}): {remedy}"))
    return found


async def _kinds_of(api: KubeApi, version: str) -> set[str]:
    path = f"/apis/{version}" if "/" in version else f"/api/{version}"
    try:
        listed = await api.get(path)
    except RefusedError as error:
        if error.status == 404:
            return set()
        raise
    return {resource["kind"] for resource in listed.get("resources") or []}


async def missing_secrets(api: KubeApi, things: Sequence[Thing], namespace: str) -> list[Finding]:
    """Secrets and claims that pods name and nobody made."""
    made = {(t["kind"], t["metadata"]["name"]) for t in things}
    found: list[Finding] = []
    for (kind, name), how in sorted(dict(_named(things)).items()):
        if (kind, name) in made:
            continue
        plural = {"Secret": "secrets", "PersistentVolumeClaim": "persistentvolumeclaims"}[kind]
        try:
            await api.get(f"/api/v1/namespaces/{namespace}/{plural}/{name}")
        except RefusedError as error:
            if error.status == 404:
                remedy = f"kubectl -n {namespace} create secret generic {name} {how}"
                if kind != "Secret":
                    remedy = "create it, or leave existingClaim empty"
                found.append(
                    problem(
                        f"{kind} {name!r} is missing in namespace {namespace!r} and pods will not "
                        f"start without it: {remedy}"
                    )
                )
            else:
                found.append(note(f"{kind} {name!r} was not looked for: {error}"))
    return found


def _named(things: Sequence[Thing]) -> Iterator[tuple[tuple[str, str], str]]:
    """What pods name, and how it may be made."""
    for thing in things:
        if thing["kind"] == "Deployment":
            spec = thing["spec"]["template"]["spec"]
            for secret in spec.get("imagePullSecrets") or []:
                yield ("Secret", secret["name"]), "--type=kubernetes.io/dockerconfigjson ..."
            for volume in spec.get("volumes") or []:
                if "secret" in volume:
                    yield ("Secret", volume["secret"]["secretName"]), "--from-file=keys.json"
                if "persistentVolumeClaim" in volume:
                    claim = volume["persistentVolumeClaim"]["claimName"]
                    yield ("PersistentVolumeClaim", claim), ""
            for container in spec["containers"]:
                for variable in container.get("env") or []:
                    ref = (variable.get("valueFrom") or {}).get("secretKeyRef")
                    if ref:
                        yield ("Secret", ref["name"]), f"--from-literal={ref['key']}=..."
