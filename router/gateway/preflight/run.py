"""Everything at once: the cluster as it is, and what is about to be installed in it."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from datetime import datetime
from typing import Any

from router.config.load import MotleyConfig
from router.gateway.discovery.kubernetes import own_namespace
from router.gateway.discovery.line import BACKEND
from router.gateway.preflight import manifests, permissions, pods, pools
from router.gateway.preflight.api import ClusterError, KubeApi, RefusedError
from router.gateway.preflight.finding import Finding, Thing, note, problem


async def look(
    client: Any,
    config: MotleyConfig,
    now: datetime,
    *,
    things: Sequence[Thing] = (),
    account: str = "",
) -> list[Finding]:
    """What is wrong, worst things first.

    Args:
        client: a ``kubernetes_asyncio.client.ApiClient``.
        config: of the gateway.
        now: to say since when.
        things: manifests that are not installed yet.
        account: "namespace:name" of the service account whose permissions to ask for; with
            manifests their roles are still to come and nothing is asked.
    """
    api = KubeApi(client, account)
    try:
        found = [] if things else await permissions.missing(api, config)
        for namespace in namespaces(config):
            found += await _of_namespace(api, config, namespace, things, now)
        if things:
            found = [*await manifests.unknown_kinds(api, things), *found]
    except ClusterError as error:
        return [problem(str(error))]
    except RefusedError as error:
        return [problem(f"the Kubernetes API answered {error.status}: {error}")]
    return sorted(found, key=lambda one: one.kind != "problem")


def namespaces(config: MotleyConfig) -> list[str]:
    """Where discovery and placement look."""
    return list(dict.fromkeys(_namespaces(config))) or [own_namespace()]


def _namespaces(config: MotleyConfig) -> Iterator[str]:
    for source in config.discovery.kubernetes:
        yield source.namespace or own_namespace()
    if config.planner.placement.adapter == "kubernetes":
        yield config.planner.placement.namespace


async def _of_namespace(
    api: KubeApi,
    config: MotleyConfig,
    namespace: str,
    things: Sequence[Thing],
    now: datetime,
) -> list[Finding]:
    nodes = await api.items_if_allowed("/api/v1/nodes")
    found: list[Finding] = []
    if nodes is None:
        found.append(
            note("nodes may not be seen, so nobody looked whether pools have any (rbac.readNodes)")
        )
    if things:
        deployments: list[Thing] | None = [t for t in things if t["kind"] == "Deployment"]
        found += await manifests.missing_secrets(api, things, namespace)
    else:
        deployments = await api.items_if_allowed(
            f"/apis/apps/v1/namespaces/{namespace}/deployments"
        )
    engines = pools.pools_of(deployments or [])
    for pool in engines:
        found += pools.findings(pool, nodes, config.hardware)
        found += _stuck(pool)
    if not things:
        found += await _about_pods(api, config, namespace, now)
    return found


def _stuck(pool: Thing) -> list[Finding]:
    """A deployment whose pods cannot even be made: a quota, a policy."""
    for condition in (pool.get("status") or {}).get("conditions") or []:
        if condition["type"] == "ReplicaFailure" and condition["status"] == "True":
            return [
                problem(
                    f"pool {pool['metadata']['name']}: its pods cannot be made "
                    f"({condition.get('message', '')}): raise the quota, or loosen the policy"
                )
            ]
    return []


async def _about_pods(
    api: KubeApi, config: MotleyConfig, namespace: str, now: datetime
) -> list[Finding]:
    """Those that run engines: by the chart's annotation, or because discovery looks at them."""
    path = f"/api/v1/namespaces/{namespace}/pods"
    listed = await api.items_if_allowed(path)
    if listed is None:
        return []
    names = {p["metadata"]["name"] for p in listed if _told(p)}
    found: list[Finding] = []
    for source in config.discovery.kubernetes:
        if (source.namespace or own_namespace()) != namespace:
            continue
        if source.pod_selector:
            chosen = await api.items(path, labelSelector=source.pod_selector)
            names |= {p["metadata"]["name"] for p in chosen}
            if not chosen:
                found.append(_nothing("pod", namespace, source.pod_selector))
            continue
        selector = source.label_selector or f"kubernetes.io/service-name={source.service}"
        where = f"/apis/discovery.k8s.io/v1/namespaces/{namespace}/endpointslices"
        slices = await api.items_if_allowed(where, labelSelector=selector)
        if slices == []:
            found.append(_nothing("EndpointSlice", namespace, selector))
        ends = [end for piece in slices or [] for end in piece.get("endpoints") or []]
        names |= {(end.get("targetRef") or {}).get("name", "") for end in ends}
        if slices and not any(map(_ready, ends)):
            found.append(
                note(f"no engine is ready yet behind {selector} in namespace {namespace!r}")
            )
    engines = [p for p in listed if p["metadata"]["name"] in names]
    return pods.findings(engines, now) + found


def _nothing(what: str, namespace: str, selector: str) -> Finding:
    return problem(
        f"no {what} in namespace {namespace!r} has {selector}: no engine will be found; install "
        "the pools, or correct discovery.kubernetes"
    )


def _told(pod: Thing) -> bool:
    return BACKEND in (pod["metadata"].get("annotations") or {})


def _ready(end: Thing) -> bool:
    return (end.get("conditions") or {}).get("ready") is not False
