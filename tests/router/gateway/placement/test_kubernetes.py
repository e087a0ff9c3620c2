"""Deployments scaled over a Kubernetes API, with a controller that makes and deletes pods."""

from __future__ import annotations

import asyncio
import logging
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import suppress
from typing import Any

import pytest
from kubernetes_asyncio import client

from router.domain.fleet import BackendSpec
from router.fleet_state.backend import BackendState
from router.gateway.discovery.line import BACKEND
from router.gateway.placement.adapter import PlacementError
from router.gateway.placement.carry_out import CarryOut
from router.gateway.placement.cluster import BEFORE, DELETION_COST, PLACING, STARTING, Cluster
from router.gateway.placement.kubernetes import KubernetesAdapter
from router.gateway.placement.undo import difference, resume, undo
from router.health.breaker import BreakerConfig
from router.perf.hardware import Hardware
from tests.fakes.kube_api import FakeKubeApi
from tests.router.gateway.placement.fleet import CAPABILITY

LARGE, SMALL = "llama-3.1-8b", "llama-3.2-3b"


def deployment(name: str, model: str, replicas: int, **fields: Any) -> dict[str, Any]:
    line = f"{{gpu: a100-80, engine: vllm, model: {model}}}"
    return {
        "metadata": {
            "name": name,
            "labels": {"motley.dev/managed": "true"},
            "annotations": {BACKEND: line},
            **fields,
        },
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "template": {"metadata": {"labels": {"app": name}}, "spec": {"containers": []}},
        },
        "status": {},
    }


class Controller:
    """The deployment controller: pods follow replicas, ready a little later, cheapest goes first.

    Attributes:
        never_ready: deployments whose new pods do not get ready.
        fewest: least ready pods seen of each deployment since the first was ready.
    """

    def __init__(self, kube: FakeKubeApi) -> None:
        self.kube = kube
        self.never_ready: set[str] = set()
        self.fewest: dict[str, int] = {}
        self._pods: dict[str, list[str]] = {}
        self._made = 0

    async def run(self) -> None:
        while True:
            for name in ("large", "small"):
                self.reconcile(name)
            await asyncio.sleep(0.01)

    def reconcile(self, name: str) -> None:
        wanted = self.kube.get("deployments", name)["spec"]["replicas"]
        pods = self._pods.setdefault(name, [])
        before = list(pods)
        while len(pods) < wanted:
            self._made += 1
            pods.append(f"{name}-{self._made}")
            meta = {"name": pods[-1], "labels": {"app": name}}
            self.kube.put("pods", {"metadata": meta, "status": {"podIP": f"10.0.0.{self._made}"}})
        while len(pods) > wanted:
            pods.sort(key=self._cost)
            self.kube.delete("pods", pods.pop(0))
        ready = [pod for pod in pods if pod in before and name not in self.never_ready]
        if self.ready(name) and len(ready) < self.fewest.get(name, 99):
            self.fewest[name] = len(ready)
        thing = self.kube.get("deployments", name)
        if thing["status"].get("readyReplicas", 0) != len(ready):
            thing["status"] = {"replicas": len(pods), "readyReplicas": len(ready)}
            self.kube.put("deployments", thing)

    def ready(self, name: str) -> int:
        return int(self.kube.get("deployments", name)["status"].get("readyReplicas", 0))

    def _cost(self, pod: str) -> int:
        notes = self.kube.get("pods", pod)["metadata"].get("annotations") or {}
        return int(notes.get(DELETION_COST, 0))

    def specs(self) -> list[BackendSpec]:
        """What discovery would find: the ready pods."""
        found = []
        for name, model in (("large", LARGE), ("small", SMALL)):
            for pod in self._pods.get(name, [])[: self.ready(name)]:
                ip = self.kube.get("pods", pod)["status"]["podIP"]
                found.append(BackendSpec(pod, "a100-80", "vllm", model, url=f"http://{ip}:8000"))
        return found


class Discovered:
    """Implements ``Members``: follows the cluster as discovery does."""

    def __init__(self, controller: Controller) -> None:
        self._controller = controller
        self._states: dict[str, BackendState] = {}

    def backends(self) -> list[BackendState]:
        specs = {spec.name: spec for spec in self._controller.specs()}
        for name in self._states.keys() - specs.keys():
            del self._states[name]
        for name, spec in specs.items():
            self._states.setdefault(name, BackendState(spec, 0, CAPABILITY, BreakerConfig()))
        return list(self._states.values())

    def drain(self, name: str) -> None:
        self._states[name].draining = True

    def join(self, spec: BackendSpec) -> None:
        raise AssertionError("discovery does that")

    def leave(self, name: str) -> None:
        raise AssertionError("discovery does that")


@pytest.fixture
async def controller() -> AsyncIterator[Controller]:
    async with FakeKubeApi() as kube:
        kube.put("deployments", deployment("large", LARGE, 2))
        kube.put("deployments", deployment("small", SMALL, 0))
        kube.put("deployments", {"metadata": {"name": "web"}, "spec": {"replicas": 3}})
        made = Controller(kube)
        running = asyncio.create_task(made.run())
        while made.ready("large") < 2:
            await asyncio.sleep(0.01)
        yield made
        running.cancel()
        with suppress(asyncio.CancelledError):
            await running


@pytest.fixture
async def adapter(controller: Controller) -> AsyncIterator[KubernetesAdapter]:
    made = adapter_of(controller)
    yield made
    await made.close()


def cluster_of(controller: Controller) -> Cluster:
    api = client.ApiClient(client.Configuration(host=controller.kube.url))
    return Cluster(api, "default", Hardware())


def adapter_of(controller: Controller, **settings: Any) -> KubernetesAdapter:
    plain = {"stock": {"a100-80": 2}, "ready_timeout_s": 2.0, "look_s": 0.01}
    return KubernetesAdapter(cluster_of(controller), **{**plain, **settings})


def carry_out(
    adapter: KubernetesAdapter, controller: Controller, pause_s: float = 0.0
) -> tuple[CarryOut, Discovered]:
    members = Discovered(controller)
    work = CarryOut(
        adapter,
        members,
        ready_timeout_s=2.0,
        drain_timeout_s=2.0,
        pause_s=pause_s,
        look_s=0.01,
    )
    return work, members


GROUPS = {model: f"a100-80/vllm/{model}" for model in (LARGE, SMALL)}


async def test_only_managed_deployments_are_its_business(adapter: KubernetesAdapter) -> None:
    survey = await adapter.survey([])
    assert sorted(spec.model for spec in survey.startable) == [LARGE, SMALL]
    assert [(pool.name, pool.cards) for pool in survey.pools] == [("a100-80", 2)]
    assert survey.scalable


async def test_a_swap_drains_one_pod_and_that_pod_goes(
    adapter: KubernetesAdapter, controller: Controller
) -> None:
    work, members = carry_out(adapter, controller)
    await adapter.survey([])
    first = members.backends()
    first[0].in_flight = 3  # the other is less busy, so that one is drained
    steps = await work.run({GROUPS[LARGE]: 1, GROUPS[SMALL]: 1})
    assert [(step.kind, step.failure) for step in steps] == [("stop", ""), ("start", "")]
    assert steps[0].backend == first[1].spec.name
    left = Counter(state.spec.model for state in members.backends())
    assert left == {LARGE: 1, SMALL: 1}
    assert first[0].spec.name in {state.spec.name for state in members.backends()}
    assert controller.fewest["large"] >= 1


async def test_cards_beyond_the_stock_are_not_asked_for(
    adapter: KubernetesAdapter, controller: Controller
) -> None:
    work, members = carry_out(adapter, controller)
    await adapter.survey([])
    steps = await work.run({GROUPS[LARGE]: 2, GROUPS[SMALL]: 1})
    assert [step.failure for step in steps] == ["no free cards"]
    assert len(members.backends()) == 2


async def test_a_pod_that_does_not_get_ready_is_scaled_back(
    adapter: KubernetesAdapter, controller: Controller
) -> None:
    adapter._ready_timeout_s = 0.2
    controller.never_ready.add("small")
    work, members = carry_out(adapter, controller)
    await adapter.survey([])
    steps = await work.run({GROUPS[LARGE]: 1, GROUPS[SMALL]: 1})
    assert "no new pod is ready within" in steps[-1].failure
    assert controller.kube.get("deployments", "small")["spec"]["replicas"] == 0
    assert len(members.backends()) == 1


async def test_what_rbac_forbids_is_told(
    adapter: KubernetesAdapter, controller: Controller
) -> None:
    await adapter.survey([])
    controller.kube.forbidden.add(("patch", "deployments/scale"))
    with pytest.raises(
        PlacementError,
        match="forbids to patch deployments/scale in namespace 'default': grant the gateway's "
        r"service account the verb patch on deployments/scale \(placement\.enabled",
    ):
        await adapter.start(GROUPS[SMALL], [])


@pytest.mark.parametrize(
    ("annotations", "complaint"),
    [
        ({}, "has no annotation motley.dev/backend"),
        ({BACKEND: "{gpu: a1000, model: llama-3.1-8b}"}, "unknown GPU"),
        ({BACKEND: "[a, b]"}, "annotation motley.dev/backend"),
    ],
)
async def test_a_deployment_that_says_nothing_usable_is_named(
    adapter: KubernetesAdapter,
    controller: Controller,
    annotations: dict[str, str],
    complaint: str,
) -> None:
    controller.kube.put("deployments", deployment("odd", LARGE, 1, annotations=annotations))
    with pytest.raises(PlacementError, match=f"deployment odd.*{complaint}"):
        await adapter.survey([])


def replicas(controller: Controller) -> dict[str, int]:
    return {
        n: controller.kube.get("deployments", n)["spec"]["replicas"] for n in ("large", "small")
    }


def notes(controller: Controller, name: str) -> dict[str, str]:
    found: dict[str, str] = controller.kube.get("deployments", name)["metadata"]["annotations"]
    return found


SWAP = {GROUPS[LARGE]: 1, GROUPS[SMALL]: 1}


async def test_a_dry_run_says_which_deployment_and_scales_none(
    controller: Controller, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    adapter = adapter_of(controller, dry=True)
    work, _ = carry_out(adapter, controller)
    await adapter.survey([])
    steps = await work.run(SWAP)
    assert sorted(step.kind for step in steps) == ["start", "stop"]
    assert "would change deployment large: 2 -> 1 replicas" in caplog.text
    assert "would change deployment small: 0 -> 1 replicas" in caplog.text
    assert not any(request.startswith("patch") for request in controller.kube.requests)
    await adapter.close()


async def test_steps_keep_their_distance(
    adapter: KubernetesAdapter, controller: Controller
) -> None:
    work, _ = carry_out(adapter, controller, pause_s=0.4)
    await adapter.survey([])
    loop = asyncio.get_running_loop()
    began_s = loop.time()
    assert [step.failure for step in await work.run(SWAP)] == ["", ""]
    assert loop.time() - began_s >= 0.4


async def test_a_start_that_a_crash_broke_off_is_awaited_and_not_asked_for_twice(
    adapter: KubernetesAdapter, controller: Controller
) -> None:
    """The gateway asked for a second small pod and died before it was ready."""
    await adapter.survey([])
    work, _ = carry_out(adapter, controller)
    assert [s.failure for s in await work.run(SWAP)] == ["", ""]
    controller.never_ready.add("small")
    adapter._stock = {"a100-80": 3}
    running = asyncio.create_task(work.run({GROUPS[LARGE]: 1, GROUPS[SMALL]: 2}))
    while replicas(controller)["small"] < 2:
        await asyncio.sleep(0.01)
    running.cancel()  # the crash
    with suppress(asyncio.CancelledError):
        await running
    assert notes(controller, "small")[STARTING] == "2"
    assert PLACING in notes(controller, "small")

    after = adapter_of(controller, stock={"a100-80": 3})
    again, _ = carry_out(after, controller)
    await after.survey([])
    resuming = asyncio.create_task(again.run({GROUPS[LARGE]: 1, GROUPS[SMALL]: 2}))
    await asyncio.sleep(0.1)
    assert replicas(controller)["small"] == 2, "it waits for the pod that was asked for"
    controller.never_ready.clear()
    await resuming
    assert replicas(controller) == {"large": 1, "small": 2}
    assert STARTING not in notes(controller, "small")
    assert notes(controller, "small")[BEFORE] == "1", "before the run that was broken off"
    assert PLACING not in notes(controller, "small")
    await after.close()


async def test_a_mark_that_a_crash_left_does_not_choose_the_wrong_pod(
    adapter: KubernetesAdapter, controller: Controller
) -> None:
    await adapter.survey([])
    _, members = carry_out(adapter, controller)
    first, second = (state.spec for state in members.backends())
    cluster = cluster_of(controller)
    await cluster.first_to_go(first.url.removeprefix("http://").partition(":")[0])
    await adapter.stop(second)
    while len(left := members.backends()) > 1:
        await asyncio.sleep(0.01)
    assert left[0].spec.name == first.name
    assert DELETION_COST not in (
        controller.kube.get("pods", first.name)["metadata"].get("annotations") or {}
    )
    await cluster.close()


async def test_the_cluster_has_the_last_word_on_the_last_ready_pod(
    adapter: KubernetesAdapter, controller: Controller
) -> None:
    """The gateway's idea of the fleet may be old."""
    await adapter.survey([])
    _, members = carry_out(adapter, controller)
    spec = members.backends()[0].spec
    await adapter.stop(spec)
    while len(members.backends()) > 1:
        await asyncio.sleep(0.01)
    with pytest.raises(PlacementError, match=r"the only ready pod of llama-3\.1-8b: it stays"):
        await adapter.stop(members.backends()[0].spec)
    assert replicas(controller)["large"] == 1


async def test_the_newest_placement_can_be_taken_back(
    adapter: KubernetesAdapter, controller: Controller
) -> None:
    cluster = cluster_of(controller)
    with pytest.raises(PlacementError, match="nothing to take back"):
        await difference(cluster)
    work, _ = carry_out(adapter, controller)
    await adapter.survey([])
    await work.run(SWAP)
    assert await difference(cluster) == {"large": (1, 2), "small": (1, 0)}

    # A placement that took every card of a model back would leave it dark: it keeps its pod.
    said: list[str] = []
    with pytest.raises(PlacementError, match=r"small has the only ready pod of llama-3\.2-3b"):
        await undo(cluster, said.append, timeout_s=0.3, look_s=0.01)
    assert replicas(controller) == {"large": 2, "small": 1}
    assert said == ["large: 1 -> 2"]

    with pytest.raises(PlacementError, match="'motley plans --resume' lets the planner go on"):
        await adapter.survey([])
    assert await resume(cluster) == ["large", "small"]
    await adapter.survey([])
    await cluster.close()


async def test_taking_back_goes_a_pod_at_a_time(
    adapter: KubernetesAdapter, controller: Controller
) -> None:
    work, _ = carry_out(adapter, controller)
    await adapter.survey([])
    await work.run(SWAP)
    adapter._stock = {"a100-80": 4}
    await adapter.survey([])
    await work.run({GROUPS[LARGE]: 1, GROUPS[SMALL]: 3})
    cluster = cluster_of(controller)
    said: list[str] = []
    await undo(cluster, said.append, timeout_s=5.0, look_s=0.01)
    assert said == ["small: 3 -> 2", "small: 2 -> 1"]
    assert replicas(controller) == {"large": 1, "small": 1}
    assert await difference(cluster) == {}
    await cluster.close()
