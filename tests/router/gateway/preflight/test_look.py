"""What `motley check --kubernetes` finds, each in one line with its remedy."""

from __future__ import annotations

import copy
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from typing import Any

import pytest
import yaml
from kubernetes_asyncio import client

from router.config.load import load_config
from router.gateway.preflight.finding import Finding
from router.gateway.preflight.run import look
from tests.deploy.chart import CHART, NAMESPACE, Thing, example, pool, rendered
from tests.fakes.kube_api import FakeKubeApi
from tests.fakes.kube_kinds import KINDS

NOW = datetime(2026, 1, 1, 12, 0, tzinfo=UTC)
PLURAL = {kind.name: plural for plural, kind in KINDS.items()}
T4 = pool(gpu="t4", model="llama-3.2-3b", nodeSelector={"agentpool": "t4"})
"""One pool that runs: a 3B model on a T4."""


@pytest.fixture
async def kube() -> AsyncIterator[FakeKubeApi]:
    async with FakeKubeApi() as running:
        yield running


def node(name: str = "n1", *, gpus: str = "1", ready: str = "True", **spec: Any) -> Thing:
    labels = {"agentpool": "t4", "nvidia.com/gpu.product": "Tesla-T4"}
    taints = [{"key": "nvidia.com/gpu", "value": "present", "effect": "NoSchedule"}]
    return {
        "metadata": {"name": name, "labels": spec.pop("labels", labels)},
        "spec": {"taints": spec.pop("taints", taints)},
        "status": {
            "allocatable": {"nvidia.com/gpu": gpus} if gpus else {},
            "conditions": [{"type": "Ready", "status": ready}],
        },
    }


def install(kube: FakeKubeApi, things: list[Thing] | tuple[Thing, ...]) -> None:
    for thing in things:
        kube.put(PLURAL[thing["kind"]], copy.deepcopy(thing), NAMESPACE)


def engine_slice(kube: FakeKubeApi, *, ready: bool = True) -> None:
    labels = {"app.kubernetes.io/instance": "fleet", "app.kubernetes.io/component": "engine"}
    ends = [{"addresses": ["10.0.0.1"], "conditions": {"ready": ready}}]
    thing = {"metadata": {"name": "p-1", "labels": labels}, "endpoints": ends}
    kube.put("endpointslices", thing, NAMESPACE)


async def found(
    kube: FakeKubeApi,
    values: Thing | None = None,
    *,
    things: tuple[Thing, ...] | list[Thing] = (),
    account: str = "",
) -> list[Finding]:
    manifests = things or rendered(values=T4 if values is None else values)
    data = next(t["data"] for t in manifests if "motley.yaml" in (t.get("data") or {}))
    config = load_config(yaml.safe_load(data["motley.yaml"]))
    if not things:
        install(kube, manifests)
    async with client.ApiClient(client.Configuration(host=kube.url)) as api:
        return await look(api, config, NOW, things=things, account=account)


def problems(findings: list[Finding]) -> list[str]:
    return [one.text for one in findings if one.kind == "problem"]


async def test_a_cluster_that_is_well(kube: FakeKubeApi) -> None:
    kube.put("nodes", node())
    engine_slice(kube)
    assert await found(kube) == []


# Rights


async def test_each_right_that_is_missing_is_named_with_the_value_that_grants_it(
    kube: FakeKubeApi,
) -> None:
    kube.put("nodes", node())
    engine_slice(kube)
    kube.forbidden.add(("watch", "endpointslices"))
    (said,) = problems(await found(kube))
    assert said == (
        "whoever asks here may not watch endpointslices.discovery.k8s.io in namespace 'llm': grant "
        "it with a Role and a RoleBinding (rbac.create: true in the Helm chart)"
    )


async def test_the_chart_grants_all_that_it_needs_and_nothing_without_it(kube: FakeKubeApi) -> None:
    """Judged by the rendered roles themselves, for placement too."""
    placing = T4 | {"placement": {"enabled": True, "dryRun": False, "stock": {"t4": 4}}}
    kube.put("nodes", node())
    engine_slice(kube)
    account = f"{NAMESPACE}:fleet-motley"
    assert problems(await found(kube, placing, account=account)) == []
    kube.delete("roles", "fleet-motley", NAMESPACE)
    bare = {"rbac": {"create": False}, "serviceAccount": {"name": "fleet-motley"}}
    missing = problems(await found(kube, placing | bare, account=account))
    assert len(missing) == 8
    assert any("may not patch deployments/scale.apps" in said for said in missing)
    assert all("in the Helm chart)" in said for said in missing)


async def test_nodes_that_may_not_be_seen_are_no_problem(kube: FakeKubeApi) -> None:
    kube.forbidden.add(("list", "nodes"))
    engine_slice(kube)
    (only,) = await found(kube)
    assert only.kind == "note"
    assert "nodes may not be seen" in only.text


# Nodes


@pytest.mark.parametrize(
    ("nodes", "says"),
    [
        ([], "no node has the labels agentpool=t4: its node pool does not exist"),
        ([node(labels={"agentpool": "cpu"})], "no node has the labels agentpool=t4"),
        ([node(ready="Unknown")], "none of its nodes is ready (n1): kubectl describe node"),
        ([node(gpus="")], "its nodes (such as n1) offer no nvidia.com/gpu: install NVIDIA's"),
        (
            [node(taints=[{"key": "sku", "value": "gpu", "effect": "NoSchedule"}])],
            "its nodes are tainted sku=gpu:NoSchedule and its pods do not tolerate that",
        ),
        (
            [
                node(
                    labels={
                        "agentpool": "t4",
                        "nvidia.com/gpu.product": "NVIDIA-A100-SXM4-80GB",
                        "nvidia.com/gpu.memory": "81920",
                    }
                )
            ],
            "says t4, and its node n1 has NVIDIA-A100-SXM4-80GB (a100-80): correct gpu or",
        ),
    ],
    ids=["none", "other labels", "not ready", "no driver", "tainted", "another card"],
)
async def test_a_pool_without_nodes(kube: FakeKubeApi, nodes: list[Thing], says: str) -> None:
    for one in nodes:
        kube.put("nodes", one)
    engine_slice(kube)
    (said,) = problems(await found(kube))
    assert said.startswith("pool fleet-motley-p: ")
    assert says in said


async def test_engines_wider_than_any_node(kube: FakeKubeApi) -> None:
    kube.put("nodes", node())
    engine_slice(kube)
    wide = pool(gpu="t4", model="llama-3.1-8b", tensorParallel=2, nodeSelector={"agentpool": "t4"})
    (said,) = problems(await found(kube, wide))
    assert "an engine spans 2 cards and its nodes have 1" in said


async def test_more_replicas_than_cards_is_a_note_because_pools_grow(kube: FakeKubeApi) -> None:
    kube.put("nodes", node())
    engine_slice(kube)
    three = pool(gpu="t4", model="llama-3.2-3b", replicas=3, nodeSelector={"agentpool": "t4"})
    (only,) = await found(kube, three)
    assert only.kind == "note"
    assert "3 replicas are wanted and its nodes have room for 1" in only.text


async def test_a_model_that_does_not_fit_its_pool(kube: FakeKubeApi) -> None:
    kube.put("nodes", node())
    engine_slice(kube)
    large = pool(gpu="t4", model="llama-3.1-8b", nodeSelector={"agentpool": "t4"})
    (said,) = problems(await found(kube, large))
    assert said.startswith("pool fleet-motley-p: llama-3.1-8b does not fit on 1 x t4: short by")
    assert "tensor_parallel: 2" in said


async def test_a_model_that_nobody_knows(kube: FakeKubeApi) -> None:
    kube.put("nodes", node())
    engine_slice(kube)
    unknown = pool(gpu="t4", model="acme/tiny", nodeSelector={"agentpool": "t4"})
    (said,) = problems(await found(kube, unknown))
    assert said.startswith("pool fleet-motley-p: unknown model 'acme/tiny'")
    figures = {"parameters": 10**9, "layers": 16, "hidden_size": 2048, "kv_heads": 8}
    described = unknown | {"config": {"models": {"acme/tiny": figures}}}
    assert problems(await found(kube, described)) == []


# Pods


def pod(kube: FakeKubeApi, name: str = "p-1", **status: Any) -> None:
    line = "{gpu: t4, model: llama-3.2-3b}"
    probe = {"periodSeconds": 10, "failureThreshold": 120}
    thing = {
        "metadata": {"name": name, "annotations": {"motley.dev/backend": line}},
        "spec": {"containers": [{"name": "engine", "startupProbe": probe}]},
        "status": status,
    }
    kube.put("pods", thing, NAMESPACE)


def unscheduled(message: str) -> dict[str, Any]:
    return {
        "conditions": [
            {"type": "PodScheduled", "status": "False", "message": message},
        ]
    }


def container(state: Thing, **more: Any) -> dict[str, Any]:
    one = {"name": "engine", "image": "vllm/vllm-openai:v9", "ready": False, "state": state}
    return {"containerStatuses": [{**one, **more}]}


def waiting(reason: str, message: str = "") -> Thing:
    return {"waiting": {"reason": reason, "message": message}}


@pytest.mark.parametrize(
    ("status", "says"),
    [
        (
            unscheduled("0/5 nodes are available: 5 Insufficient nvidia.com/gpu. preemption: 0/5"),
            "cannot be scheduled (0/5 nodes are available: 5 Insufficient nvidia.com/gpu): all "
            "cards are taken; grow the node pool, or lower replicas",
        ),
        (
            unscheduled("0/5: 5 node(s) didn't match Pod's node affinity/selector."),
            "no node has the labels of nodeSelector",
        ),
        (
            unscheduled("0/5: pod has unbound immediate PersistentVolumeClaims."),
            "look at cache.storageClassName and accessModes",
        ),
        (unscheduled("0/5: 5 node(s) had untolerated taint {sku: gpu}."), "add the taint to"),
        (
            container(waiting("ImagePullBackOff", 'Back-off pulling image "vllm/vllm-openai:v9"')),
            "cannot pull the image vllm/vllm-openai:v9 (Back-off pulling image "
            '"vllm/vllm-openai:v9"): check image.repository and image.tag of its pool, and',
        ),
        (
            container(waiting("CreateContainerConfigError", 'secret "hf" not found')),
            'cannot start (secret "hf" not found): create the secret or config map',
        ),
        (
            container(
                waiting("CrashLoopBackOff"),
                lastState={"terminated": {"reason": "OOMKilled", "exitCode": 137}},
            ),
            "killed for memory again and again: raise resources.limits.memory",
        ),
        (
            container(
                waiting("CrashLoopBackOff"),
                lastState={"terminated": {"reason": "Error", "exitCode": 1}},
            ),
            "ends again and again (exit 1): kubectl logs --previous says why",
        ),
        ({"reason": "Evicted", "message": "low on disk"}, "evicted: low on disk"),
    ],
)
async def test_what_keeps_a_pod_from_getting_ready(
    kube: FakeKubeApi, status: dict[str, Any], says: str
) -> None:
    kube.put("nodes", node())
    engine_slice(kube)
    pod(kube, **status)
    pod(kube, "p-2", **status)
    (said,) = problems(await found(kube))
    assert said.startswith("pod p-1 and 1 more: "), "said once for all of them"
    assert says in said


async def test_a_pod_that_loads_its_model_has_its_time(kube: FakeKubeApi) -> None:
    kube.put("nodes", node())
    engine_slice(kube, ready=False)
    pod(kube, **container({"running": {"startedAt": "2026-01-01T11:48:00Z"}}))
    findings = await found(kube)
    assert not problems(findings)
    assert findings[0].text == (
        "pod p-1: runs since 12 min and is not ready: it loads its model; 20 min are allowed "
        "(loadSeconds)"
    )
    assert "no engine is ready yet behind app.kubernetes.io/instance=fleet" in findings[1].text


async def test_pods_that_cannot_even_be_made(kube: FakeKubeApi) -> None:
    kube.put("nodes", node())
    engine_slice(kube)
    things = rendered(values=T4)
    for thing in things:
        if thing["metadata"]["name"] == "fleet-motley-p" and thing["kind"] == "Deployment":
            message = "exceeded quota: gpus"
            failure = {"type": "ReplicaFailure", "status": "True", "message": message}
            thing["status"] = {"conditions": [failure]}
    install(kube, things)
    config = load_config({"discovery": {"kubernetes": [{"namespace": NAMESPACE, **SELECTED}]}})
    async with client.ApiClient(client.Configuration(host=kube.url)) as api:
        (said,) = problems(await look(api, config, NOW))
    assert "its pods cannot be made (exceeded quota: gpus)" in said


SELECTED = {"label_selector": "app.kubernetes.io/component=engine", "node_labels": False}


async def test_a_selector_that_finds_nothing(kube: FakeKubeApi) -> None:
    kube.put("nodes", node())
    (said,) = problems(await found(kube))
    assert "no EndpointSlice in namespace 'llm' has app.kubernetes.io/instance=fleet" in said


async def looked(kube: FakeKubeApi, **source: Any) -> list[Finding]:
    """A gateway that somebody set up without the chart."""
    section = {"namespace": NAMESPACE, "node_labels": False, **source}
    config = load_config({"discovery": {"kubernetes": [section]}})
    async with client.ApiClient(client.Configuration(host=kube.url)) as api:
        return await look(api, config, NOW)


async def test_pods_by_label_need_no_right_to_endpoints_and_are_looked_at(
    kube: FakeKubeApi,
) -> None:
    kube.forbidden.add(("list", "endpointslices"))
    (said,) = problems(await looked(kube, pod_selector="app=vllm", port=8000))
    assert said.startswith("no pod in namespace 'llm' has app=vllm: no engine will be found")
    status = container(waiting("ErrImagePull"))
    thing = {"metadata": {"name": "v", "labels": {"app": "vllm"}}, "spec": {}, "status": status}
    kube.put("pods", thing, NAMESPACE)
    (said,) = problems(await looked(kube, pod_selector="app=vllm", port=8000))
    assert said.startswith("pod v: cannot pull the image")


async def test_pods_behind_any_service_are_looked_at(kube: FakeKubeApi) -> None:
    labels = {"kubernetes.io/service-name": "vllm"}
    ends = [{"targetRef": {"kind": "Pod", "name": "v"}, "conditions": {"ready": False}}]
    thing = {"metadata": {"name": "s", "labels": labels}, "endpoints": ends}
    kube.put("endpointslices", thing, NAMESPACE)
    status = container(waiting("ErrImagePull"))
    kube.put("pods", {"metadata": {"name": "v"}, "spec": {}, "status": status}, NAMESPACE)
    first, second = await looked(kube, service="vllm")
    assert first.text.startswith("pod v: cannot pull the image")
    assert second.text == (
        "no engine is ready yet behind kubernetes.io/service-name=vllm in namespace 'llm'"
    )


# Before it is installed


async def test_operators_secrets_and_nodes_that_are_missing_are_told_before(
    kube: FakeKubeApi,
) -> None:
    findings = problems(await found(kube, things=example(AKS)))
    operators = [said for said in findings if said.startswith("the cluster has no")]
    assert operators == [
        "the cluster has no PodMonitor, PrometheusRule, ServiceMonitor (monitoring.coreos.com/v1): "
        "install kube-prometheus-stack, or set monitoring.serviceMonitor, podMonitor and rules to "
        "false"
    ]
    assert (
        "Secret 'hugging-face' is missing in namespace 'llm' and pods will not start without it: "
        "kubectl -n llm create secret generic hugging-face --from-literal=token=..." in findings
    )
    assert sum("no node has the labels agentpool=" in said for said in findings) == 3


async def test_an_installed_operator_is_seen(kube: FakeKubeApi) -> None:
    kube.absent.clear()
    for name in ("hugging-face", "motley-keys"):
        kube.put("secrets", {"metadata": {"name": name}}, NAMESPACE)
    findings = problems(await found(kube, things=example(AKS)))
    assert all("no node has the labels" in said for said in findings)


AKS = CHART / "examples" / "aks-a100-v100-t4.yaml"


# The API itself


async def test_an_api_that_does_not_answer(kube: FakeKubeApi) -> None:
    await kube.stop()
    (said,) = problems(await found(kube, things=example(AKS)))
    assert said.startswith("the Kubernetes API does not answer")
    assert "kubectl config current-context" in said


async def test_a_page_at_a_time(kube: FakeKubeApi, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("router.gateway.preflight.api.PAGE", "2")
    for n in range(5):
        kube.put("nodes", node(f"n{n}", labels={"agentpool": "cpu"}))
    kube.put("nodes", node("z"))
    engine_slice(kube)
    assert await found(kube) == []
