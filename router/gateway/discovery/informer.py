"""List, then watch: one resource of a Kubernetes API kept in memory.

What goes wrong in real clusters is handled here: a watch that ends (the API server closes it
after some minutes), is cut (it restarted), or is too old (410 Gone: list again); pages; bookmarks,
so that a quiet resource does not grow too old; permissions that are missing, said in a way that
tells what to grant.
"""

from __future__ import annotations

import asyncio
import json
import random
from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from router.gateway.discovery.seam import DiscoveryError

PAGE = 500
WATCH_S = 240
SILENCE_S = 60.0
"""A watch with bookmarks says something every minute; one that does not is dead."""
QUICK_S = 0.2
SLOWEST_S = 30.0

Thing = dict[str, Any]
Call = Callable[..., Awaitable[Any]]


class ExpiredError(Exception):
    """The resourceVersion is too old: list again."""


class Informer:
    """Everything of one kind, by uid-less key ``name``.

    Args:
        what: for messages: the resource as RBAC names it.
        where: the namespace, for messages.
        call: the generated list method of kubernetes_asyncio, its namespace bound.
        selector: label selector.
        changed: called after every change.
        rng: spreads the retries.
    """

    def __init__(
        self,
        what: str,
        where: str,
        call: Call,
        *,
        selector: str | None,
        changed: Callable[[], None],
        rng: random.Random,
    ) -> None:
        self.things: dict[str, Thing] = {}
        self.synced = asyncio.Event()
        self._what, self._where = what, where
        self._call = call
        self._selector = {"label_selector": selector} if selector else {}
        self._changed = changed
        self._rng = rng
        self._version = ""

    async def run(self) -> None:
        """Keep up for ever.

        Raises:
            DiscoveryError: the API says no, or cannot be reached.
        """
        failures = 0
        while True:
            try:
                if not self._version:
                    await self._list()
                if await self._watch():
                    failures = 0
            except ExpiredError:
                self._version = ""
            failures += 1
            await asyncio.sleep(min(SLOWEST_S, QUICK_S * 2**failures) * self._rng.uniform(0.5, 1.0))

    async def _list(self) -> None:
        """All pages; if a page expires in the middle, the next round begins anew."""
        things: dict[str, Thing] = {}
        token: str | None = None
        version = ""
        while token != "":
            more: dict[str, Any] = {"_continue": token} if token else {}
            answer = await self._ask(limit=PAGE, _request_timeout=SILENCE_S, **more)
            page = await document(answer, self._what)
            try:
                things |= {thing["metadata"]["name"]: thing for thing in page.get("items") or []}
                version = page["metadata"]["resourceVersion"]
                token = page["metadata"].get("continue") or ""
            except (KeyError, TypeError) as error:
                raise _no_api(self._what) from error
        self.things, self._version = things, version
        self.synced.set()
        self._changed()

    async def _watch(self) -> bool:
        """Follow until the watch ends; says whether it brought anything.

        Raises:
            ExpiredError: the version is too old.
        """
        import aiohttp  # noqa: PLC0415 - comes with the extra

        patience = aiohttp.ClientTimeout(sock_connect=10.0, sock_read=SILENCE_S + 15.0)
        answer = await self._ask(
            watch=True,
            resource_version=self._version,
            allow_watch_bookmarks=True,
            timeout_seconds=WATCH_S,
            _request_timeout=patience,
        )
        brought = False
        try:
            async for line in answer.content:
                if line.strip():
                    self._take(json.loads(line))
                    brought = True
        except (aiohttp.ClientError, OSError, TimeoutError, ValueError, RecursionError):
            pass  # cut in the middle; the version says where to go on
        finally:
            answer.close()
        return brought

    def _take(self, event: Mapping[str, Any]) -> None:
        try:
            kind, thing = event["type"], event["object"]
            meta = thing.get("metadata") or {}
            version = thing.get("code") if kind == "ERROR" else meta["resourceVersion"]
        except (KeyError, TypeError, AttributeError) as error:
            raise _no_api(self._what) from error
        if kind == "ERROR":
            if version == 410:
                raise ExpiredError
            raise self._refused(version or 0, str(thing.get("message")))
        self._version = version
        name = meta.get("name", "")
        if kind == "BOOKMARK":
            return
        if kind == "DELETED":
            self.things.pop(name, None)
        else:
            self.things[name] = thing
        self._changed()

    async def _ask(self, **arguments: Any) -> Any:
        import aiohttp  # noqa: PLC0415 - comes with the extra

        try:
            answer = await self._call(_preload_content=False, **self._selector, **arguments)
            if answer.status == 200:
                return answer
            text = await answer.text(errors="replace")
        except (aiohttp.ClientError, OSError, TimeoutError) as error:
            raise DiscoveryError(f"the Kubernetes API cannot be reached: {error}") from error
        if answer.status == 410:
            raise ExpiredError
        raise self._refused(answer.status, text, "watch" if arguments.get("watch") else "list")

    def _refused(self, status: int, text: str, verb: str = "watch") -> DiscoveryError:
        if status == 403:
            return DiscoveryError(
                f"the Kubernetes API forbids to {verb} {self._what} in namespace "
                f"{self._where!r}: grant the gateway's service account the verbs list and watch on "
                f"{self._what} (a Role and a RoleBinding; rbac.create: true in the Helm chart)"
            )
        if status == 401:
            return DiscoveryError(
                "the Kubernetes API does not accept the gateway's credentials: check its service "
                "account token, or the kubeconfig"
            )
        return DiscoveryError(f"the Kubernetes API answered {status} on {self._what}: {text[:200]}")


async def document(answer: Any, what: str) -> Thing:
    """What an answer holds.

    Raises:
        DiscoveryError: it is cut off, or somebody else's who sits in between.
    """
    import aiohttp  # noqa: PLC0415 - comes with the extra

    try:
        read = await answer.json(content_type=None)
    except (aiohttp.ClientError, OSError, TimeoutError) as error:
        raise DiscoveryError(f"the Kubernetes API cannot be reached: {error}") from error
    except (ValueError, RecursionError) as error:
        raise _no_api(what) from error
    if not isinstance(read, dict) or not isinstance(read.get("metadata"), dict):
        raise _no_api(what)
    return read


def _no_api(what: str) -> DiscoveryError:
    return DiscoveryError(f"what answers on {what} is no Kubernetes API")
