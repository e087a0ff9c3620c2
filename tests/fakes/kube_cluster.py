"""The parts of a cluster that make pods out of deployments, over the fake Kubernetes API.

A deployment controller, a kubelet whose engine containers are emulated engines on loopback
addresses of their own, and the EndpointSlice controller: enough for a chart to become a fleet that
answers, and for its pods to come, load, drain and go as in a real cluster.
"""

from __future__ import annotations

import asyncio
import os
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Self

import httpx

from router.domain.fleet import BackendSpec
from simulator.engine_server.build import EngineOptions
from simulator.engine_server.fleet import make_server
from simulator.engine_server.listening import listen
from simulator.engine_server.server import EngineServer
from tests.fakes.http_server import free_port
from tests.fakes.kube_api import FakeKubeApi

Thing = dict[str, Any]
COST = "controller.kubernetes.io/pod-deletion-cost"
LOOK_S = 0.02


class FakeCluster:
    """Runs what the API server is told to run.

    Args:
        kube: the API.
        speed: of the emulated engines.

    Attributes:
        loads_s: how long an engine loads its model before it is ready.
        stuck: names of deployments whose new pods never get ready.
    """

    def __init__(self, kube: FakeKubeApi, speed: float = 20.0) -> None:
        self.kube, self.loads_s = kube, 0.05
        self.stuck: set[str] = set()
        self._speed = speed
        self._engines: dict[str, EngineServer | None] = {}
        self._work: set[asyncio.Task[None]] = set()
        self._made = 0
        self._net = f"127.{20 + os.getpid() % 200}"
        self._port = free_port()
        kube.graceful.add("pods")

    async def __aenter__(self) -> Self:
        self._loop = asyncio.create_task(self._run())
        return self

    async def __aexit__(self, *_: object) -> None:
        self._loop.cancel()
        for task in self._work:
            task.cancel()
        await asyncio.gather(self._loop, *self._work, return_exceptions=True)
        await asyncio.gather(*[e.stop() for e in self._engines.values() if e is not None])

    def engine(self, pod: str) -> EngineServer:
        """The engine in a pod."""
        found = self._engines[pod]
        assert found is not None
        return found

    def pods(self, name: str = "", *, ready: bool = False) -> list[str]:
        """Names of the pods of a deployment, those that are leaving left out."""
        return [
            pod["metadata"]["name"]
            for pod in self.kube.everything("pods")
            if pod["metadata"]["name"].startswith(name)
            and not _leaving(pod)
            and (_ready(pod) or not ready)
        ]

    def settled(self) -> bool:
        """There are as many ready pods as the deployments ask for."""
        asking = filter(_is_backend, self.kube.everything("deployments"))
        return len(self.pods(ready=True)) == sum(d["spec"]["replicas"] for d in asking)

    async def _run(self) -> None:
        while True:
            for deployment in self.kube.everything("deployments"):
                if _is_backend(deployment):
                    self._deployment(deployment)
            for pod in self.kube.everything("pods"):
                self._kubelet(pod)
            for service in self.kube.everything("services"):
                self._slice(service)
            await asyncio.sleep(LOOK_S)

    # The deployment controller

    def _deployment(self, deployment: Thing) -> None:
        meta, spec = deployment["metadata"], deployment["spec"]
        there = [
            pod
            for pod in self.kube.everything("pods")
            if _matches(spec["selector"]["matchLabels"], pod, meta["namespace"])
            and not _leaving(pod)
        ]
        for _ in range(spec["replicas"] - len(there)):
            self._made += 1
            template = spec["template"]
            pod = {
                "metadata": {
                    **template["metadata"],
                    "name": f"{meta['name']}-{self._made:05d}",
                    "namespace": meta["namespace"],
                },
                "spec": {**template["spec"], "nodeName": "node"},
                "status": {"phase": "Pending"},
            }
            self.kube.put("pods", pod)
        there.sort(key=lambda pod: (_ready(pod), _cost(pod)))
        for pod in there[: max(0, len(there) - spec["replicas"])]:
            pod["metadata"]["deletionTimestamp"] = "2026-01-01T00:00:00Z"
            self.kube.put("pods", pod)
        status = {"replicas": len(there), "readyReplicas": sum(map(_ready, there))}
        if deployment.get("status") != status:
            self.kube.put("deployments", {**deployment, "status": status})

    # The kubelet

    def _kubelet(self, pod: Thing) -> None:
        name = pod["metadata"]["name"]
        if name not in self._engines and not _leaving(pod):
            self._engines[name] = None
            number = len(self._engines)
            ip = f"{self._net}.{number // 250}.{1 + number % 250}"
            self._begin(self._start(name, pod, ip))
        elif _leaving(pod) and pod["status"].get("phase") != "Stopping":
            self.kube.put("pods", {**pod, "status": {**pod["status"], "phase": "Stopping"}})
            self._begin(self._stop(name, pod["metadata"]["namespace"]))

    def _begin(self, work: Any) -> None:
        task = asyncio.ensure_future(work)
        self._work.add(task)
        task.add_done_callback(self._work.discard)

    async def _start(self, name: str, pod: Thing, ip: str) -> None:
        spec = _spec_of(name, pod)
        await asyncio.sleep(self.loads_s)
        if any(name.startswith(f"{one}-") for one in self.stuck):
            return
        options = EngineOptions(speed=self._speed)
        engine = make_server(spec, listen(ip, self._port), options)
        await engine.start()
        self._engines[name] = engine
        namespace = pod["metadata"]["namespace"]
        with suppress(KeyError):  # gone meanwhile
            now = self.kube.get("pods", name, namespace)
            ready = {"type": "Ready", "status": "True"}
            now["status"] = {"phase": "Running", "podIP": ip, "conditions": [ready]}
            self.kube.put("pods", now)

    async def _stop(self, name: str, namespace: str) -> None:
        """The preStop hook waits for streams; then the engine is cut."""
        engine = self._engines[name]
        ip = self.kube.get("pods", name, namespace)["status"].get("podIP")
        async with httpx.AsyncClient(trust_env=False) as client:
            await asyncio.sleep(5 * LOOK_S)
            while ip and await _busy(client, f"http://{ip}:{self._port}/metrics"):
                await asyncio.sleep(LOOK_S)
        if engine is not None:
            await engine.stop()
            self._engines[name] = None
        self.kube.delete("pods", name, namespace)

    # The EndpointSlice controller

    def _slice(self, service: Thing) -> None:
        meta, spec = service["metadata"], service["spec"]
        if spec.get("clusterIP") != "None":
            return
        ends = [
            {
                "addresses": [pod["status"]["podIP"]],
                "nodeName": "node",
                "zone": "zone-a",
                "targetRef": {"kind": "Pod", "name": pod["metadata"]["name"]},
                "conditions": {
                    "ready": _ready(pod) and not _leaving(pod),
                    "serving": _ready(pod),
                    "terminating": _leaving(pod),
                },
            }
            for pod in self.kube.everything("pods")
            if _matches(spec["selector"], pod, meta["namespace"]) and pod["status"].get("podIP")
        ]
        own = {"kubernetes.io/service-name": meta["name"]}
        wanted = {
            "metadata": {
                "name": f"{meta['name']}-slice",
                "namespace": meta["namespace"],
                "labels": {**(meta.get("labels") or {}), **own},
            },
            "addressType": "IPv4",
            "ports": [{"name": port["name"], "port": self._port} for port in spec["ports"]],
            "endpoints": ends,
        }
        with suppress(KeyError):
            name, namespace = wanted["metadata"]["name"], meta["namespace"]
            if self.kube.get("endpointslices", name, namespace)["endpoints"] == ends:
                return
        self.kube.put("endpointslices", wanted)


def _spec_of(name: str, pod: Thing) -> BackendSpec:
    """What the container's own command line says."""
    container = pod["spec"]["containers"][0]
    assert container["command"] == ["motley", "engine"], "only emulated engines run here"
    flags = dict(arg.removeprefix("--").split("=", 1) for arg in container["args"])
    length = flags.get("max-model-len")
    return BackendSpec(
        name,
        flags["gpu"],
        "sglang" if flags["engine"] == "sglang" else "vllm",
        flags["model"],
        tensor_parallel=int(flags["tensor-parallel"]),
        max_model_len=int(length) if length else None,
        quantization=flags.get("quantization", ""),
    )


async def _busy(client: httpx.AsyncClient, url: str) -> bool:
    return any(_under_way((await client.get(url)).text))


def _under_way(exposition: str) -> Iterator[float]:
    for line in exposition.splitlines():
        if line.startswith(("vllm:num_requests_running", "sglang:num_running_reqs")):
            yield float(line.rsplit(" ", 1)[1])


def _is_backend(deployment: Thing) -> bool:
    return "motley.dev/backend" in (deployment["metadata"].get("annotations") or {})


def _matches(selector: dict[str, str], pod: Thing, namespace: str) -> bool:
    meta = pod["metadata"]
    return meta["namespace"] == namespace and selector.items() <= (meta.get("labels") or {}).items()


def _leaving(pod: Thing) -> bool:
    return "deletionTimestamp" in pod["metadata"]


def _ready(pod: Thing) -> bool:
    return any(c["status"] == "True" for c in pod["status"].get("conditions") or [])


def _cost(pod: Thing) -> int:
    return int((pod["metadata"].get("annotations") or {}).get(COST, 0))
