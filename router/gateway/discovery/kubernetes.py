"""Backends from Kubernetes: ready endpoints of services, told apart by pod and node.

EndpointSlices say where and whether, pods say what, nodes say on which card (``endpoints.py``). A
terminating endpoint is gone from the fleet, and so is drained, before its pod ends.
"""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator, Callable, Iterable, Mapping
from functools import partial
from pathlib import Path
from typing import Any

from router.config.discovery import KubernetesSource
from router.config.schema import BackendEntry
from router.domain.errors import ConfigError
from router.gateway.discovery.asked import Asked
from router.gateway.discovery.endpoints import PREFIX, Endpoints, is_ready, name_of, pod_of
from router.gateway.discovery.informer import Informer, Thing, document
from router.gateway.discovery.pods import as_slices
from router.gateway.discovery.seam import DiscoveryError, Seen
from telemetry.http_get import HttpGetter

log = logging.getLogger("motley.discovery")

ASK_AGAIN_S = 5.0
"""An engine that did not answer may still be loading its model."""

SETTLE_S = 0.05
"""Changes come in bursts (a rollout); one fleet is made of each."""

_NAMESPACE_FILE = Path("/var/run/secrets/kubernetes.io/serviceaccount/namespace")


class FromKubernetes:
    """Implements ``seam.Source``.

    Args:
        settings: the section of the file.
        gpus: names in the catalogue.
        rng: spreads retries.
        fetcher_of: how to ask the engine of a backend of this name.

    Raises:
        ConfigError: the extra ``kubernetes`` is not installed.
    """

    def __init__(
        self,
        settings: KubernetesSource,
        gpus: Iterable[str],
        rng: random.Random,
        fetcher_of: Callable[[str], HttpGetter] = lambda _: HttpGetter(),
    ) -> None:
        try:
            import kubernetes_asyncio  # noqa: F401, PLC0415 - optional
        except ImportError as error:
            raise ConfigError(
                "discovery.kubernetes needs the extra 'kubernetes': "
                "pip install 'motley-router[kubernetes]'"
            ) from error
        self._settings = settings
        self._namespace = settings.namespace or own_namespace()
        chosen = settings.service or settings.label_selector or settings.pod_selector
        self.name = f"kubernetes {self._namespace}/{chosen}"
        self.retry_s = settings.retry_s
        known = list(gpus)
        self._endpoints = Endpoints(settings, known)
        self._asked = Asked(known, fetcher_of) if settings.ask_engines else None
        self._again: Callable[[], None] = lambda: None
        self._rng = rng
        self._nodes: dict[str, Mapping[str, str]] = {}
        self._nodes_forbidden = False

    async def fleets(self) -> AsyncIterator[Seen]:
        """The ready endpoints, whenever anything about them changes."""
        from kubernetes_asyncio import client  # noqa: PLC0415 - optional, slow to import

        changed = asyncio.Event()
        async with client.ApiClient(await self._configuration()) as api:
            core, discovery = client.CoreV1Api(api), client.DiscoveryV1Api(api)
            watched = partial(self._informer, changed.set)
            pods = watched("pods", core.list_namespaced_pod, self._settings.pod_selector)
            informers = [pods]
            if not self._settings.pod_selector:
                slices = watched(
                    "endpointslices.discovery.k8s.io",
                    discovery.list_namespaced_endpoint_slice,
                    self._selector(),
                )
                informers.insert(0, slices)
            loop = asyncio.get_running_loop()

            def again() -> None:
                loop.call_later(ASK_AGAIN_S, changed.set)

            self._again = again
            tasks = [asyncio.create_task(informer.run()) for informer in informers]
            try:
                while True:
                    await self._next(changed, tasks)
                    if all(informer.synced.is_set() for informer in informers):
                        by_pod = as_slices(pods.things) if len(informers) == 1 else slices.things
                        yield await self._seen(core, by_pod, pods.things)
            finally:
                for task in tasks:
                    task.cancel()
                await asyncio.gather(*tasks, return_exceptions=True)

    async def _next(self, changed: asyncio.Event, tasks: list[asyncio.Task[None]]) -> None:
        """Wait for a change, for the resync, or for an informer to give up."""
        waiting = asyncio.ensure_future(changed.wait())
        try:
            await asyncio.wait(
                [waiting, *tasks],
                timeout=self._settings.resync_s,
                return_when=asyncio.FIRST_COMPLETED,
            )
        finally:
            waiting.cancel()
        for task in tasks:
            if task.done():
                task.result()
        if not changed.is_set():
            self._nodes.clear()  # resync: nodes may have been labelled anew
        await asyncio.sleep(SETTLE_S)
        changed.clear()

    def _informer(self, changed: Any, what: str, call: Any, selector: str | None) -> Informer:
        bound = partial(call, self._namespace)
        return Informer(
            what, self._namespace, bound, selector=selector, changed=changed, rng=self._rng
        )

    def _selector(self) -> str:
        settings = self._settings
        if settings.service:
            return f"kubernetes.io/service-name={settings.service}"
        return settings.label_selector or ""

    async def _configuration(self) -> Any:
        from kubernetes_asyncio import client, config  # noqa: PLC0415

        settings = self._settings
        configuration = client.Configuration()
        if settings.api_url:
            configuration.host = settings.api_url
            return configuration
        try:
            if settings.kubeconfig:
                await config.load_kube_config(
                    config_file=settings.kubeconfig, client_configuration=configuration
                )
            else:
                config.load_incluster_config(client_configuration=configuration)
        except (config.ConfigException, OSError) as error:
            raise DiscoveryError(
                f"no way to the Kubernetes API: {str(error).rstrip('.')}. Run in a pod, or give "
                "discovery.kubernetes[].kubeconfig"
            ) from error
        return configuration

    # -- from endpoints to backends ----------------------------------------------------------

    async def _seen(
        self, core: Any, slices: Mapping[str, Thing], pods: Mapping[str, Thing]
    ) -> Seen:
        found = []
        for piece in sorted(slices.values(), key=_family):
            for endpoint in piece.get("endpoints") or []:
                if not is_ready(endpoint):
                    continue
                pod = pods.get(pod_of(endpoint), {})
                node = await self._node(core, endpoint.get("nodeName") or "")
                found.append((endpoint, piece, pod, node))
        entries: dict[str, BackendEntry] = {}
        refused: list[str] = []
        for made in await asyncio.gather(*(self._made(*one) for one in found)):
            if isinstance(made, str):
                refused.append(made)
            elif made.name:
                entries.setdefault(made.name, made)
        return Seen([entries[name] for name in sorted(entries)], tuple(sorted(refused)))

    async def _made(
        self, endpoint: Thing, piece: Thing, pod: Thing, node: Mapping[str, str]
    ) -> BackendEntry | str:
        """One backend, its engine asked for what is missing, or why it cannot be one."""
        made = self._endpoints.entry(endpoint, piece, pod, node, {})
        url = self._endpoints.url(endpoint, piece)
        if not isinstance(made, str) or self._asked is None or not url:
            return made
        said = await self._asked.or_why_not(name_of(endpoint), url)
        if isinstance(said, str):
            self._again()
            return said
        return self._endpoints.entry(endpoint, piece, pod, node, said)

    async def _node(self, core: Any, name: str) -> Mapping[str, str]:
        """Labels of a node; none where they may not be read."""
        if not name or not self._settings.node_labels or self._nodes_forbidden:
            return {}
        if name not in self._nodes:
            self._nodes[name] = await self._read_node(core, name)
        return self._nodes[name]

    async def _read_node(self, core: Any, name: str) -> Mapping[str, str]:
        import aiohttp  # noqa: PLC0415 - comes with the extra

        try:
            answer = await core.read_node(name, _preload_content=False)
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise DiscoveryError(f"the Kubernetes API cannot be reached: {error}") from error
        if answer.status != 200:
            answer.close()
        if answer.status == 403:
            self._nodes_forbidden = True
            log.warning(
                "the Kubernetes API forbids to read nodes, so GPU types come from the "
                "annotation %sgpu or the template: grant get on nodes (a ClusterRole)",
                PREFIX,
            )
        if answer.status in (403, 404):
            return {}
        if answer.status != 200:
            raise DiscoveryError(f"the Kubernetes API answered {answer.status} on nodes")
        node = await document(answer, "nodes")
        return dict(node["metadata"].get("labels") or {})


def _family(piece: Thing) -> str:
    """A pod of two stacks is in a slice of each: which comes first must not change, or its
    address would."""
    return str(piece.get("addressType") or "")


def own_namespace() -> str:
    """The namespace of the pod we run in, else ``default``."""
    try:
        return _NAMESPACE_FILE.read_text("utf-8").strip() or "default"
    except OSError:
        return "default"
