"""Paths that only vLLM has."""

from __future__ import annotations

from msgspec import json

from simulator.engine_server.app import EngineApp
from simulator.engine_server.asgi import Page


def add_vllm_pages(app: EngineApp) -> None:
    """Add vLLM's own paths to ``app``."""

    async def health(_: bytes) -> Page:
        # 200 while the API process lives: a stalled worker does not show here.
        return Page()

    async def load(_: bytes) -> Page:
        return Page(json.encode({"server_load": app.driver.in_engine}))

    async def version(_: bytes) -> Page:
        return Page(json.encode({"version": app.dialect.version}))

    async def is_sleeping(_: bytes) -> Page:
        return Page(json.encode({"is_sleeping": False}))

    for path, handler in {
        "/health": health,
        "/load": load,
        "/version": version,
        "/is_sleeping": is_sleeping,
    }.items():
        app.routes[path] = {"GET": handler}
