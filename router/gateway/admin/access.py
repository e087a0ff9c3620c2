"""Who may administer: holders of ``admin.api_keys``, or of a key whose grant says so."""

from __future__ import annotations

import time
from typing import Literal

from fastapi import Request

from router.gateway.access.grant import OPERATOR
from router.gateway.access.ring import Ring, offered_key, plain_keys
from router.gateway.problems import UNAUTHORIZED, Problem, ProblemError
from router.gateway.runtime import Runtime

FORBIDDEN = Problem(
    403,
    "This key may not administer the gateway. Use one of admin.api_keys, or a key made with "
    "'motley keys create --admin'.",
    code="admin_required",
)
NO_KEYS = Problem(
    403,
    "Changing workers needs API keys: set admin.api_keys or server.api_keys in the configuration.",
    code="keys_required",
)

Verdict = Literal["admin", "nobody", "unknown", "other"]


def runtime_of(request: Request) -> Runtime:
    """The gateway that this request came to."""
    runtime: Runtime = request.app.state.runtime
    return runtime


def verdict(runtime: Runtime, headers: dict[bytes, bytes]) -> Verdict:
    """Who asks: an admin, an ``unknown``, an ``other`` holder; ``nobody`` where no keys are set.

    With ``admin.api_keys`` set, ``server.api_keys`` no longer administer.
    """
    own = Ring(plain_keys(runtime.config.admin.api_keys))
    if own and own.find(offered_key(headers), time.time()) is not None:
        return "admin"
    caller = runtime.gate.admit(headers)
    if caller is None:
        return "unknown" if own else "nobody"
    if isinstance(caller, Problem):
        return "unknown"
    grant = caller.grant
    return "admin" if grant.admin and not (own and grant is OPERATOR) else "other"


async def onlooker(request: Request) -> Verdict:
    """Let only admins in, and everybody where no keys are set: for what changes nothing.

    Raises:
        ProblemError: no key that is known (401), or not an admin's (403).
    """
    found = verdict(runtime_of(request), dict(request.scope["headers"]))
    if found == "unknown":
        raise ProblemError(UNAUTHORIZED)
    if found == "other":
        raise ProblemError(FORBIDDEN)
    return found


async def administrator(request: Request) -> None:
    """Let only admins in; without any keys everybody may look, and nobody may change.

    Raises:
        ProblemError: as ``onlooker``, and where a change is asked for without any keys.
    """
    found = await onlooker(request)
    if found == "nobody" and request.method not in ("GET", "HEAD"):
        raise ProblemError(NO_KEYS)
