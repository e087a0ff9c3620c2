"""The only builder of the gateway: from a configuration to an ASGI application."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from fastapi import FastAPI, Request
from fastapi.responses import Response

from router.config.load import MotleyConfig
from router.domain.protocols import Clock
from router.gateway import error_shape
from router.gateway.admin.door import include_admin
from router.gateway.asgi import Receive, Relay, Scope, Send
from router.gateway.batch.api import batch_api
from router.gateway.clock import MonotonicClock
from router.gateway.door import HOT_PATHS, Door
from router.gateway.operating import attach
from router.gateway.ops_api import guarded_api, open_api
from router.gateway.reload import Loader
from router.gateway.runtime import Runtime
from router.gateway.shared.board import Board
from router.gateway.wiring import build_runtime


def build_app(
    config: MotleyConfig,
    *,
    clock: Clock | None = None,
    load: Loader | None = None,
    board: Board | None = None,
) -> Relay:
    """Put a gateway together.

    Args:
        config: as loaded from the YAML file.
        clock: the gateway's only clock; the monotonic one unless a test says otherwise.
        load: reads the configuration again, for a reload.
        board: shared with other replicas; by default Redis if the configuration names one.

    Raises:
        ConfigError: a backend without a usable URL, or a decision log that cannot be written.
    """
    runtime = build_runtime(config, clock or MonotonicClock())
    attach(runtime, load, board)
    door = Door(runtime.gate, config.server.max_body_bytes)
    api = _build_api(runtime)
    on_stop = runtime.feed.close if runtime.feed is not None else lambda: None
    relay = api.state.relay = Relay(runtime.engine, door, api, on_stop)
    relay.on_drain = runtime.begin_draining
    return relay


def _build_api(runtime: Runtime) -> FastAPI:
    @asynccontextmanager
    async def lifespan(api: FastAPI) -> AsyncIterator[None]:
        async with runtime.running():
            yield
            whatif = getattr(api.state, "whatif", None)
            if whatif is not None:  # else the admin's own port has it
                await whatif.close()

    api = FastAPI(
        title="Motley",
        summary="One OpenAI-compatible door to a mixed GPU fleet.",
        redirect_slashes=False,  # see ``error_shape``
    )
    api.router.lifespan_context = lifespan
    api.state.runtime = runtime
    api.include_router(open_api)
    api.include_router(guarded_api)
    api.include_router(batch_api)
    if runtime.config.admin.port is None:
        include_admin(api, runtime)
    for path in map(bytes.decode, HOT_PATHS):
        api.add_api_route(
            path,
            _relayed,
            methods=["POST"],
            response_class=Response,
            name=path.removeprefix("/v1/").replace("/", "_"),
            tags=["inference"],
            openapi_extra=_REQUEST_BODY,
        )
    error_shape.install(api)
    return api


class _RelayResponse(Response):
    """Hands the connection to the relay; the body has not been read."""

    def __init__(self, relay: Relay) -> None:
        self._relay = relay
        self.background = None

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one ASGI connection."""
        await self._relay(scope, receive, send)


async def _relayed(request: Request) -> Response:
    """Relayed to the backend that the policy chooses.

    In service the relay takes these paths before FastAPI sees them; this route documents them
    and answers other methods with 405.
    """
    return _RelayResponse(request.app.state.relay)


_REQUEST_BODY: dict[str, Any] = {
    "requestBody": {
        "required": True,
        "content": {
            "application/json": {
                "schema": {
                    "type": "object",
                    "required": ["model"],
                    "properties": {
                        "model": {"type": "string"},
                        "stream": {"type": "boolean"},
                        "max_tokens": {"type": "integer"},
                    },
                    "additionalProperties": True,
                }
            }
        },
    }
}
