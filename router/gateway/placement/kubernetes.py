"""Deployments of a Kubernetes cluster, scaled.

Every deployment labelled ``motley.dev/managed: "true"`` serves one group; its annotation
``motley.dev/backend`` holds a line of ``backends`` as YAML, without name and URL. Discovery adds
and removes the pods; this only scales. A pod that was drained is the one that goes, because it is
annotated with the lowest ``controller.kubernetes.io/pod-deletion-cost`` before the scale-down.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Awaitable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, TypeVar
from urllib.parse import urlsplit

import yaml
from pydantic import ValidationError

from router.config.load import build_fleet
from router.config.schema import BackendEntry
from router.domain.errors import BadInputError, ConfigError
from router.domain.fleet import BackendSpec
from router.gateway.placement.adapter import PlacementError, Survey
from router.perf.hardware import Hardware
from solver.stock import Pool

MANAGED = "motley.dev/managed=true"
BACKEND = "motley.dev/backend"
DELETION_COST = "controller.kubernetes.io/pod-deletion-cost"
_FIRST_TO_GO = "-2147483648"

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class _Deployment:
    """One deployment: what it runs, how many were asked for, how many are ready."""

    name: str
    spec: BackendSpec
    replicas: int
    ready: int


class KubernetesAdapter:
    """Scales deployments.

    Args:
        api: a ``kubernetes_asyncio.client.ApiClient``.
        namespace: of the deployments.
        stock: cards by pool, as in ``a100-80: 4`` or ``t4@zone-b: 8``.
        hardware: the catalogue.
        ready_timeout_s: for a new pod to be ready.
        look_s: between looks.
    """

    name = "kubernetes"
    dry = False
    joins = False

    def __init__(
        self,
        api: Any,
        *,
        namespace: str,
        stock: Mapping[str, int],
        hardware: Hardware,
        ready_timeout_s: float,
        look_s: float = 1.0,
    ) -> None:
        from kubernetes_asyncio import client  # noqa: PLC0415 - an extra

        self._api = api
        self._apps, self._core = client.AppsV1Api(api), client.CoreV1Api(api)
        self._failures: tuple[type[Exception], ...] = (client.ApiException, OSError, TimeoutError)
        self._namespace, self._hardware = namespace, hardware
        self._stock = dict(stock)
        self._ready_timeout_s, self._look_s = ready_timeout_s, look_s
        self._known: dict[str, _Deployment] = {}

    async def survey(self, running: Sequence[BackendSpec]) -> Survey:  # noqa: ARG002
        """Cards as configured; every managed deployment could run more."""
        found = await self._deployments()
        self._known = {one.spec.group: one for one in found}
        return Survey(self._pools(), tuple(one.spec for one in found), scalable=True)

    def can_start(self, group: str, running: Sequence[BackendSpec]) -> bool:
        """Whether there is such a deployment and cards are free in its pool."""
        known = self._known.get(group)
        if known is None:
            return False
        pool = (known.spec.gpu, known.spec.zone)
        taken = sum(s.tensor_parallel for s in running if (s.gpu, s.zone) == pool)
        return taken + known.spec.tensor_parallel <= self._stock.get(_pool_name(known.spec), 0)

    async def start(self, group: str, running: Sequence[BackendSpec]) -> BackendSpec | None:  # noqa: ARG002
        """Scale the deployment up by one and wait until the new pod is ready."""
        before = await self._read(group)
        await self._scale(before.name, before.replicas + 1)
        loop = asyncio.get_running_loop()
        deadline = loop.time() + self._ready_timeout_s
        while (await self._read(group)).ready <= before.ready:
            if loop.time() > deadline:
                await self._scale(before.name, before.replicas)
                raise PlacementError(
                    f"deployment {before.name}: no new pod is ready within "
                    f"{self._ready_timeout_s:g} s; scaled back"
                )
            await asyncio.sleep(self._look_s)
        return None

    async def stop(self, spec: BackendSpec) -> None:
        """Mark the drained pod as the first to go, and scale the deployment down by one."""
        now = await self._read(spec.group)
        pod = await self._pod_of(spec)
        if pod is None:
            return  # it is gone already
        body = {"metadata": {"annotations": {DELETION_COST: _FIRST_TO_GO}}}
        await self._ask(self._core.patch_namespaced_pod(pod, self._namespace, body))
        await self._scale(now.name, max(0, now.replicas - 1))

    async def close(self) -> None:
        """Drop connections."""
        await self._api.close()

    def _pools(self) -> tuple[Pool, ...]:
        """One pool a line of ``stock``; engines span as many cards as the largest does today."""
        widest: Counter[str] = Counter()
        for one in self._known.values():
            name = _pool_name(one.spec)
            widest[name] = max(widest[name], one.spec.tensor_parallel)
        pools = []
        for name, cards in self._stock.items():
            gpu, _, zone = name.partition("@")
            size = max(1, widest[name])
            pools.append(Pool(gpu, zone, {size: cards // size}))
        return tuple(pools)

    async def _read(self, group: str) -> _Deployment:
        for one in await self._deployments():
            if one.spec.group == group:
                return one
        raise PlacementError(f"no deployment with {MANAGED} serves {group}")

    async def _deployments(self) -> list[_Deployment]:
        listed = await self._ask(
            self._apps.list_namespaced_deployment(self._namespace, label_selector=MANAGED)
        )
        return [self._described(item) for item in listed.items]

    def _described(self, item: Any) -> _Deployment:
        name = item.metadata.name
        line = (item.metadata.annotations or {}).get(BACKEND)
        if line is None:
            raise PlacementError(f"deployment {name} has no annotation {BACKEND}")
        try:
            entry = BackendEntry.model_validate(yaml.safe_load(line))
            spec = build_fleet([entry], self._hardware).backends[0]
        except (ValidationError, yaml.YAMLError, BadInputError) as error:
            raise PlacementError(f"deployment {name}: annotation {BACKEND}: {error}") from error
        ready = item.status.ready_replicas if item.status is not None else None
        return _Deployment(name, spec, item.spec.replicas or 0, ready or 0)

    async def _pod_of(self, spec: BackendSpec) -> str | None:
        """The pod at the address of a backend."""
        host = urlsplit(spec.url or "").hostname
        pods = await self._ask(self._core.list_namespaced_pod(self._namespace))
        for pod in pods.items:
            if pod.status is not None and pod.status.pod_ip == host:
                return str(pod.metadata.name)
        return None

    async def _scale(self, name: str, replicas: int) -> None:
        body = {"spec": {"replicas": replicas}}
        await self._ask(self._apps.patch_namespaced_deployment_scale(name, self._namespace, body))

    async def _ask(self, call: Awaitable[T]) -> T:
        try:
            return await call
        except self._failures as error:
            reason = getattr(error, "reason", "") or repr(error)
            raise PlacementError(f"Kubernetes: {reason}") from error


def _pool_name(spec: BackendSpec) -> str:
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
            await config.load_kube_config()
        except (config.ConfigException, OSError) as error:
            raise ConfigError(f"no Kubernetes cluster is configured: {error}") from error
    return client.ApiClient()
