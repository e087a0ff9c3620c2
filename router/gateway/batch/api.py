"""``/v1/files`` and ``/v1/batches`` as OpenAI's clients know them."""

from __future__ import annotations

import logging
import re
import sqlite3
from collections.abc import Iterator
from typing import Any, BinaryIO

import msgspec
from fastapi import APIRouter, Depends, Request
from fastapi.responses import Response, StreamingResponse
from pydantic import BaseModel

from router.gateway.batch.lines import ENDPOINTS
from router.gateway.batch.runner import Runner
from router.gateway.batch.shapes import Page, bad, batch_told, file_told, listed
from router.gateway.batch.store import Batch, StoredFile, new_id
from router.gateway.door import too_large
from router.gateway.multipart import form_of
from router.gateway.problems import Problem, ProblemError
from router.gateway.wire import BadRequestError

log = logging.getLogger("motley.batch")

_WINDOW = re.compile(r"([1-9][0-9]{0,2})h")
PIECE_BYTES = 262_144
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


Owner = Depends(_owner)
batch_api = APIRouter(tags=["batch"])


@batch_api.post("/v1/files")
async def upload(request: Request, owner: str = Owner) -> dict[str, Any]:
    """Keep a file; a form with the fields ``file`` and ``purpose``."""
    runner = _runner(request)
    _within(runner.quota.no_more(runner.store, owner, files=1))
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
        raise BadRequestError(bad("The form needs the fields 'file' and 'purpose'.", "file"))
    name, content = form["file"]
    purpose = form["purpose"][1].decode("utf-8", "replace")
    if purpose not in PURPOSES:
        raise BadRequestError(bad(f"The purpose is one of: {', '.join(PURPOSES)}.", "purpose"))
    _within(runner.quota.no_more(runner.store, owner, files=1, more_bytes=len(content)))
    now_s = int(runner.unix_s())
    try:
        kept = runner.store.add_file(owner, name or "upload", purpose, content, now_s)
    except (OSError, sqlite3.Error) as error:
        raise _no_room(error) from error
    return file_told(kept)


@batch_api.get("/v1/files")
async def files(
    request: Request, page: Page, purpose: str | None = None, owner: str = Owner
) -> dict[str, Any]:
    """The caller's files, the newest first."""
    kept = _runner(request).store.files(owner)
    return listed([file_told(one) for one in kept if purpose in (None, one.purpose)], page)


@batch_api.get("/v1/files/{file_id}")
async def file(request: Request, file_id: str, owner: str = Owner) -> dict[str, Any]:
    """One file."""
    return file_told(_stored(request, file_id, owner))


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
    path = _runner(request).store.path(kept.id)
    try:
        size_bytes = path.stat().st_size
        pieces = _pieces(path.open("rb"), size_bytes)
    except OSError as error:
        log.error("batch.directory: %s", error)
        message = f"The content of the file {file_id!r} cannot be read. Tell the operator."
        raise ProblemError(Problem(500, message, code="storage_failed")) from error
    headers = {"content-type": "application/octet-stream", "content-length": str(size_bytes)}
    return StreamingResponse(pieces, headers=headers)


def _pieces(file: BinaryIO, size_bytes: int) -> Iterator[bytes]:
    """It may be long, and a batch may still be adding to it."""
    with file:
        while size_bytes > 0 and (piece := file.read(min(size_bytes, PIECE_BYTES))):
            size_bytes -= len(piece)
            yield piece


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
        raise BadRequestError(bad(f"The endpoint is one of: {', '.join(ENDPOINTS)}.", "endpoint"))
    window = _WINDOW.fullmatch(asked.completion_window)
    if window is None:
        message = "The completion_window is a number of hours, such as '24h'."
        raise BadRequestError(bad(message, "completion_window"))
    if not _is_small(asked.metadata or {}):
        message = "metadata: at most 16 pairs, names of 64 characters and values of 512."
        raise BadRequestError(bad(message, "metadata"))
    source = _stored(request, asked.input_file_id, owner)
    _within(runner.quota.no_more_batches(runner.store, owner))
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
        runner.store.forget_batches(owner, but=runner.quota.most_files - 1)
        runner.store.save(batch)  # last: who is told of no room is to have begun nothing
    except sqlite3.Error as error:
        raise _no_room(error) from error
    runner.wake()
    return batch_told(batch)


def _is_small(metadata: dict[str, str]) -> bool:
    """As OpenAI limits it: it is kept for long."""
    return len(metadata) <= 16 and all(
        len(name) <= 64 and len(value) <= 512 for name, value in metadata.items()
    )


def _within(problem: Problem | None) -> None:
    """Go on, unless there is a problem."""
    if problem is not None:
        raise ProblemError(problem)


def _no_room(error: Exception) -> ProblemError:
    """Nothing was kept, and the caller can do nothing about it."""
    log.error("batch.directory: %s", error)
    message = "The gateway cannot store this now. Try again later, or tell its operator."
    return ProblemError(Problem(507, message, code="disk_full"))


@batch_api.get("/v1/batches")
async def batches(request: Request, page: Page, owner: str = Owner) -> dict[str, Any]:
    """The caller's batches, the newest first."""
    runner = _runner(request)
    return listed([batch_told(runner.live.get(b.id, b)) for b in runner.store.batches(owner)], page)


@batch_api.get("/v1/batches/{batch_id}")
async def batch(request: Request, batch_id: str, owner: str = Owner) -> dict[str, Any]:
    """How far a batch has come."""
    return batch_told(_kept(request, batch_id, owner))


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
    return batch_told(live or kept)


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
