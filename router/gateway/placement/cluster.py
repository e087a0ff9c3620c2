"""Engine pools of a Kubernetes cluster: read, scaled and annotated, over a client of the user's.

A pool is a deployment with the label ``motley.dev/managed: "true"``; its annotation
``motley.dev/backend`` holds a line of ``backends`` as YAML, without name and URL. The Helm chart
writes both. What placement has under way is annotated there too, so that whoever comes after a
crash can go on, and whoever does not like it can take it back (``motley plans --undo``).
"""

from __future__ import annotations

import json
import os
from collections.abc import Awaitable, Mapping
from dataclasses import dataclass
from typing import Any, TypeVar

from router.config.fleet import build_fleet
from router.domain.errors import BadInputError, ConfigError
from router.domain.fleet import BackendSpec
from router.gateway.discovery.line import BACKEND, read_line
from router.gateway.placement.adapter import PlacementError
from router.perf.hardware import Hardware

MANAGED = "motley.dev/managed=true"
STARTING = "motley.dev/starting"
"""Replicas that a start under way is waiting for."""
BEFORE = "motley.dev/replicas-before"
"""Replicas before the newest placement changed them."""
PLACING = "motley.dev/placing"
"""There while a placement is carried out: who finds it goes on with a run that was broken off."""
HOLD = "motley.dev/placement"
"""``hold``: the planner leaves the cluster alone."""
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
FIRST_TO_GO = "-2147483648"
MERGE = "application/merge-patch+json"
_NOTES = {"starting": STARTING, "before": BEFORE, "placing": PLACING, "hold": HOLD}

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class EnginePool:
    """One deployment.

    Attributes:
        name: of the deployment.
        spec: what each of its pods runs.
        replicas, ready: asked for, and ready.
        notes: its annotations.
    """

    name: str
    spec: BackendSpec
    replicas: int
    ready: int
    notes: Mapping[str, str]

    def noted(self, key: str) -> int | None:
        """A number in an annotation."""
        text = self.notes.get(key, "")
        return int(text) if text.isdigit() else None

    @property
    def held(self) -> bool:
        """Whether an operator keeps the planner's hands off."""
        return self.notes.get(HOLD) == "hold"


class Cluster:
    """The pools of one namespace.

    Args:
        api: a ``kubernetes_asyncio.client.ApiClient``.
        namespace: of the deployments.
        hardware: the catalogue.
        selector: further label selector of deployments and pods.
    """

    def __init__(self, api: Any, namespace: str, hardware: Hardware, selector: str = "") -> None:
        from kubernetes_asyncio import client  # noqa: PLC0415 - an extra

        self.namespace = namespace
        self._api, self._hardware, self._selector = api, hardware, selector
        self._apps, self._core = client.AppsV1Api(api), client.CoreV1Api(api)
        self._failures: tuple[type[Exception], ...] = (client.ApiException, OSError, TimeoutError)

    async def pools(self) -> list[EnginePool]:
        """Every pool.

        Raises:
            PlacementError: one that does not say what it runs, or the API says no.
        """
        selector = ",".join(part for part in (MANAGED, self._selector) if part)
        listed = await self._ask(
            "list deployments",
            self._apps.list_namespaced_deployment(self.namespace, label_selector=selector),
        )
        return [self._described(item) for item in listed.items]

    async def scale(self, name: str, replicas: int) -> None:
        """Ask for so many replicas."""
        body = {"spec": {"replicas": replicas}}
        await self._ask(
            "patch deployments/scale",
            self._apps.patch_namespaced_deployment_scale(
                name, self.namespace, body, _content_type=MERGE
            ),
        )

    async def note(self, name: str, **notes: str | None) -> None:
        """Annotate a deployment (``_NOTES`` names the keys); ``None`` removes a note."""
        named = {_NOTES[key]: value for key, value in notes.items()}
        body = {"metadata": {"annotations": named}}
        await self._ask(
            "patch deployments",
            self._apps.patch_namespaced_deployment(name, self.namespace, body, _content_type=MERGE),
        )

    async def first_to_go(self, host: str | None) -> str | None:
        """Mark the pod at an address as the one that a scale-down takes, and no other.

        A mark may be left from a run that was broken off; that pod serves again.

        Returns:
            The pod's name; ``None`` if it is gone already.
        """
        selected = {"label_selector": self._selector} if self._selector else {}
        pods = await self._ask(
            "list pods", self._core.list_namespaced_pod(self.namespace, **selected)
        )
        chosen = None
        for pod in pods.items:
            marked = (pod.metadata.annotations or {}).get(DELETION_COST) == FIRST_TO_GO
            leaving = pod.metadata.deletion_timestamp is not None
            if pod.status is not None and pod.status.pod_ip == host and not leaving:
                chosen = str(pod.metadata.name)
                await self._mark(chosen, FIRST_TO_GO)
            elif marked and not leaving:
                await self._mark(str(pod.metadata.name), None)
        return chosen

    async def close(self) -> None:
        """Drop connections."""
        await self._api.close()

    async def _mark(self, pod: str, cost: str | None) -> None:
        body = {"metadata": {"annotations": {DELETION_COST: cost}}}
        await self._ask(
            "patch pods",
            self._core.patch_namespaced_pod(pod, self.namespace, body, _content_type=MERGE),
        )

    def _described(self, item: Any) -> EnginePool:
        name, notes = item.metadata.name, item.metadata.annotations or {}
        if BACKEND not in notes:
            raise PlacementError(f"deployment {name} has no annotation {BACKEND}")
        try:
            spec = build_fleet([read_line(notes[BACKEND])], self._hardware).backends[0]
        except BadInputError as error:
            raise PlacementError(f"deployment {name}: {error}") from error
        ready = item.status.ready_replicas if item.status is not None else None
        return EnginePool(name, spec, item.spec.replicas or 0, ready or 0, notes)

    async def _ask(self, what: str, call: Awaitable[T]) -> T:
        try:
            return await call
        except self._failures as error:
            raise PlacementError(self._why_not(what, error)) from error

    def _why_not(self, what: str, error: Exception) -> str:
        status = getattr(error, "status", None)
        if status == 403:
            verb, _, resource = what.partition(" ")
            return (
                f"the Kubernetes API forbids to {what} in namespace {self.namespace!r}: grant the "
                f"gateway's service account the verb {verb} on {resource} (placement.enabled and "
                "rbac.create: true in the Helm chart)"
            )
        return f"Kubernetes: {what}: {_message(error)}"


def _message(error: Exception) -> str:
    try:
        told = json.loads(getattr(error, "body", None) or "")["message"]
    except (ValueError, KeyError, TypeError):
        return str(getattr(error, "reason", "") or repr(error))
    return str(told)


def pool_name(spec: BackendSpec) -> str:
    """The name of its cards in ``planner.placement.stock``."""
    return f"{spec.gpu}@{spec.zone}" if spec.zone else spec.gpu


async def connect() -> Any:
    """A client for the cluster that the gateway runs in, or for the user's kubeconfig.

    Raises:
        ConfigError: no cluster is configured.
    """
    from kubernetes_asyncio import client, config  # noqa: PLC0415 - an extra

    try:
        config.load_incluster_config()
    except config.ConfigException:
        try:
            await config.load_kube_config(config_file=os.environ.get("KUBECONFIG"))
        except (config.ConfigException, OSError) as error:
            raise ConfigError(f"no Kubernetes cluster is configured: {error}") from error
    return client.ApiClient()
