"""Everything that is not hot, on FastAPI: models, health, workers, metrics."""

from __future__ import annotations

import asyncio
from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response

from router.gateway.access.gate import Caller
from router.gateway.problems import RETRY_AFTER_S, Problem, ProblemError
from router.gateway.runtime import Runtime
from telemetry.metric_text import CONTENT_TYPE


def _runtime(request: Request) -> Runtime:
    runtime: Runtime = request.app.state.runtime
    return runtime


async def authorized(request: Request) -> Caller | None:
    """Let nobody in without a key, where keys are set; who it is.

    Raises:
        ProblemError: there is none, or nobody's.
    """
    caller = _runtime(request).gate.admit(dict(request.scope["headers"]))
    if isinstance(caller, Problem):
        raise ProblemError(caller)
    return caller


Asking = Annotated[Caller | None, Depends(authorized)]

open_api = APIRouter(tags=["operations"])
guarded_api = APIRouter(dependencies=[Depends(authorized)])


@open_api.get("/health")
@open_api.get("/liveness", include_in_schema=False)
@open_api.head("/health", include_in_schema=False)
@open_api.head("/liveness", include_in_schema=False)
async def health() -> dict[str, str]:
    """The gateway runs."""
    return {"status": "ok"}


@open_api.get("/ready")
@open_api.get("/readiness", include_in_schema=False)
@open_api.head("/ready", include_in_schema=False)
@open_api.head("/readiness", include_in_schema=False)
async def ready(request: Request, any: bool = False) -> dict[str, Any]:  # noqa: A002
    """Every model has a backend that may be used; 503 names those that have none.

    With ``?any=true`` one usable backend is enough: a load balancer that takes the gateway out
    because one model has none would take the others away as well. 503 as well once the gateway
    was told to stop, so that load balancers look elsewhere.
    """
    runtime = _runtime(request)
    if runtime.draining:
        message = "The gateway is stopping: it finishes what it has. Ask another replica."
        raise ProblemError(Problem(503, message, code="draining", retry_after_s=RETRY_AFTER_S))
    state = runtime.engine.dispatcher.state
    served = {backend.spec.model for backend in state.backends if backend.usable}
    missing = sorted(state.models - served)
    if not served or (missing and not any):
        what = f"No usable backend for: {', '.join(missing)}." if missing else "No backend at all."
        raise ProblemError(Problem(503, what, code="not_ready", retry_after_s=RETRY_AFTER_S))
    return {"status": "ready", "models": sorted(served)}


@open_api.get("/metrics", response_class=Response)
@open_api.head("/metrics", include_in_schema=False, response_class=Response)
async def metrics(request: Request) -> Response:
    """Prometheus exposition of the gateway."""
    runtime = _runtime(request)
    runtime.outcomes.settle()
    parts: list[str] = []
    for piece in runtime.instruments.metrics.pieces():
        parts.append(piece)
        await asyncio.sleep(0)  # requests first: 500 backends are 4 MB of text
    return Response("".join(parts), headers={"content-type": CONTENT_TYPE})


@guarded_api.get("/v1/models", tags=["inference"])
@guarded_api.head("/v1/models", include_in_schema=False)
async def models(request: Request, caller: Asking) -> dict[str, Any]:
    """Every model served that the key may use, aliases included."""
    return {"object": "list", "data": _models(_runtime(request), caller)}


@guarded_api.get("/v1/models/{name:path}", tags=["inference"])
async def model(request: Request, name: str, caller: Asking) -> dict[str, Any]:
    """One model."""
    for entry in _models(_runtime(request), caller):
        if entry["id"] == name:
            return entry
    message = f"The model {name!r} does not exist here. GET /v1/models lists those that do."
    raise ProblemError(Problem(404, message, code="model_not_found", param="model"))


def _models(runtime: Runtime, caller: Caller | None) -> list[dict[str, Any]]:
    longest: dict[str, int] = {}
    for backend in runtime.engine.dispatcher.state.backends:
        served = backend.spec.model
        longest[served] = max(longest.get(served, 0), backend.max_context_tokens)
    adapters, meant = runtime.config.adapters, runtime.config.aliases
    roots = {name: name for name in longest} | dict(adapters)
    roots |= {name: adapters.get(root, root) for name, root in meant.items()}
    return [
        {
            "id": name,
            "object": "model",
            "created": runtime.started_unix_s,
            "owned_by": "motley",
            "root": root,
            "parent": root if name in adapters else None,
            "max_model_len": longest[root],
        }
        for name, root in sorted(roots.items())
        if root in longest and (caller is None or caller.grant.may_use(name, meant.get(name, name)))
    ]
