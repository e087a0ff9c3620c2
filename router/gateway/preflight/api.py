"""Questions to a Kubernetes API, answered with plain JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any
from urllib.parse import urlencode

from router.domain.errors import MotleyError
from router.gateway.preflight.finding import Thing

TIMEOUT_S = 15.0
PAGE = "500"


class ClusterError(MotleyError):
    """The API cannot be asked at all."""


class RefusedError(MotleyError):
    """The API answered something else; ``status`` says what."""

    def __init__(self, status: int, message: str) -> None:
        super().__init__(message)
        self.status = status


class KubeApi:
    """One API server.

    Args:
        client: a ``kubernetes_asyncio.client.ApiClient``.
        account: "namespace:name" of a service account to ask the permissions of; empty for one's
            own.
    """

    def __init__(self, client: Any, account: str = "") -> None:
        self._client = client
        self.account = account

    async def get(self, path: str, **query: str) -> Thing:
        """One object.

        Raises:
            RefusedError: it is not there, or may not be seen.
            ClusterError: nobody answers.
        """
        return await self._call("GET", path + ("?" + urlencode(query) if query else ""))

    async def items(self, path: str, **query: str) -> list[Thing]:
        """Every object of a list, all pages."""
        found: list[Thing] = []
        token = ""
        while True:
            more = {"continue": token} if token else {}
            page = await self.get(path, limit=PAGE, **query, **more)
            found += page.get("items") or []
            token = page.get("metadata", {}).get("continue") or ""
            if not token:
                return found

    async def items_if_allowed(self, path: str, **query: str) -> list[Thing] | None:
        """The same; ``None`` where they may not be seen."""
        try:
            return await self.items(path, **query)
        except RefusedError as error:
            if error.status in (401, 403):
                return None
            raise

    async def may(self, verb: str, group: str, resource: str, namespace: str) -> bool:
        """Whether the account, or whoever asks, may do something."""
        kind, _, sub = resource.partition("/")
        about = {"verb": verb, "group": group, "resource": kind, "namespace": namespace}
        if sub:
            about["subresource"] = sub
        spec: Thing = {"resourceAttributes": about}
        review = "SelfSubjectAccessReview"
        if self.account:
            spec["user"] = f"system:serviceaccount:{self.account}"
            review = "SubjectAccessReview"
        version = "authorization.k8s.io/v1"
        body = {"apiVersion": version, "kind": review, "spec": spec}
        answer = await self._call("POST", f"/apis/{version}/{review.lower()}s", body)
        return bool(answer.get("status", {}).get("allowed"))

    async def _call(self, method: str, path: str, body: Mapping[str, Any] | None = None) -> Thing:
        import aiohttp  # noqa: PLC0415 - comes with the extra

        try:
            answer = await self._client.call_api(
                path,
                method,
                header_params={"Accept": "application/json", "Content-Type": "application/json"},
                body=body,
                auth_settings=["BearerToken"],
                _preload_content=False,
                _return_http_data_only=True,
                _request_timeout=TIMEOUT_S,
            )
            text = await answer.text()
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise ClusterError(
                f"the Kubernetes API does not answer ({error!r}): is the cluster up, and is it the "
                "one of your kubeconfig (kubectl config current-context)?"
            ) from error
        told = _json(text)
        if answer.status >= 300:
            raise RefusedError(answer.status, str(told.get("message") or text[:200]))
        return told


def _json(text: str) -> Thing:
    try:
        told = json.loads(text)
    except ValueError:
        return {}
    return told if isinstance(told, dict) else {}
