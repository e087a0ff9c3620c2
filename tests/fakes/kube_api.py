"""A small Kubernetes API server in memory, faithful where clients trip.

Lists carry a resourceVersion and can be paged; watches replay from one, send bookmarks, end after
``timeoutSeconds``, may be dropped in the middle, and answer 410 Gone for a version that has been
compacted away; objects are updated under optimistic concurrency; every patch type that kubectl
uses for scaling works as a merge; deployments have ``/scale``; verbs can be forbidden, as RBAC
does, with the API server's own words, or are judged by the roles and bindings that are there, for
callers whose token is known; access reviews answer likewise; operators' resources are there once
their group is installed. Speaks plain HTTP on loopback to kubernetes_asyncio, kubectl and Helm.

    async with FakeKubeApi() as kube:
        kube.put("pods", {"metadata": {"name": "a"}})
        configuration = kubernetes_asyncio.client.Configuration(host=kube.url)
"""

from __future__ import annotations

import asyncio
import copy
import json
import ssl
import time
import uuid
from collections.abc import Iterator
from contextlib import suppress
from typing import Any, Self

from aiohttp import web

from tests.fakes.kube_kinds import KINDS, group_list, resource_list
from tests.fakes.kube_rbac import allowed

Object = dict[str, Any]
Key = tuple[str, str, str]


class FakeKubeApi:
    """The server; ``url`` once started.

    Attributes:
        forbidden: (verb, resource) pairs that are answered with 403; verbs as in RBAC.
        requests: "VERB resource" of every request, in order.
        bookmark_s: how often an idle watch gets a bookmark.
        tokens: who a bearer token belongs to, as "namespace:serviceaccount"; those may do what
            roles let them. Everybody else is an administrator.
        absent: API groups that are not installed; the operators' are not.
        denied: "who verb resource" of every request that roles did not let through.
        asked: (who, verb, resource) of every request with a known token.
        tls: to speak HTTPS with; set before it is started.
        next: by verb and resource, what the next such requests are answered with: a body and a
            status, or ``None`` for a connection that is cut.
        graceful: resources whose DELETE only marks them; whoever plays the kubelet removes them.
    """

    def __init__(self) -> None:
        self.forbidden: set[tuple[str, str]] = set()
        self.requests: list[str] = []
        self.bookmark_s = 0.2
        self.tokens: dict[str, str] = {}
        self.absent = {"monitoring.coreos.com", "keda.sh", "gateway.networking.k8s.io"}
        self.denied: list[str] = []
        self.asked: set[tuple[str, str, str]] = set()
        self.graceful: set[str] = set()
        self.next: dict[tuple[str, str], list[tuple[str, int] | None]] = {}
        self.url = ""
        self.tls: ssl.SSLContext | None = None
        self._version = 100
        self._compacted = 0
        self._objects: dict[Key, Object] = {}
        self._log: list[tuple[int, str, str, Object]] = []
        self._drops = 0
        self._changed = asyncio.Event()
        self._runner: web.AppRunner | None = None

    async def __aenter__(self) -> Self:
        await self.start()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.stop()

    async def start(self, port: int = 0) -> None:
        """Listen on loopback."""
        # The client's hundreds of modules are read before anybody is waited for: on a busy machine
        # that takes longer than a test waits.
        with suppress(ImportError):
            import kubernetes_asyncio.client  # noqa: F401 - an extra
        app = web.Application(client_max_size=1 << 24)
        for path in ("/version", "/api", "/apis", "/api/v1", "/apis/{group}/{version}"):
            app.router.add_get(path, self._discover)
        for review in ("selfsubjectaccessreviews", "subjectaccessreviews"):
            app.router.add_post(f"/apis/authorization.k8s.io/v1/{review}", self._review)
        for base in ("/api/v1", "/apis/{group}/{version}"):
            for place in (f"{base}/namespaces/{{namespace}}", base):
                app.router.add_route("*", f"{place}/{{resource}}", self._collection)
                app.router.add_route("*", f"{place}/{{resource}}/{{name}}", self._item)
                app.router.add_route("*", f"{place}/{{resource}}/{{name}}/scale", self._scale)
        self._runner = web.AppRunner(app, shutdown_timeout=0.1)
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", port, ssl_context=self.tls)
        await site.start()
        port = self._runner.addresses[0][1]
        self.url = f"{'https' if self.tls else 'http'}://127.0.0.1:{port}"

    async def stop(self) -> None:
        """Drop all watches and close."""
        self.drop_watches()
        if self._runner is not None:
            await self._runner.cleanup()
            self._runner = None

    # What a test does to the cluster

    def put(self, resource: str, thing: Object, namespace: str = "default") -> Object:
        """Create or replace an object."""
        kind = KINDS[resource]
        thing = copy.deepcopy(thing)
        meta = thing.setdefault("metadata", {})
        if kind.namespaced:
            namespace = meta.setdefault("namespace", namespace)
        key = self._key(resource, namespace, meta["name"])
        meta.setdefault("uid", str(uuid.uuid4()))
        meta.setdefault("creationTimestamp", _now())
        thing.update(apiVersion=kind.api_version, kind=kind.name)
        verb = "MODIFIED" if key in self._objects else "ADDED"
        self._objects[key] = thing
        self._tell(verb, resource, thing)
        return thing

    def get(self, resource: str, name: str, namespace: str = "default") -> Object:
        """An object as it stands."""
        return copy.deepcopy(self._objects[self._key(resource, namespace, name)])

    def everything(self, resource: str) -> list[Object]:
        """All objects of a resource."""
        found = sorted((k, thing) for k, thing in self._objects.items() if k[0] == resource)
        return [copy.deepcopy(thing) for _, thing in found]

    def delete(self, resource: str, name: str, namespace: str = "default") -> Object:
        """Remove an object."""
        thing = self._objects.pop(self._key(resource, namespace, name))
        self._tell("DELETED", resource, thing)
        return thing

    def compact(self) -> None:
        """Forget history: new watches from an older version get 410 Gone.

        Those under way go on: the API server has their events in its cache.
        """
        self._compacted = self._version

    def drop_watches(self) -> None:
        """Cut every watch, as a restarting API server does."""
        self._drops += 1
        self._wake()

    # Inside

    def _key(self, resource: str, namespace: str, name: str) -> Key:
        return (resource, namespace if KINDS[resource].namespaced else "", name)

    def _tell(self, verb: str, resource: str, thing: Object) -> None:
        self._version += 1
        thing["metadata"]["resourceVersion"] = str(self._version)
        self._log.append((self._version, verb, resource, copy.deepcopy(thing)))
        self._wake()

    def _wake(self) -> None:
        self._changed.set()
        self._changed = asyncio.Event()

    def _matching(self, resource: str, request: web.Request) -> Iterator[Object]:
        for (kind, _, _), thing in sorted(self._objects.items()):
            if kind == resource and _selected(thing, request):
                yield thing

    async def _collection(self, request: web.Request) -> web.StreamResponse:
        resource = request.match_info["resource"]
        watching = request.query.get("watch", "").lower() in ("true", "1")
        verb = {"GET": "watch" if watching else "list", "POST": "create"}.get(request.method, "")
        refusal = self._refusal(verb, resource, request)
        if refusal is not None:
            return refusal
        if verb == "create":
            return await self._create(resource, request)
        return await self._watch(resource, request) if watching else self._list(resource, request)

    def _refusal(self, verb: str, resource: str, request: web.Request) -> web.Response | None:
        self.requests.append(f"{verb} {resource}")
        if self.next.get((verb, resource)):
            odd = self.next[verb, resource].pop(0)
            if odd is not None:
                body, status = odd[0].encode("utf-8", "surrogateescape"), odd[1]
                return web.Response(body=body, status=status, content_type="application/json")
            assert request.transport is not None
            request.transport.abort()
            return web.Response()
        kind = KINDS.get(resource.partition("/")[0])
        if kind is None or kind.group in self.absent:
            return _status(404, "NotFound", "the server could not find the requested resource")
        namespace = request.match_info.get("namespace", "")
        who = self._who(request)
        if who:
            self.asked.add((who, verb, resource))
        if self._may(who, verb, resource, namespace):
            return None
        shown = who or "default:motley"
        self.denied.append(f"{shown} {verb} {resource}")
        return _status(
            403,
            "Forbidden",
            f'{resource} is forbidden: User "system:serviceaccount:{shown}" cannot {verb} '
            f'resource "{resource}" in API group "{kind.group}" in the namespace "{namespace}"',
        )

    def _who(self, request: web.Request) -> str:
        token = request.headers.get("authorization", "").removeprefix("Bearer ")
        return self.tokens.get(token, "")

    def _may(self, who: str, verb: str, resource: str, namespace: str) -> bool:
        if (verb, resource) in self.forbidden:
            return False
        return not who or allowed(self._objects, who, verb, resource, namespace)

    async def _review(self, request: web.Request) -> web.Response:
        """May I, or may somebody else?"""
        asked = await request.json()
        spec = asked["spec"]
        about = spec["resourceAttributes"]
        who = spec.get("user", "").removeprefix("system:serviceaccount:") or self._who(request)
        resource = "/".join(p for p in (about["resource"], about.get("subresource", "")) if p)
        may = self._may(who, about["verb"], resource, about.get("namespace", ""))
        return web.json_response({**asked, "status": {"allowed": may}}, status=201)

    async def _discover(self, request: web.Request) -> web.Response:
        """What kinds there are, as kubectl and Helm ask."""
        path = request.path.strip("/")
        if path == "version":
            return web.json_response({"major": "1", "minor": "34", "gitVersion": "v1.34.0"})
        if path == "api":
            return web.json_response({"kind": "APIVersions", "versions": ["v1"]})
        if path == "apis":
            return web.json_response(group_list(self.absent))
        group = request.match_info.get("group", "")
        known = resource_list(group, request.match_info.get("version", "v1"), self.absent)
        if known is None:
            return _status(404, "NotFound", "the server could not find the requested resource")
        return web.json_response(known)

    def _list(self, resource: str, request: web.Request) -> web.Response:
        items = list(self._matching(resource, request))
        start = int(request.query.get("continue") or 0)
        limit = int(request.query.get("limit") or 0) or len(items)
        meta: Object = {"resourceVersion": str(self._version)}
        if start + limit < len(items):
            meta["continue"] = str(start + limit)
        kind = KINDS[resource]
        return web.json_response(
            {
                "kind": f"{kind.name}List",
                "apiVersion": kind.api_version,
                "metadata": meta,
                "items": items[start : start + limit],
            }
        )

    async def _create(self, resource: str, request: web.Request) -> web.Response:
        thing = await request.json()
        name = thing.get("metadata", {}).get("name", "")
        namespace = request.match_info.get("namespace", "")
        if self._key(resource, namespace, name) in self._objects:
            return _status(409, "AlreadyExists", f'{resource} "{name}" already exists')
        return web.json_response(self.put(resource, thing, namespace), status=201)

    async def _watch(self, resource: str, request: web.Request) -> web.StreamResponse:
        answer = web.StreamResponse(headers={"content-type": "application/json"})
        await answer.prepare(request)

        async def send(verb: str, thing: Object) -> None:
            await answer.write(json.dumps({"type": verb, "object": thing}).encode() + b"\n")

        with suppress(ConnectionError):  # whoever watched has left
            await self._tell_all(resource, request, send)
            await answer.write_eof()
        return answer

    async def _tell_all(self, resource: str, request: web.Request, send: Any) -> None:
        asked = request.query.get("resourceVersion", "")
        if asked in ("", "0"):
            seen = self._version
            for thing in list(self._matching(resource, request)):
                await send("ADDED", thing)
        else:
            seen = int(asked)
        if seen < self._compacted:
            message = f"too old resource version: {seen} ({self._compacted})"
            await send("ERROR", _failure(410, "Expired", message))
        else:
            await self._follow(resource, request, send, seen)

    async def _follow(self, resource: str, request: web.Request, send: Any, seen: int) -> None:
        drops, loop = self._drops, asyncio.get_running_loop()
        ends_s = loop.time() + float(request.query.get("timeoutSeconds", 3600))
        while loop.time() < ends_s and self._drops == drops:
            changed = self._changed
            for version, verb, kind, thing in list(self._log):
                if version > seen:
                    seen = version
                    if kind == resource and _selected(thing, request):
                        await send(verb, thing)
            try:
                await asyncio.wait_for(changed.wait(), self.bookmark_s)
            except TimeoutError:
                if request.query.get("allowWatchBookmarks"):
                    # Not ``self._version``: what came in this very moment was not told yet.
                    meta = {"resourceVersion": str(seen)}
                    kind_of = KINDS[resource]
                    mark = {"kind": kind_of.name, "apiVersion": kind_of.api_version}
                    await send("BOOKMARK", {**mark, "metadata": meta})

    async def _item(self, request: web.Request) -> web.StreamResponse:
        resource, name = request.match_info["resource"], request.match_info["name"]
        namespace = request.match_info.get("namespace", "")
        verbs = {"GET": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
        refusal = self._refusal(verbs.get(request.method, ""), resource, request)
        if refusal is not None:
            return refusal
        thing = self._objects.get(self._key(resource, namespace, name))
        if thing is None:
            return _status(404, "NotFound", f'{resource} "{name}" not found')
        if request.method == "GET":
            return web.json_response(thing)
        if request.method == "DELETE":
            if resource in self.graceful:
                thing["metadata"]["deletionTimestamp"] = _now()
                return web.json_response(self.put(resource, thing, namespace))
            return web.json_response(self.delete(resource, name, namespace))
        return await self._change(resource, thing, request)

    async def _change(
        self, resource: str, thing: Object, request: web.Request
    ) -> web.StreamResponse:
        wanted = await request.json()
        if isinstance(wanted, list) or "json-patch" in request.content_type:
            return _status(415, "UnsupportedMediaType", "this server takes merge patches only")
        version = wanted.get("metadata", {}).get("resourceVersion")
        if version not in (None, thing["metadata"]["resourceVersion"]):
            message = (
                "the object has been modified; please apply your changes to the latest version"
            )
            return _status(409, "Conflict", message)
        if request.method == "PUT":
            wanted["metadata"] = {**thing["metadata"], **wanted.get("metadata", {})}
            changed = wanted
        else:
            changed = _merged(copy.deepcopy(thing), wanted)
        return web.json_response(
            self.put(resource, changed, thing["metadata"].get("namespace", ""))
        )

    async def _scale(self, request: web.Request) -> web.StreamResponse:
        """The scale subresource of deployments and stateful sets."""
        resource, name = request.match_info["resource"], request.match_info["name"]
        namespace = request.match_info.get("namespace", "")
        verb = {"GET": "get", "PUT": "update", "PATCH": "patch"}.get(request.method, "")
        refusal = self._refusal(verb, f"{resource}/scale", request)
        if refusal is not None:
            return refusal
        thing = self._objects.get(self._key(resource, namespace, name))
        if thing is None:
            return _status(404, "NotFound", f'{resource} "{name}" not found')
        if verb != "get":
            replicas = (await request.json()).get("spec", {}).get("replicas", 0)
            thing = copy.deepcopy(thing)
            thing.setdefault("spec", {})["replicas"] = replicas
            thing = self.put(resource, thing, namespace)
        meta = {k: thing["metadata"][k] for k in ("name", "namespace", "resourceVersion")}
        replicas = thing.get("spec", {}).get("replicas", 1)
        ready = thing.get("status", {}).get("replicas", replicas)
        return web.json_response(
            {
                "kind": "Scale",
                "apiVersion": "autoscaling/v1",
                "metadata": meta,
                "spec": {"replicas": replicas},
                "status": {"replicas": ready},
            }
        )


def _now() -> str:
    return time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())


def _selected(thing: Object, request: web.Request) -> bool:
    namespace = request.match_info.get("namespace")
    meta = thing["metadata"]
    if namespace and meta.get("namespace", "") != namespace:
        return False
    labels = meta.get("labels") or {}
    terms = [term for term in request.query.get("labelSelector", "").split(",") if term]
    if not all(_term_holds(term, labels) for term in terms):
        return False
    field = request.query.get("fieldSelector", "")
    return not field or field == f"metadata.name={meta['name']}"


def _term_holds(term: str, labels: dict[str, str]) -> bool:
    if "!=" in term:
        key, value = term.split("!=")
        return labels.get(key) != value
    if "=" in term:
        key, value = term.replace("==", "=").split("=")
        return labels.get(key) == value
    return term in labels


def _merged(base: Object, patch: Object) -> Object:
    for key, value in patch.items():
        if value is None:
            base.pop(key, None)
        elif isinstance(value, dict) and isinstance(base.get(key), dict):
            _merged(base[key], value)
        else:
            base[key] = value
    return base


def _failure(code: int, reason: str, message: str) -> Object:
    return {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": message,
        "reason": reason,
        "code": code,
    }


def _status(code: int, reason: str, message: str) -> web.Response:
    return web.json_response(_failure(code, reason, message), status=code)
