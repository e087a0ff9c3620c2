"""The fake Kubernetes API behaves as the real one where clients trip."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from tests.fakes.kube_api import FakeKubeApi

PODS = "/api/v1/namespaces/default/pods"
WEB = "/apis/apps/v1/namespaces/default/deployments/web"


@pytest.fixture
async def kube() -> AsyncIterator[FakeKubeApi]:
    async with FakeKubeApi() as running:
        yield running


@pytest.fixture
async def http(kube: FakeKubeApi) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(kube.url) as session:
        yield session


def pod(name: str, **labels: str) -> dict[str, Any]:
    return {"metadata": {"name": name, "labels": labels}}


async def test_lists_are_selected_and_paged(kube: FakeKubeApi, http: aiohttp.ClientSession) -> None:
    for n in range(3):
        kube.put("pods", pod(f"p{n}", app="vllm"))
    kube.put("pods", pod("other", app="db"))
    async with http.get(PODS, params={"labelSelector": "app=vllm", "limit": "2"}) as answer:
        first = await answer.json()
    query = {"labelSelector": "app=vllm", "limit": "2", "continue": first["metadata"]["continue"]}
    async with http.get(PODS, params=query) as answer:
        second = await answer.json()
    names = [p["metadata"]["name"] for page in (first, second) for p in page["items"]]
    assert names == ["p0", "p1", "p2"]


async def test_a_watch_replays_from_a_version_and_ends_when_dropped(
    kube: FakeKubeApi, http: aiohttp.ClientSession
) -> None:
    version = kube.put("pods", pod("a"))["metadata"]["resourceVersion"]
    kube.put("pods", pod("b"))
    query = {"watch": "true", "resourceVersion": version}
    async with http.get(PODS, params=query) as answer:
        assert b'"name": "b"' in await answer.content.readline()
        kube.delete("pods", "b")
        assert b"DELETED" in await answer.content.readline()
        kube.drop_watches()
        assert await asyncio.wait_for(answer.content.readline(), 5) == b""


async def test_a_compacted_version_is_gone(kube: FakeKubeApi, http: aiohttp.ClientSession) -> None:
    version = kube.put("pods", pod("a"))["metadata"]["resourceVersion"]
    kube.put("pods", pod("b"))
    kube.compact()
    query = {"watch": "true", "resourceVersion": version}
    async with http.get(PODS, params=query) as answer:
        assert b'"code": 410' in await answer.read()


async def test_writes_need_the_current_version(
    kube: FakeKubeApi, http: aiohttp.ClientSession
) -> None:
    kube.put("deployments", {"metadata": {"name": "web"}, "spec": {"replicas": 1}})
    stale = {"metadata": {"resourceVersion": "1"}, "spec": {"replicas": 5}}
    async with http.patch(WEB, json=stale) as answer:
        assert answer.status == 409
    async with http.patch(WEB + "/scale", json={"spec": {"replicas": 3}}) as answer:
        assert (await answer.json())["spec"]["replicas"] == 3
    assert kube.get("deployments", "web")["spec"]["replicas"] == 3


async def test_what_rbac_forbids_is_said_as_the_api_server_says_it(
    kube: FakeKubeApi, http: aiohttp.ClientSession
) -> None:
    kube.forbidden.add(("list", "pods"))
    async with http.get(PODS) as answer:
        assert answer.status == 403
        assert "cannot list resource" in (await answer.json())["message"]
