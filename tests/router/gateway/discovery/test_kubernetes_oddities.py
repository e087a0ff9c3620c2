"""Clusters as they are: odd labels, addresses of both kinds, and an API server with bad days."""

from __future__ import annotations

import asyncio
import json
import logging
from typing import Any

import pytest

from tests.fakes.kube_api import FakeKubeApi
from tests.router.gateway.discovery.test_kubernetes import (
    endpoint,
    kube,
    pod,
    slices,
    start,
)
from tests.router.gateway.fakes import eventually

__all__ = ["kube", "start"]


def a_slice(
    kube: FakeKubeApi, name: str, *endpoints: dict[str, Any], kind: str = "IPv4", ports: Any = None
) -> None:
    meta = {"name": name, "labels": {"kubernetes.io/service-name": "vllm"}}
    one = [{"name": "http", "port": 8000}]
    thing = {
        "metadata": meta,
        "addressType": kind,
        "ports": one if ports is None else ports,
        "endpoints": list(endpoints),
    }
    kube.put("endpointslices", thing)


# What pods, nodes and services may look like


async def test_a_card_nobody_knows_is_named(
    kube: FakeKubeApi, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    label = {"nvidia.com/gpu.product": "NVIDIA-GeForce-RTX-3090"}
    kube.put("nodes", {"metadata": {"name": "home", "labels": label}})
    pod(kube, "good")
    pod(kube, "said", gpu="rtx-3090")
    pod(kube, "felt")
    slices(
        kube,
        endpoint("good", "10.0.0.1"),
        endpoint("said", "10.0.0.2"),
        endpoint("felt", "10.0.0.3", "home"),
    )
    seen = start()
    await seen.until("good")
    assert "said" in caplog.text
    assert "rtx-3090" in caplog.text
    assert "felt: its GPU type is unknown (its node says 'NVIDIA-GeForce-RTX-3090')" in caplog.text


@pytest.mark.parametrize(
    "told",
    [
        {"tensor_parallel": "9" * 5000},
        {"max_model_len": "9" * 5000},
        {"model": ""},
        {"model": "a" * 10_000},
        {"gpu": ""},
        {"engine": "VLLM"},
        {"zone": "\x00"},
        {"backend": "{gpu: t4, model: llama-3.1-8b, max_num_batched_tokens: %s}" % ("9" * 400)},
        {
            "backend": "{gpu: t4, model: llama-3.1-8b, engine: llamacpp, engine_args: "
            "{parallel: %s}}" % ("9" * 400)
        },
        {"backend": "[" * 3000},
        {"backend": "&a [*a]"},
        {"backend": "!!python/object/apply:os.system ['true']"},
        {"backend": '{"url": "http://169.254.169.254"}'},
    ],
    ids=lambda told: f"{next(iter(told))}={next(iter(told.values()))[:50]!r}",
)
async def test_no_annotation_ends_the_search(
    kube: FakeKubeApi, start: Any, told: dict[str, str]
) -> None:
    """Whoever may annotate a pod may spoil that one."""
    pod(kube, "odd", **told)
    pod(kube, "good")
    slices(kube, endpoint("odd", "10.0.0.1"), endpoint("good", "10.0.0.2"))
    seen = start()
    await eventually(lambda: "good" in seen.fleet)
    if "odd" in seen.fleet:
        assert seen.fleet["odd"] == ("a100-80", "http://10.0.0.1:8000")
    pod(kube, "another")
    slices(kube, endpoint("another", "10.0.0.3"))
    await seen.until("another")


async def test_labels_and_annotations_may_be_null(kube: FakeKubeApi, start: Any) -> None:
    kube.put("pods", {"metadata": {"name": "a", "labels": None, "annotations": None}})
    a_slice(kube, "s", endpoint("a", "10.0.0.1") | {"conditions": None, "zone": None})
    kube.put(
        "endpointslices",
        {
            "metadata": {"name": "null", "labels": {"kubernetes.io/service-name": "vllm"}},
            "addressType": "IPv4",
            "ports": None,
            "endpoints": None,
        },
    )
    seen = start()
    await seen.until("a")


async def test_endpoints_without_a_pod_or_a_node(kube: FakeKubeApi, start: Any) -> None:
    """A service without a selector has neither; a node may be gone before its pods are."""
    pod(kube, "b")
    bare = {"addresses": ["10.0.0.1"], "conditions": {}}
    a_slice(kube, "s", bare, endpoint("b", "10.0.0.2", "gone"))
    seen = start(template={"model": "llama-3.1-8b", "gpu": "l4"})
    await seen.until("10.0.0.1", "b")
    assert {gpu for gpu, _ in seen.fleet.values()} == {"l4"}


async def test_both_address_families_are_one_backend(kube: FakeKubeApi, start: Any) -> None:
    """A service of two stacks has a slice of each: a pod that appears in both is one engine, at
    the same address whichever slice changed last."""
    pod(kube, "a")
    six = endpoint("a", "fd00::1")
    a_slice(kube, "four", endpoint("a", "10.0.0.1"))
    a_slice(kube, "six", six, kind="IPv6")
    seen = start()
    await seen.until("a")
    assert seen.fleet["a"][1] == "http://10.0.0.1:8000"
    for changed in ("four", "six"):
        pod(kube, changed)
        kube.delete("endpointslices", changed)
        await eventually(lambda: len(kube.everything("endpointslices")) == 1)
        first = endpoint("a", "10.0.0.1") if changed == "four" else six
        a_slice(kube, changed, first, kind="IPv4" if changed == "four" else "IPv6")
    pod(kube, "b")
    a_slice(kube, "more", endpoint("b", "fd00::2"), kind="IPv6")
    await seen.until("a", "b")
    assert seen.fleet["a"][1] == "http://10.0.0.1:8000"
    assert seen.fleet["b"][1] == "http://[fd00::2]:8000", "where there is nothing else"


async def test_of_several_ports_the_one_called_http_serves(kube: FakeKubeApi, start: Any) -> None:
    pod(kube, "a")
    two = [{"name": "metrics", "port": 9090}, {"name": "http", "port": 8000}]
    a_slice(kube, "s", endpoint("a", "10.0.0.1"), ports=two)
    seen = start(port=None)
    await seen.until("a")
    assert seen.fleet["a"][1] == "http://10.0.0.1:8000"


@pytest.mark.parametrize("port", ["grpc", None])
async def test_a_service_without_such_a_port_is_told_the_remedy(
    kube: FakeKubeApi, start: Any, caplog: pytest.LogCaptureFixture, port: str | None
) -> None:
    pod(kube, "a")
    a_slice(kube, "s", endpoint("a", "10.0.0.1"), ports=[{"name": "http", "port": None}])
    start(port=port)
    await eventually(lambda: "its service has no such port" in caplog.text)


async def test_one_that_terminates_gets_nothing_new_even_if_it_serves(
    kube: FakeKubeApi, start: Any
) -> None:
    pod(kube, "a")
    pod(kube, "b")
    ends = {"ready": True, "serving": True, "terminating": True}
    a_slice(kube, "s", endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2", **ends))
    seen = start()
    await seen.until("a")


# Bad days of the API server


GONE = json.dumps({"kind": "Status", "status": "Failure", "code": 410, "reason": "Expired"})


@pytest.mark.parametrize(
    "odd",
    [
        (GONE, 410),
        ("oops", 500),
        ("<html>", 200),
        ("{}", 200),
        ("Zug\udce4nglich", 502),
        ("[" * 200_000, 200),
        None,
    ],
    ids=["gone", "500", "html", "empty", "no UTF-8", "deep", "cut"],
)
@pytest.mark.parametrize(
    ("verb", "resource"),
    [
        ("list", "endpointslices"),
        ("list", "pods"),
        ("watch", "endpointslices"),
        ("watch", "pods"),
        ("get", "nodes"),
    ],
)
async def test_whatever_the_api_server_answers_the_search_goes_on(
    kube: FakeKubeApi, start: Any, verb: str, resource: str, odd: tuple[str, int] | None
) -> None:
    """It restarts, is upgraded, or somebody in between answers: the next time counts."""
    pod(kube, "a")
    a_slice(kube, "s", endpoint("a", "10.0.0.1"))
    kube.next[verb, resource] = [odd] * 2
    seen = start()
    await seen.until("a")
    kube.next[verb, resource] = [odd]
    kube.drop_watches()
    pod(kube, "b")
    label = {"nvidia.com/gpu.product": "NVIDIA-L4"}
    kube.put("nodes", {"metadata": {"name": "third", "labels": label}})
    a_slice(kube, "s", endpoint("a", "10.0.0.1"), endpoint("b", "10.0.0.2", "third"))
    await seen.until("a", "b")


async def test_a_list_without_a_version_is_not_asked_for_without_pause(
    kube: FakeKubeApi, start: Any
) -> None:
    nothing = json.dumps({"metadata": {"resourceVersion": ""}, "items": []})
    kube.next["list", "pods"] = [(nothing, 200)] * 1000
    start()
    await asyncio.sleep(0.5)
    assert 1 <= kube.requests.count("list pods") <= 5


async def test_a_watch_that_says_it_is_gone_lists_again(
    kube: FakeKubeApi, start: Any, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.WARNING)
    kube.next["watch", "endpointslices"] = [
        (json.dumps({"type": "ERROR", "object": json.loads(GONE)}) + "\n", 200)
    ]
    pod(kube, "a")
    a_slice(kube, "s", endpoint("a", "10.0.0.1"))
    seen = start()
    await eventually(lambda: kube.requests.count("list endpointslices") == 2)
    await seen.until("a")
    assert seen.errors == 0
