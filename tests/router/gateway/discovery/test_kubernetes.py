"""Backends from Kubernetes, over kubernetes_asyncio, against a small API server in memory."""

from __future__ import annotations

import asyncio
import logging
import random
from collections.abc import AsyncIterator
from typing import Any

import pytest

from router.config.discovery import KubernetesSource
from router.gateway.discovery import kubernetes as kubernetes_module
from router.gateway.discovery.follow import follow
from router.gateway.discovery.kubernetes import FromKubernetes
from router.gateway.discovery.roster import in_flight_of
from router.perf.catalog import gpu_names
from tests.fakes import MODEL
from tests.fakes.kube_api import FakeKubeApi
from tests.router.gateway.conftest import StartEngine
from tests.router.gateway.discovery.fakes import FakeBooks, roster_over
from tests.router.gateway.fakes import chat, eventually, fleet, running

A100 = {"nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB", "nvidia.com/gpu.memory": "81920"}


@pytest.fixture
async def kube() -> AsyncIterator[FakeKubeApi]:
    async with FakeKubeApi() as running:
        running.bookmark_s = 0.05
        running.put("nodes", {"metadata": {"name": "big", "labels": A100}})
        gke = {"cloud.google.com/gke-accelerator": "nvidia-l4"}
        running.put("nodes", {"metadata": {"name": "small", "labels": gke}})
        yield running


def pod(kube: FakeKubeApi, name: str, **annotations: str) -> None:
    told = {f"motley.dev/{key.replace('_', '-')}": value for key, value in annotations.items()}
    kube.put("pods", {"metadata": {"name": name, "annotations": told}})


def endpoint(name: str, address: str, node: str = "big", **conditions: bool) -> dict[str, Any]:
    return {
        "addresses": [address],
        "nodeName": node,
        "targetRef": {"kind": "Pod", "name": name},
        "conditions": {"ready": True, **conditions},
    }


def slices(kube: FakeKubeApi, *endpoints: dict[str, Any], name: str = "vllm-1") -> None:
    meta = {"name": name, "labels": {"kubernetes.io/service-name": "vllm"}}
    ports = [{"name": "metrics", "port": 9090}, {"name": "http", "port": 8000}]
    thing = {"metadata": meta, "addressType": "IPv4", "ports": ports, "endpoints": list(endpoints)}
    kube.put("endpointslices", thing)


class Following:
    """A source that is followed, and what came of it."""

    def __init__(self, kube: FakeKubeApi, **settings: Any) -> None:
        section = {
            "namespace": "default",
            "service": "vllm",
            "port": "http",
            "api_url": kube.url,
            "retry_s": 0.05,
            "template": {"model": MODEL},
            **settings,
        }
        source = FromKubernetes(
            KubernetesSource.model_validate(section), gpu_names(), random.Random(0)
        )
        self.books = FakeBooks()
        self.errors = 0
        self.roster = roster_over(self.books, [0.0])
        self.task = asyncio.create_task(follow(source, self.roster, self._failed, lambda: None))

    def _failed(self, source: str) -> None:
        self.errors += 1

    @property
    def fleet(self) -> dict[str, tuple[str, str]]:
        """GPU and URL of every backend that is used."""
        return {
            b.spec.name: (b.spec.gpu, b.spec.url or "")
            for b in self.books.state.backends
            if b.usable
        }

    async def until(self, *names: str) -> None:
        await eventually(lambda: sorted(self.fleet) == sorted(names))

    async def stop(self) -> None:
        self.task.cancel()
        await asyncio.gather(self.task, return_exceptions=True)


@pytest.fixture
async def start(kube: FakeKubeApi) -> AsyncIterator[Any]:
    started: list[Following] = []

    def begin(**settings: Any) -> Following:
        started.append(Following(kube, **settings))
        return started[-1]

    yield begin
    for one in started:
        await one.stop()


async def test_pods_come_get_ready_and_go(kube: FakeKubeApi, start: Any) -> None:
    pod(kube, "a")
    pod(kube, "b", gpu="t4", tensor_parallel="2")
    slices(kube, endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2", "small", ready=False))
    seen = start()
    await seen.until("a")
    assert seen.fleet["a"] == ("a100-80", "http://10.0.0.1:8000")
    slices(kube, endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2", "small"))
    await seen.until("a", "b")
    assert seen.fleet["b"] == ("t4", "http://10.0.0.2:8000"), "the pod's word before its node's"
    assert seen.books.state.get("b").spec.tensor_parallel == 2
    seen.books.state.get("a").in_flight = 1
    slices(
        kube,
        endpoint("a", "10.0.0.1", ready=False, serving=True, terminating=True),
        endpoint("b", "10.0.0.2", "small"),
    )
    await seen.until("b")
    assert "drain a" in seen.books.calls
    seen.roster.release(in_flight_of(seen.books.state.get))
    assert "a" in seen.books.names, "a terminating pod finishes what it has"


async def test_every_slice_of_a_service_counts(kube: FakeKubeApi, start: Any) -> None:
    for n in range(3):
        pod(kube, f"p{n}")
        slices(kube, endpoint(f"p{n}", f"10.0.1.{n}", "small"), name=f"vllm-{n}")
    seen = start()
    await seen.until("p0", "p1", "p2")
    assert seen.fleet["p0"][0] == "l4"
    kube.delete("endpointslices", "vllm-1")
    await seen.until("p0", "p2")


async def test_a_watch_that_is_cut_goes_on_where_it_was(kube: FakeKubeApi, start: Any) -> None:
    pod(kube, "a")
    pod(kube, "b")
    slices(kube, endpoint("a", "10.0.0.1"))
    seen = start()
    await seen.until("a")
    kube.drop_watches()
    slices(kube, endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2"))
    await seen.until("a", "b")
    assert kube.requests.count("list endpointslices") == 1, "no need to list again"
    assert seen.errors == 0


async def test_a_version_that_is_too_old_lists_again(kube: FakeKubeApi, start: Any) -> None:
    kube.bookmark_s = 60.0
    pod(kube, "a")
    pod(kube, "b")
    slices(kube, endpoint("a", "10.0.0.1"))
    seen = start()
    await seen.until("a")
    kube.drop_watches()
    for _ in range(3):
        kube.put("nodes", {"metadata": {"name": "big", "labels": A100}})
    slices(kube, endpoint("b", "10.0.0.2"))
    kube.compact()
    await seen.until("b")
    assert kube.requests.count("list endpointslices") == 2
    assert seen.errors == 0


async def test_a_missing_permission_is_said_with_its_remedy(
    kube: FakeKubeApi, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    kube.forbidden.add(("list", "pods"))
    pod(kube, "a")
    slices(kube, endpoint("a", "10.0.0.1"))
    seen = start()
    await eventually(lambda: seen.errors >= 2)
    assert (
        "forbids to list pods in namespace 'default': grant the gateway's service account the "
        "verbs list and watch on pods (a Role and a RoleBinding; rbac.create: true in the Helm "
        "chart)" in caplog.text
    )
    assert caplog.text.count("forbids to list pods") == 1, "said once"
    kube.forbidden.clear()
    await seen.until("a")


async def test_nodes_that_may_not_be_read_leave_the_template(
    kube: FakeKubeApi, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    kube.forbidden.add(("get", "nodes"))
    pod(kube, "a")
    slices(kube, endpoint("a", "10.0.0.1"))
    seen = start(template={"model": MODEL, "gpu": "v100-32"})
    await seen.until("a")
    assert seen.fleet["a"][0] == "v100-32"
    assert "grant get on nodes" in caplog.text


async def test_what_cannot_be_a_backend_is_left_out_with_its_remedy(
    kube: FakeKubeApi, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    kube.put("nodes", {"metadata": {"name": "plain", "labels": {}}})
    pod(kube, "good")
    pod(kube, "no-gpu")
    pod(kube, "odd", tensor_parallel="two")
    pod(kube, "other", engine="tgi")
    pod(kube, "none", tensor_parallel="0")
    pod(kube, "power", max_model_len="4²")
    slices(
        kube,
        endpoint("good", "10.0.0.1"),
        endpoint("no-gpu", "10.0.0.2", "plain"),
        endpoint("odd", "10.0.0.3"),
        endpoint("other", "10.0.0.4"),
        endpoint("none", "10.0.0.5"),
        endpoint("power", "10.0.0.6"),
    )
    seen = start()
    await seen.until("good")
    assert "no-gpu: its GPU type is unknown: annotate the pod with motley.dev/gpu" in caplog.text
    assert "odd: motley.dev/tensor-parallel must be a number, not 'two'" in caplog.text
    assert (
        "other: motley.dev/engine must be one of vllm, sglang, llamacpp, not 'tgi'" in caplog.text
    )
    assert "none: tensor_parallel: Input should be greater than or equal to 1" in caplog.text
    assert "power: motley.dev/max-model-len must be a number, not '4²'" in caplog.text


async def test_a_line_of_the_chart_says_all_of_a_backend(
    kube: FakeKubeApi, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    """Whatever its node and zone: placement plans by the same line, and so by the same group."""
    line = f'{{"gpu": "t4", "model": "{MODEL}", "tensor_parallel": 2, "max_model_len": 4096}}'
    pod(kube, "a", backend=line)
    pod(kube, "b", backend="{gpu: t4, modle: x}")
    pod(kube, "c", backend="t4")
    there = [endpoint(name, f"10.0.0.{n}") | {"zone": "z1"} for n, name in enumerate("abc")]
    slices(kube, *there)
    seen = start()
    await seen.until("a")
    assert seen.books.state.get("a").spec.group == f"t4x2/vllm/{MODEL}"
    assert "b: annotation motley.dev/backend: model: is missing" in caplog.text
    assert "c: annotation motley.dev/backend must be a line of backends" in caplog.text


async def test_a_watch_that_is_forbidden_names_the_verb(
    kube: FakeKubeApi, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    kube.forbidden.add(("watch", "endpointslices"))
    seen = start()
    await eventually(lambda: seen.errors >= 1)
    assert "forbids to watch endpointslices.discovery.k8s.io in namespace" in caplog.text


async def test_an_api_server_that_is_gone_leaves_the_fleet_as_it_was(
    kube: FakeKubeApi, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    pod(kube, "a")
    slices(kube, endpoint("a", "10.0.0.1"))
    seen = start()
    await seen.until("a")
    port = int(kube.url.rpartition(":")[2])
    await kube.stop()
    await eventually(lambda: seen.errors >= 1)
    assert list(seen.fleet) == ["a"]
    assert "its last fleet stands" in caplog.text
    await kube.start(port)
    pod(kube, "b")
    slices(kube, endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2"))
    await seen.until("a", "b")


async def test_a_gateway_serves_what_it_finds_there(kube: FakeKubeApi, engine: StartEngine) -> None:
    fake = await engine(chat("from a pod"))
    source = {"namespace": "default", "service": "vllm", "api_url": kube.url}
    config = fleet(discovery={"kubernetes": [{**source, "template": {"model": MODEL}}]})
    async with running({**config, "backends": []}) as gate:
        assert (await gate.get("/ready")).status_code == 503
        pod(kube, "a")
        meta = {"name": "vllm-1", "labels": {"kubernetes.io/service-name": "vllm"}}
        ports = [{"name": "http", "port": fake.port}]
        there = [endpoint("a", "127.0.0.1")]
        thing = {"metadata": meta, "addressType": "IPv4", "ports": ports, "endpoints": there}
        kube.put("endpointslices", thing)
        await eventually(lambda: "a" in gate.relay.engine.dispatcher.state)
        answered = await gate.post()
        assert answered.headers["x-motley-backend"] == "a"
        assert answered.json()["choices"][0]["message"]["content"] == "from a pod"


async def test_pods_by_label_need_no_service_and_say_what_they_serve(
    kube: FakeKubeApi, start: Any, engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As production-stack finds them: the model is asked of the engine."""
    monkeypatch.setattr(kubernetes_module, "ASK_AGAIN_S", 0.05)
    listed = {"data": [{"id": MODEL, "owned_by": "sglang", "max_model_len": 4096}]}
    backend = await engine(chat())
    backend.listed = listed

    def put(name: str, *, ready: bool, labels: dict[str, str], **meta: Any) -> None:
        conditions = [{"type": "Ready", "status": str(ready)}]
        status = {"podIP": "127.0.0.1", "conditions": conditions}
        kube.put(
            "pods",
            {
                "metadata": {"name": name, "labels": labels, **meta},
                "spec": {"nodeName": "big"},
                "status": status,
            },
        )

    followed = start(
        service=None,
        pod_selector="app=vllm",
        port=backend.port,
        ask_engines=True,
        template={},
    )
    put("one", ready=True, labels={"app": "vllm"})
    put("two", ready=False, labels={"app": "vllm"})
    put("other", ready=True, labels={"app": "web"})
    await followed.until("one")
    spec = followed.books.state.get("one").spec
    assert (spec.model, spec.engine, spec.gpu) == (MODEL, "sglang", "a100-80")
    assert (spec.max_model_len, spec.url) == (4096, f"http://127.0.0.1:{backend.port}")
    backend.listed = None  # it does not answer yet
    put("two", ready=True, labels={"app": "vllm"})
    await asyncio.sleep(0.2)
    assert followed.books.names == ["one"]
    backend.listed = listed
    await followed.until("one", "two")
    put("one", ready=True, labels={"app": "vllm"}, deletionTimestamp="2026-01-01T00:00:00Z")
    await followed.until("two")
