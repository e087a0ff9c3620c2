"""Paths that only SGLang has."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime

import msgspec

from simulator.engine_server.app import EngineApp
from simulator.engine_server.asgi import Page
from simulator.engine_server.asks import decode
from simulator.engine_server.faults import Faults
from simulator.engine_server.refusal import InvalidBody
from simulator.engine_server.sglang_metrics import hit_rate, used_tokens, utilization

HEALTH_S = 1.0
"""``/health`` runs a generation of one token: 1.0 s on the live engine, idle or busy."""
HEALTH_TIMEOUT_S = 20.0
"""``SGLANG_HEALTH_CHECK_TIMEOUT``: a stalled scheduler answers 503 after so long."""


class SlowDown(msgspec.Struct):
    """Body of ``/slow_down``: seconds to sleep in every forward pass; null for none."""

    forward_sleep_time: float | None


def add_sglang_pages(app: EngineApp, step_s: float, unix_s: Callable[[], float]) -> None:
    """Add SGLang's own paths to ``app``.

    Args:
        app: the engine.
        step_s: a decode step of one sequence. ``/slow_down`` sleeps a fixed time in every
            step; here every step takes as many times as long as this one would.
        unix_s: wall clock.
    """
    pages = _SglangPages(app, step_s, unix_s)
    for method, paths in {
        pages.health: ("/health", "/health_generate"),
        pages.ready: ("/ready",),
        pages.loads: ("/v1/loads",),
        pages.server_info: ("/get_server_info", "/server_info"),
        pages.model_info: ("/get_model_info", "/model_info"),
    }.items():
        app.routes |= {path: {"GET": method} for path in paths}
    app.routes["/slow_down"] = {"POST": pages.slow_down}
    app.routes["/pause_generation"] = {"POST": pages.pause}
    app.routes["/continue_generation"] = {"POST": pages.resume}
    for path in ("/tokenize", "/detokenize"):
        app.routes[f"/v1{path}"] = app.routes[path]


class _SglangPages:
    def __init__(self, app: EngineApp, step_s: float, unix_s: Callable[[], float]) -> None:
        self._app, self._step_s, self._unix_s = app, step_s, unix_s

    @property
    def _stalled(self) -> bool:
        return self._app.driver.clock.paused

    async def health(self, _: bytes) -> Page:
        wait_s = HEALTH_TIMEOUT_S if self._stalled else HEALTH_S
        await asyncio.sleep(wait_s / self._app.driver.clock.speed)
        return await self.ready(b"")

    async def ready(self, _: bytes) -> Page:
        return Page(status=503 if self._stalled else 200)

    async def loads(self, _: bytes) -> Page:
        return Page(msgspec.json.encode(_loads(self._app, self._unix_s())))

    async def server_info(self, _: bytes) -> Page:
        return Page(msgspec.json.encode(_server_info(self._app)))

    async def model_info(self, _: bytes) -> Page:
        model = self._app.limits.model
        named = {"model_path": model, "served_model_name": model, "is_generation": True}
        return Page(msgspec.json.encode(named))

    async def slow_down(self, body: bytes) -> Page:
        sleep_s = decode(body, SlowDown).forward_sleep_time or 0.0
        if not 0 <= sleep_s < float("inf"):
            raise InvalidBody("must not be negative", "body.forward_sleep_time")
        self._app.set_faults(Faults(slow_factor=(self._step_s + sleep_s) / self._step_s))
        return Page()

    async def pause(self, _: bytes) -> Page:
        self._app.driver.hang()
        return Page(b'{"message":"Generation paused successfully.","status":"ok"}')

    async def resume(self, _: bytes) -> Page:
        self._app.driver.resume()
        return Page(b'{"message":"Generation continued successfully.","status":"ok"}')


def _loads(app: EngineApp, now_unix_s: float) -> dict[str, object]:
    signals, facts, stats = app.driver.signals(), app.facts, app.driver.stats
    used, waiting = used_tokens(facts, signals), signals.waiting or 0
    rank = {
        "timestamp": now_unix_s,
        "dp_rank": 0,
        "num_running_reqs": signals.running or 0,
        "num_waiting_reqs": waiting,
        "num_used_tokens": used,
        "num_total_tokens": used,
        "max_total_num_tokens": facts.kv_capacity_tokens,
        "max_running_requests": facts.max_running,
        "token_usage": signals.kv_usage or 0.0,
        "cache_hit_rate": hit_rate(stats),
        "utilization": utilization(facts, signals),
        "queues": {"waiting": waiting, "grammar": 0, "paused": 0, "retracted": 0},
    }
    return {
        "timestamp": datetime.fromtimestamp(now_unix_s, UTC).isoformat(),
        "version": app.dialect.version,
        "accelerator": None,
        "num_accelerators": facts.tensor_parallel,
        "loads": [rank],
    }


def _server_info(app: EngineApp) -> dict[str, object]:
    facts = app.facts
    return {
        "model_path": facts.model,
        "served_model_name": facts.model,
        "context_length": facts.max_model_len,
        "max_running_requests": facts.max_running,
        "tp_size": facts.tensor_parallel,
        "dp_size": 1,
        "max_total_num_tokens": facts.kv_capacity_tokens,
        "status": "ready",
        "version": app.dialect.version,
    }
