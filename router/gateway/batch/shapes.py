"""Files and batches in OpenAI's shapes, and lists of them in pages."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Any, Literal

import msgspec
from fastapi import Depends, Query

from router.gateway.batch.store import Batch, StoredFile
from router.gateway.problems import Problem
from router.gateway.wire import BadRequestError


@dataclass(frozen=True, slots=True)
class PageOf:
    """Which part of a list is meant."""

    limit: int
    after: str | None
    order: str


def _page(
    limit: Annotated[int, Query(ge=1, le=10_000)] = 10_000,
    after: str | None = None,
    order: Literal["asc", "desc"] = "desc",
) -> PageOf:
    """Which part of a list is meant."""
    return PageOf(limit, after, order)


Page = Annotated[PageOf, Depends(_page)]


def bad(message: str, param: str) -> Problem:
    """The answer to a request that cannot be meant."""
    return Problem(400, message, code="invalid_request", param=param)


def listed(data: list[dict[str, Any]], page: PageOf) -> dict[str, Any]:
    """A list, or one page of it.

    Raises:
        BadRequestError: it is to begin after something that is not in it.
    """
    if page.order == "asc":
        data.reverse()
    if page.after is not None:
        ids = [one["id"] for one in data]
        if page.after not in ids:
            raise BadRequestError(bad(f"after: there is no {page.after!r} in this list.", "after"))
        data = data[ids.index(page.after) + 1 :]
    shown = data[: page.limit]
    ends = {"first_id": shown[0]["id"], "last_id": shown[-1]["id"]} if shown else {}
    return {"object": "list", "data": shown, "has_more": len(shown) < len(data), **ends}


def file_told(kept: StoredFile) -> dict[str, Any]:
    """One file."""
    return {
        "id": kept.id,
        "object": "file",
        "bytes": kept.size_bytes,
        "created_at": kept.created_unix_s,
        "filename": kept.filename,
        "purpose": kept.purpose,
        "status": "processed",
    }


def batch_told(kept: Batch) -> dict[str, Any]:
    """One batch."""
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
