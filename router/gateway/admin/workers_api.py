"""Workers over REST, with the paths and words that users of SGLang's routers know.

Motley's own: ``GET/POST /workers``, ``GET/DELETE /workers/{name or URL}``, ``POST
/workers/{name}/drain`` and ``/resume``. Theirs: ``/add_worker?url=``, ``/remove_worker?url=``,
``/list_workers``, ``/get_loads``.
"""

from __future__ import annotations

from typing import Any

from fastapi import APIRouter, Depends, Request
from pydantic import ValidationError

from router.config.load import explain
from router.config.schema import BackendEntry
from router.domain.errors import ConfigError, UnknownNameError
from router.domain.fleet import BackendSpec
from router.fleet_state.backend import BackendState
from router.gateway.admin import addresses
from router.gateway.admin.access import administrator, runtime_of
from router.gateway.admin.identify import identify
from router.gateway.problems import Problem, ProblemError
from router.gateway.runtime import Runtime
from router.gateway.workers import described, new_spec
from router.perf.catalog import gpu_names
from telemetry.http_get import HttpGetter

workers_api = APIRouter(tags=["operations"], dependencies=[Depends(administrator)])

_THEIR_NAMES = {"model_id": "model", "runtime": "engine", "worker_url": "url"}
_NOT_HERE = {
    "priority": "Motley ranks workers by their speed; leave it out",
    "cost": "Motley knows what a card costs from its catalogue; leave it out",
    "worker_type": "prefill and decode workers are set up in the configuration; use 'regular'",
    "api_key": "keys for engines are set under 'upstream' in the configuration",
}


@workers_api.get("/workers")
async def workers(request: Request) -> dict[str, Any]:
    """What the gateway knows of each backend."""
    runtime = runtime_of(request)
    return {"workers": [_told(runtime, b) for b in runtime.engine.dispatcher.state.backends]}


@workers_api.get("/workers/{name:path}")
async def worker(request: Request, name: str) -> dict[str, Any]:
    """One backend, by name or URL."""
    runtime = runtime_of(request)
    return _told(runtime, _found(runtime, name))


@workers_api.post("/workers", status_code=201)
async def add_worker(request: Request, entry: dict[str, Any]) -> dict[str, Any]:
    """A backend joins the fleet.

    The body is one entry of ``backends`` in the file, or as SGLang's router takes it
    (``url``, ``model_id``, ``labels``). Model, engine and, from SGLang, the card are asked of the
    engine when they are not given.
    """
    runtime = runtime_of(request)
    try:
        fields = _in_our_words(entry)
        url = str(fields.get("url") or "")
        if url:
            await addresses.check(url, runtime.config.admin)
        wanted = await _complete(runtime, fields, url)
        return _told(runtime, _join(runtime, wanted))
    except ConfigError as error:
        raise ProblemError(Problem(400, f"{error}", code="bad_worker")) from error


@workers_api.post("/add_worker", include_in_schema=False)
async def add_worker_by_url(request: Request, url: str) -> dict[str, Any]:
    """As SGLang's router takes it."""
    labels = dict(request.query_params)
    labels.pop("url")
    return await add_worker(request, {"url": url, **labels})


@workers_api.delete("/workers/{name:path}")
async def remove_worker(request: Request, name: str) -> dict[str, Any]:
    """A backend leaves: nothing new is sent there, what is under way runs to its end."""
    runtime = runtime_of(request)
    left = _found(runtime, name)
    assert runtime.roster is not None
    runtime.roster.dismiss(left.spec.name)
    return {"removed": left.spec.name, "in_flight": left.in_flight}


@workers_api.post("/remove_worker", include_in_schema=False)
async def remove_worker_by_url(request: Request, url: str) -> dict[str, Any]:
    """As SGLang's router takes it."""
    return await remove_worker(request, url)


@workers_api.post("/workers/{name}/drain")
async def drain_worker(request: Request, name: str) -> dict[str, Any]:
    """Nothing new goes to this backend; it stays in the fleet."""
    runtime = runtime_of(request)
    backend = _found(runtime, name)
    runtime.drain_backend(backend.spec.name)
    return _told(runtime, backend)


@workers_api.post("/workers/{name}/resume")
async def resume_worker(request: Request, name: str) -> dict[str, Any]:
    """A drained backend is used again."""
    runtime = runtime_of(request)
    backend = _found(runtime, name)
    runtime.resume_backend(backend.spec.name)
    return _told(runtime, backend)


@workers_api.get("/list_workers", include_in_schema=False)
@workers_api.post("/list_workers", include_in_schema=False)
async def list_workers(request: Request) -> dict[str, Any]:
    """As SGLang's router answers it."""
    backends = runtime_of(request).engine.dispatcher.state.backends
    return {"urls": [described(backend)["url"] for backend in backends]}


@workers_api.get("/get_loads", include_in_schema=False)
async def get_loads(request: Request) -> dict[str, Any]:
    """As SGLang's router answers it: requests under way."""
    backends = runtime_of(request).engine.dispatcher.state.backends
    return {
        "workers": [
            {"worker": described(backend)["url"], "load": backend.in_flight} for backend in backends
        ]
    }


def _told(runtime: Runtime, backend: BackendState) -> dict[str, Any]:
    assert runtime.roster is not None
    return {**described(backend), "source": runtime.roster.source_of(backend.spec.name)}


def _found(runtime: Runtime, name: str) -> BackendState:
    wanted = name.rstrip("/")
    for backend in runtime.engine.dispatcher.state.backends:
        if wanted in (backend.spec.name, backend.spec.url):
            return backend
    names = [backend.spec.name for backend in runtime.engine.dispatcher.state.backends]
    error = UnknownNameError("backend", name, names)
    raise ProblemError(Problem(404, f"{error}", code="worker_not_found"))


def _in_our_words(entry: dict[str, Any]) -> dict[str, Any]:
    fields = {_THEIR_NAMES.get(name, name): value for name, value in entry.items()}
    if fields.get("worker_type") == "regular":
        del fields["worker_type"]
    for name, remedy in _NOT_HERE.items():
        if name in fields:
            raise ConfigError(f"{name}: {remedy}")
    labels = fields.get("labels")
    if isinstance(labels, dict) and "gpu" in labels:
        fields.setdefault("gpu", labels["gpu"])
    return fields


async def _complete(runtime: Runtime, fields: dict[str, Any], url: str) -> dict[str, Any]:
    """What is not given is asked of the engine."""
    if url and not {"model", "gpu"} <= set(fields):
        name, engine = str(fields.get("name") or ""), runtime.engine
        fetcher = HttpGetter(
            lambda: engine.tls(name),
            header=lambda: engine.credentials(name),
            guard=addresses.guard(runtime.config.admin),
        )
        try:
            told = await identify(url, fetcher, list(gpu_names()))
        finally:
            fetcher.close()
        fields = told.fields() | fields
        if "gpu" not in fields:
            raise ConfigError(
                f"gpu is missing: {url} does not say what card it runs on; give one of "
                f"{', '.join(gpu_names())}"
            )
    return fields


def _join(runtime: Runtime, fields: dict[str, Any]) -> BackendState:
    try:
        entry = BackendEntry.model_validate(fields)
    except ValidationError as error:
        raise ConfigError(explain(error)) from error
    taken = {backend.spec.name for backend in runtime.engine.dispatcher.state.backends}
    spec: BackendSpec = new_spec(entry, taken, runtime.config.hardware)
    assert runtime.roster is not None
    joined = runtime.roster.add(spec)
    runtime.engine.guards[spec.name] = addresses.guard(runtime.config.admin)
    return joined
