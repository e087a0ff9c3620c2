"""The admin surface on a port of its own: a second web server in the same process."""

from __future__ import annotations

import asyncio
import contextlib
import socket
from collections.abc import Iterator

import uvicorn
from fastapi import Depends, FastAPI

from router.gateway import error_shape
from router.gateway.admin.access import onlooker
from router.gateway.admin.debug_api import debug_api
from router.gateway.admin.workers_api import workers_api
from router.gateway.asgi import Receive, Scope, Send
from router.gateway.body_limit import MOST_BYTES, bounded
from router.gateway.dashboard.api import live_api, page_api
from router.gateway.dashboard.whatif import WhatIf
from router.gateway.ops_api import open_api
from router.gateway.runtime import Runtime
from router.gateway.strict_http import StrictHttp


def build_admin_app(runtime: Runtime) -> FastAPI:
    """Everything that is for operators, and nothing that is for clients."""
    app = FastAPI(
        title="Motley admin",
        summary="Workers, reload, debugging, metrics.",
        redirect_slashes=False,  # see ``error_shape``
    )
    app.state.runtime = runtime
    app.include_router(open_api)
    include_admin(app, runtime)
    error_shape.install(app)
    return app


def include_admin(app: FastAPI, runtime: Runtime) -> None:
    """Add the admin paths to an application."""
    app.include_router(workers_api)
    app.include_router(debug_api)
    if runtime.feed is not None:
        app.state.feed = runtime.feed
        app.state.whatif = WhatIf(runtime)
        app.include_router(page_api)
        app.include_router(live_api, dependencies=[Depends(onlooker)])


class _SideServer(uvicorn.Server):
    """Leaves the signals to the server in front."""

    @contextlib.contextmanager
    def capture_signals(self) -> Iterator[None]:
        """Capture none."""
        yield


async def serve_admin(app: FastAPI, listener: socket.socket) -> None:
    """Serve until cancelled."""

    async def strict(scope: Scope, receive: Receive, send: Send) -> None:
        await app(scope, bounded(scope, receive, MOST_BYTES), send)

    server = _SideServer(
        uvicorn.Config(
            strict,
            http=StrictHttp,
            ws="none",
            lifespan="off",
            access_log=False,
            server_header=False,
            proxy_headers=False,
            log_config=None,
            timeout_graceful_shutdown=1,
        )
    )
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        await asyncio.shield(task)
    finally:
        server.should_exit = True
        await task
