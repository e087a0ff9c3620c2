"""What the gateway asks of the Kubernetes API, and whether it may."""

from __future__ import annotations

from collections.abc import Iterator
from typing import NamedTuple

from router.config.load import MotleyConfig
from router.gateway.discovery.kubernetes import own_namespace
from router.gateway.preflight.api import KubeApi, RefusedError
from router.gateway.preflight.finding import Finding, note, problem


class Right(NamedTuple):
    """A verb on a resource, and the value of the chart that grants it."""

    verb: str
    group: str
    resource: str
    namespace: str
    value: str


def rights(config: MotleyConfig) -> list[Right]:
    """What discovery and placement of this configuration do."""
    wanted = [*_of_placement(config), *_of_discovery(config)]
    return list({right[:-1]: right for right in wanted}.values())  # each once, whoever needs it


def _of_discovery(config: MotleyConfig) -> Iterator[Right]:
    for source in config.discovery.kubernetes:
        namespace = source.namespace or own_namespace()
        for verb in ("list", "watch"):
            yield Right(verb, "", "pods", namespace, "rbac.create")
            if not source.pod_selector:
                yield Right(verb, "discovery.k8s.io", "endpointslices", namespace, "rbac.create")
        if source.node_labels:
            yield Right("get", "", "nodes", "", "rbac.readNodes")


def _of_placement(config: MotleyConfig) -> Iterator[Right]:
    place = config.planner.placement
    if not config.planner.enabled or place.adapter != "kubernetes":
        return
    value = "placement.enabled and rbac.create"
    asked = [("list", "apps", "deployments"), ("list", "", "pods")]
    if not place.dry_run:
        asked += [("patch", "apps", "deployments"), ("patch", "apps", "deployments/scale")]
        asked += [("patch", "", "pods")]
    for verb, group, resource in asked:
        yield Right(verb, group, resource, place.namespace, value)


async def missing(api: KubeApi, config: MotleyConfig) -> list[Finding]:
    """One problem for each right that is not there."""
    found: list[Finding] = []
    who = f"the service account {api.account}" if api.account else "whoever asks here"
    for right in rights(config):
        try:
            may = await api.may(right.verb, right.group, right.resource, right.namespace)
        except RefusedError as error:
            return [note(f"permissions were not looked at: {error}")]
        if not may:
            where = f" in namespace {right.namespace!r}" if right.namespace else ""
            resource = f"{right.resource}.{right.group}" if right.group else right.resource
            found.append(
                problem(
                    f"{who} may not {right.verb} {resource}{where}: grant it with a Role and a "
                    f"RoleBinding ({right.value}: true in the Helm chart)"
                )
            )
    return found
