"""``/v1/files`` and ``/v1/batches`` as OpenAI's clients know them."""

from __future__ import annotations

import logging
import re
import sqlite3
from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from fastapi import APIRouter, Depends, Query, Request
from fastapi.responses import Response
from pydantic import BaseModel

from router.gateway.batch.lines import ENDPOINTS
from router.gateway.batch.runner import Runner
from router.gateway.batch.store import Batch, StoredFile, new_id
from router.gateway.door import too_large
from router.gateway.multipart import form_of
from router.gateway.problems import Problem, ProblemError
from router.gateway.wire import BadRequestError

log = logging.getLogger("motley.batch")

_WINDOW = re.compile(r"([1-9][0-9]{0,2})h")
PURPOSES = ("batch", "user_data", "assistants", "fine-tune", "vision", "evals")


def _runner(request: Request) -> Runner:
    runner: Runner | None = request.app.state.runtime.batches
    if runner is None:
        raise ProblemError(
            Problem(501, "Batches are off here. Set batch.directory.", code="batch_off")
        )
    return runner


async def _owner(request: Request) -> str:
    """Whose files and batches are meant; nobody sees another's."""
    caller = request.app.state.runtime.gate.admit(dict(request.scope["headers"]))
    if isinstance(caller, Problem):
        raise ProblemError(caller)
    return "" if caller is None else str(caller.grant.holder)


@dataclass(frozen=True, slots=True)
class _Page:
    limit: int
    after: str | None
    order: str


def _page(
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> _Page:
    """Which part of a list is meant."""
    return _Page(limit, after, order)


Owner = Depends(_owner)
Page = Annotated[_Page, Depends(_page)]
batch_api = APIRouter(tags=["batch"])


@batch_api.post("/v1/files")
async def upload(request: Request, owner: str = Owner) -> dict[str, Any]:
    """Keep a file; a form with the fields ``file`` and ``purpose``."""
    runner = _runner(request)
    limit = request.app.state.runtime.config.server.max_body_bytes
    parts: list[bytes] = []
    size = 0
    async for part in request.stream():
        parts.append(part)
        size += len(part)
        if size > limit:
            raise ProblemError(too_large(limit))
    content_type = request.headers.get("content-type", "").encode("latin-1")
    form = form_of(b"".join(parts), content_type)
    if "file" not in form or "purpose" not in form:
        raise BadRequestError(_bad("The form needs the fields 'file' and 'purpose'.", "file"))
    name, content = form["file"]
    purpose = form["purpose"][1].decode("utf-8", "replace")
    if purpose not in PURPOSES:
        raise BadRequestError(_bad(f"The purpose is one of: {', '.join(PURPOSES)}.", "purpose"))
    now_s = int(runner.unix_s())
    try:
        kept = runner.store.add_file(owner, name or "upload", purpose, content, now_s)
    except (OSError, sqlite3.Error) as error:
        raise _no_room(error) from error
    return _file(kept)


@batch_api.get("/v1/files")
async def files(
    request: Request, page: Page, purpose: str | None = None, owner: str = Owner
) -> dict[str, Any]:
    """The caller's files, the newest first."""
    kept = _runner(request).store.files(owner)
    return _list([_file(one) for one in kept if purpose in (None, one.purpose)], page)


@batch_api.get("/v1/files/{file_id}")
async def file(request: Request, file_id: str, owner: str = Owner) -> dict[str, Any]:
    """One file."""
    return _file(_stored(request, file_id, owner))


@batch_api.delete("/v1/files/{file_id}")
async def remove(request: Request, file_id: str, owner: str = Owner) -> dict[str, Any]:
    """Forget a file; not one that a batch still needs."""
    kept = _stored(request, file_id, owner)
    store = _runner(request).store
    for batch in store.unfinished():
        if file_id in (batch.input_file_id, batch.output_file_id, batch.error_file_id):
            raise ProblemError(Problem(409, f"The batch {batch.id} still needs this file."))
    store.remove_file(kept.id)
    return {"id": kept.id, "object": "file", "deleted": True}


@batch_api.get("/v1/files/{file_id}/content", response_class=Response)
async def content(request: Request, file_id: str, owner: str = Owner) -> Response:
    """What is in a file."""
    kept = _stored(request, file_id, owner)
    body = _runner(request).store.path(kept.id).read_bytes()
    return Response(body, headers={"content-type": "application/octet-stream"})


class NewBatch(BaseModel):
    """Body of ``POST /v1/batches``."""

    input_file_id: str
    endpoint: str
    completion_window: str = "24h"
    metadata: dict[str, str] | None = None


@batch_api.post("/v1/batches")
async def create(request: Request, asked: NewBatch, owner: str = Owner) -> dict[str, Any]:
    """Begin a batch."""
    runner = _runner(request)
    if asked.endpoint not in ENDPOINTS:
        raise BadRequestError(_bad(f"The endpoint is one of: {', '.join(ENDPOINTS)}.", "endpoint"))
    window = _WINDOW.fullmatch(asked.completion_window)
    if window is None:
        message = "The completion_window is a number of hours, such as '24h'."
        raise BadRequestError(_bad(message, "completion_window"))
    source = _stored(request, asked.input_file_id, owner)
    now_s = int(runner.unix_s())
    batch = Batch(
        id=new_id("batch"),
        owner=owner,
        endpoint=asked.endpoint,
        input_file_id=source.id,
        window=asked.completion_window,
        created_unix_s=now_s,
        expires_unix_s=now_s + 3600 * int(window[1]),
        metadata=msgspec.json.encode(asked.metadata).decode(),
        by_token=runner.gate.by_token(dict(request.scope["headers"])),
    )
    try:
        runner.store.save(batch)
    except sqlite3.Error as error:
        raise _no_room(error) from error
    runner.wake()
    return _batch(batch)


def _no_room(error: Exception) -> ProblemError:
    """Nothing was kept, and the caller can do nothing about it."""
    log.error("batch.directory: %s", error)
    message = "The gateway cannot store this now. Try again later, or tell its operator."
    return ProblemError(Problem(507, message, code="disk_full"))


@batch_api.get("/v1/batches")
async def batches(request: Request, page: Page, owner: str = Owner) -> dict[str, Any]:
    """The caller's batches, the newest first."""
    runner = _runner(request)
    return _list([_batch(runner.live.get(b.id, b)) for b in runner.store.batches(owner)], page)


@batch_api.get("/v1/batches/{batch_id}")
async def batch(request: Request, batch_id: str, owner: str = Owner) -> dict[str, Any]:
    """How far a batch has come."""
    return _batch(_kept(request, batch_id, owner))


@batch_api.post("/v1/batches/{batch_id}/cancel")
async def cancel(request: Request, batch_id: str, owner: str = Owner) -> dict[str, Any]:
    """Send nothing more of a batch; what is under way is still answered."""
    runner = _runner(request)
    try:
        kept = runner.store.cancel(batch_id, owner)
    except KeyError:
        raise ProblemError(_missing("batch", batch_id)) from None
    except sqlite3.Error as error:
        raise _no_room(error) from error
    live = runner.live.get(batch_id)
    if live is not None and kept.status == "cancelling":
        live.status = kept.status
    return _batch(live or kept)


def _stored(request: Request, file_id: str, owner: str) -> StoredFile:
    try:
        return _runner(request).store.file(file_id, owner)
    except KeyError:
        raise ProblemError(_missing("file", file_id)) from None


def _kept(request: Request, batch_id: str, owner: str) -> Batch:
    runner = _runner(request)
    try:
        kept = runner.store.batch(batch_id, owner)
    except KeyError:
        raise ProblemError(_missing("batch", batch_id)) from None
    return runner.live.get(batch_id, kept)


def _missing(kind: str, name: str) -> Problem:
    return Problem(404, f"There is no {kind} {name!r}.", code=f"{kind}_not_found")


def _bad(message: str, param: str) -> Problem:
    return Problem(400, message, code="invalid_request", param=param)


def _list(data: list[dict[str, Any]], page: _Page) -> dict[str, Any]:
    if page.order == "asc":
        data.reverse()
    if page.after is not None:
        ids = [one["id"] for one in data]
        if page.after not in ids:
            raise BadRequestError(_bad(f"after: there is no {page.after!r} in this list.", "after"))
        data = data[ids.index(page.after) + 1 :]
    shown = data[: page.limit]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {}
    return {"object": "list", "data": shown, "has_more": len(shown) < len(data), **ends}


def _file(kept: StoredFile) -> dict[str, Any]:
    return {
        "id": kept.id,
        "object": "file",
        "bytes": kept.size_bytes,
        "created_at": kept.created_unix_s,
        "filename": kept.filename,
        "purpose": kept.purpose,
        "status": "processed",
    }


def _batch(kept: Batch) -> dict[str, Any]:
    errors = msgspec.json.decode(kept.errors)
    ended = {f"{kept.status}_at": kept.ended_unix_s} if kept.ended_unix_s else {}
    return {
        "id": kept.id,
        "object": "batch",
        "endpoint": kept.endpoint,
        "input_file_id": kept.input_file_id,
        "completion_window": kept.window,
        "status": kept.status,
        "output_file_id": kept.output_file_id or None,
        "error_file_id": kept.error_file_id or None,
        "created_at": kept.created_unix_s,
        "expires_at": kept.expires_unix_s,
        "request_counts": {
            "total": kept.total,
            "completed": kept.completed,
            "failed": kept.failed,
        },
        "metadata": msgspec.json.decode(kept.metadata),
        "errors": {"object": "list", "data": errors} if errors else None,
        **ended,
    }
