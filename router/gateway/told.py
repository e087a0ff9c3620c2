"""What a client is told beside the engine's own answer: our headers, errors with their story."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from router.domain.fleet import BackendSpec
from router.domain.request import Request
from router.explain import compact
from router.gateway.problems import Problem
from router.gateway.terms import EXPLAIN, wants
from router.gateway.wire import HOP_BY_HOP, Call, Headers

if TYPE_CHECKING:
    from router.gateway.engine import Engine

LOAD = b"endpoint-load-metrics"
NOT_FOR_CLIENTS = HOP_BY_HOP | {
    *(b"date", b"server", b"x-request-id", b"x-motley-backend", b"x-motley-policy"),
    b"x-motley-prefill",
    LOAD,
}
"""Headers of an engine's answer that end here."""


def own_headers(
    engine: Engine,
    call: Call,
    request: Request | None,
    backend: BackendSpec | None,
    prefill: BackendSpec | None = None,
) -> Headers:
    """Who was asked, who answers, and why, as far as the client may know."""
    headers = [
        (b"x-request-id", call.request_id.encode()),
        (b"x-motley-policy", engine.policy_name),
    ]
    if backend is not None:
        headers.append((b"x-motley-backend", backend.name.encode()))
        if request is not None and request.fallbacks:
            headers.append((b"x-motley-model", backend.model.encode()))
    if prefill is not None:
        headers.append((b"x-motley-prefill", prefill.name.encode()))
    if request is not None and request.explain and wants(dict(call.headers), EXPLAIN):
        account = engine.dispatcher.explainer.get(request.request_id)
        if account is not None:
            headers.append((b"x-motley-explain", compact(account).encode("ascii", "replace")))
    caller = call.caller
    if caller is not None and caller.meter is not None:
        headers += engine.gate.headers(caller)
    return headers


def all_tried(problem: Problem, tried: Sequence[str]) -> Problem:
    """The last failure, with all backends that were tried."""
    if len(tried) < 2:
        return problem
    return replace(problem, message=f"{problem.message} Tried: {', '.join(tried)}.")


def not_the_clients(engine: Engine, problem: Problem, backend: str) -> Problem:
    """A backend that refuses the gateway's credentials says nothing about the client's, and its
    words may hold the key."""
    if problem.status not in (401, 403) or not engine.keeps_credentials(backend):
        return problem
    message = f"Backend {backend} does not accept the gateway's credentials."
    return Problem(502, message, code="backend_credentials")
