"""Look inside: configuration, fleet, queue, decisions, signals, costs; and reload."""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from fastapi.responses import JSONResponse

from router.config.diff import masked
from router.explain import KEPT, as_json
from router.gateway.admin.access import administrator, runtime_of
from router.gateway.problems import Problem, ProblemError
from router.gateway.workers import described

debug_api = APIRouter(tags=["operations"], dependencies=[Depends(administrator)])

MOST_QUEUED = 200


@debug_api.post("/reload")
async def reload(request: Request) -> JSONResponse:
    """Read the configuration file again; 400 if it is refused, and then nothing has changed."""
    reloader = runtime_of(request).reloader
    if reloader is None:
        message = "This gateway was not started from a file: there is nothing to read again."
        raise ProblemError(Problem(409, message, code="no_file"))
    result = reloader.reload("POST /reload")
    if not result.ok:
        raise ProblemError(Problem(400, result.error, code="bad_config"))
    return JSONResponse(result.as_dict())


@debug_api.get("/debug/config")
async def config(request: Request) -> dict[str, Any]:
    """The configuration, defaults included, secrets hidden; and what of it waits for a restart."""
    runtime = runtime_of(request)
    pending = () if runtime.reloader is None else runtime.reloader.pending
    return {**masked(runtime.config), "needs_restart": [str(change) for change in pending]}


@debug_api.get("/debug/fleet")
async def fleet(request: Request) -> dict[str, Any]:
    """Every backend with its source and state, and who serves which model."""
    runtime = runtime_of(request)
    state = runtime.engine.dispatcher.state
    assert runtime.roster is not None
    models: dict[str, list[str]] = {}
    for backend in state.backends:
        models.setdefault(backend.spec.model, []).append(backend.spec.name)
    return {
        "models": models,
        "aliases": dict(runtime.config.aliases),
        "backends": [
            {**described(b), "source": runtime.roster.source_of(b.spec.name)}
            for b in state.backends
        ],
    }


@debug_api.get("/debug/queue")
async def queue(request: Request) -> dict[str, Any]:
    """Who waits in the router, longest first, without what they ask."""
    runtime = runtime_of(request)
    dispatcher, now = runtime.engine.dispatcher, runtime.engine.now()
    waiting = dispatcher.waiting
    return {
        "queued": dispatcher.queued,
        "in_flight": dispatcher.in_flight,
        "shown": min(len(waiting), MOST_QUEUED),
        "requests": [
            {
                "request_id": request.request_id,
                "model": request.model,
                "slo_class": request.slo_class,
                "tenant": request.tenant,
                "waiting_s": round(now - request.arrival_s, 3),
                "prompt_tokens": request.prompt_tokens,
            }
            for request in waiting[:MOST_QUEUED]
        ],
    }


@debug_api.get("/debug/decisions")
async def decisions(request: Request) -> dict[str, Any]:
    """Decisions that can be explained: those that asked, and one a second; newest first."""
    explainer = runtime_of(request).engine.dispatcher.explainer
    shown = reversed(explainer.recent())
    return {
        "decisions": [
            {
                "request_id": account.request_id,
                "decided_s": account.decided_s,
                "model": account.model,
                "slo_class": account.slo_class,
                "decision": account.decision,
                "backend": account.backend,
                "reason": account.reason,
                "over": account.actual is not None,
            }
            for account in shown
        ]
    }


@debug_api.get("/debug/decisions/{request_id:path}")
async def decision(request: Request, request_id: str) -> dict[str, Any]:
    """Why one request went where it went, and what came of it; see ``router.explain.as_json``."""
    explainer = runtime_of(request).engine.dispatcher.explainer
    account = explainer.get(request_id)
    if account is None:
        message = (
            f"No decision of request {request_id!r} is kept. Send 'x-motley-explain: 1' with a "
            f"request to have its decision explained; the last {KEPT} are kept."
        )
        raise ProblemError(Problem(404, message, code="decision_not_found"))
    return as_json(account)


@debug_api.get("/debug/signals")
async def signals(request: Request) -> dict[str, Any]:
    """Which signals each backend really gives, how old they are, and what is odd about them."""
    reading = runtime_of(request).reading
    return {"backends": {} if reading is None else reading.described()}


@debug_api.get("/debug/costs")
async def costs(request: Request) -> dict[str, Any]:
    """Money and energy since the start, by tenant, model and GPU type, and per token."""
    runtime = runtime_of(request)
    runtime.outcomes.settle()
    return {"costs": runtime.metering.meter.described()}


@debug_api.get("/debug/beliefs")
async def beliefs(request: Request) -> dict[str, Any]:
    """What has been learned of each backend's speed, how surely, and how right predictions were."""
    runtime = runtime_of(request)
    runtime.outcomes.settle()
    return {
        "backends": runtime.instruments.beliefs(runtime.engine.now()),
        "before": runtime.memory.described(),
    }
