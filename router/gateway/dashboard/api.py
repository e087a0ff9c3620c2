"""The page, its assets and its stream of events."""

from __future__ import annotations

from importlib.resources import files
from typing import Any

from fastapi import APIRouter, Request
from fastapi.responses import Response, StreamingResponse

from router.gateway.dashboard.feed import Feed
from router.gateway.dashboard.whatif import Ask, WhatIf
from router.gateway.problems import Problem, ProblemError

ASSETS = {
    "app.js": "text/javascript",
    "charts.js": "text/javascript",
    "explain.js": "text/javascript",
    "format.js": "text/javascript",
    "panels.js": "text/javascript",
    "stream.js": "text/javascript",
    "whatif.js": "text/javascript",
    "style.css": "text/css",
    "icon.svg": "image/svg+xml",
    "vendor/htm-preact.js": "text/javascript",
    "vendor/uplot.js": "text/javascript",
    "vendor/uplot.css": "text/css",
    "vendor/LICENSES.txt": "text/plain",
}
"""What may be asked for: a list, so that no path can lead elsewhere."""

_HARDENED = {
    "cache-control": "no-cache",
    "content-security-policy": (
        "default-src 'none'; script-src 'self'; style-src 'self' 'unsafe-inline'; "
        "img-src 'self' data:; connect-src 'self'; base-uri 'none'; form-action 'none'; "
        "frame-ancestors 'none'"
    ),
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
}

page_api = APIRouter(tags=["dashboard"])
"""Holds nothing secret: the page itself and its assets."""

live_api = APIRouter(tags=["dashboard"])
"""The fleet's state; guarded like every other operation."""


def _file(name: str, media_type: str) -> Response:
    content = (files(__package__) / "static" / name).read_bytes()
    return Response(content, media_type=media_type, headers=_HARDENED)


@page_api.get("/", include_in_schema=False)
@page_api.head("/", include_in_schema=False)
async def page() -> Response:
    """The live fleet page."""
    return _file("index.html", "text/html")


@page_api.get("/dashboard/assets/{name:path}", include_in_schema=False)
async def asset(name: str) -> Response:
    """One file of the page."""
    if name not in ASSETS:
        raise ProblemError(Problem(404, f"There is no asset {name!r}.", code="not_found"))
    return _file(name, ASSETS[name])


@live_api.get("/dashboard/state", response_class=Response)
async def state(request: Request) -> Response:
    """The newest snapshot of gateway and fleet; see ``dashboard/views.py`` for its fields."""
    return Response(_feed(request).now(), media_type="application/json")


@live_api.get("/dashboard/stream", response_class=StreamingResponse)
async def stream(request: Request) -> StreamingResponse:
    """Server-sent events: ``hello`` (snapshot and ten minutes of history), then ``tick``."""
    feed = _feed(request)
    if feed.full:
        message = "Too many pages are open on this gateway; close one and reload."
        raise ProblemError(Problem(503, message, code="too_many_pages", retry_after_s=5))
    headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
    return StreamingResponse(feed.stream(), media_type="text/event-stream", headers=headers)


def _feed(request: Request) -> Feed:
    state: Any = request.app.state
    feed: Feed = state.feed
    return feed


@live_api.get("/dashboard/whatif")
async def whatif_report(request: Request) -> dict[str, Any]:
    """How far the newest study is, or what came out."""
    return _whatif(request).described()


@live_api.post("/dashboard/whatif", status_code=202)
async def whatif_start(request: Request, ask: Ask) -> dict[str, Any]:
    """Replay the recorded traffic on another fleet; see ``motley whatif``."""
    _whatif(request).start(ask)
    return _whatif(request).described()


@live_api.delete("/dashboard/whatif")
async def whatif_cancel(request: Request) -> dict[str, Any]:
    """Stop the study that runs."""
    _whatif(request).cancel()
    return _whatif(request).described()


def _whatif(request: Request) -> WhatIf:
    state: Any = request.app.state
    whatif: WhatIf = state.whatif
    return whatif
