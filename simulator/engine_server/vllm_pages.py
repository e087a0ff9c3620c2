"""Paths that only vLLM has."""

from __future__ import annotations

from typing import Any

import msgspec
from msgspec import json

from simulator.engine_server.app import EngineApp
from simulator.engine_server.asgi import Page
from simulator.engine_server.asks import decode
from simulator.engine_server.refusal import Refusal


class LoadBody(msgspec.Struct):
    """Body of ``/v1/load_lora_adapter``."""

    lora_name: str
    lora_path: str


class UnloadBody(msgspec.Struct):
    """Body of ``/v1/unload_lora_adapter``."""

    lora_name: str


def add_vllm_pages(app: EngineApp) -> None:
    """Add vLLM's own paths to ``app``."""

    async def health(_: bytes) -> Page:
        # 200 while the API process lives: a stalled worker does not show here.
        return Page()

    async def load(_: bytes) -> Page:
        return Page(json.encode({"server_load": app.driver.in_engine}))

    async def version(_: bytes) -> Page:
        return Page(json.encode({"version": app.dialect.version}))

    for path, handler in {"/health": health, "/load": load, "/version": version}.items():
        app.routes[path] = {"GET": handler}
    _add_sleep(app)
    _add_adapters(app)


def _add_sleep(app: EngineApp) -> None:
    """What ``VLLM_SERVER_DEV_MODE=1`` and ``--enable-sleep-mode`` add; the level is ignored."""
    served = app.completions

    async def is_sleeping(_: bytes) -> Page:
        return Page(json.encode({"is_sleeping": served.asleep}))

    async def sleep(_: bytes) -> Page:
        served.asleep = True
        return Page()

    async def wake_up(_: bytes) -> Page:
        served.asleep = False
        return Page()

    app.routes["/is_sleeping"] = {"GET": is_sleeping}
    app.routes["/sleep"] = {"POST": sleep}
    app.routes["/wake_up"] = {"POST": wake_up}


def _add_adapters(app: EngineApp) -> None:
    """What ``VLLM_ALLOW_RUNTIME_LORA_UPDATING=1`` and ``--enable-lora`` add."""
    served = app.completions
    plain = app.routes["/v1/models"]["GET"]

    async def models(body: bytes) -> Page:
        listed: dict[str, Any] = json.decode((await plain(body)).body)
        base = listed["data"][0]
        listed["data"] += [
            {**base, "id": name, "root": path, "parent": base["id"]}
            for name, path in served.adapters.items()
        ]
        return Page(json.encode(listed))

    async def load(body: bytes) -> Page:
        asked = decode(body, LoadBody)
        if asked.lora_name in served.adapters:
            message = f"The lora adapter '{asked.lora_name}' has already been loaded."
            raise Refusal(400, message, "InvalidUserInput")
        served.adapters[asked.lora_name] = asked.lora_path
        return _text(f"Success: LoRA adapter '{asked.lora_name}' added successfully.")

    async def unload(body: bytes) -> Page:
        asked = decode(body, UnloadBody)
        if served.adapters.pop(asked.lora_name, None) is None:
            message = f"The lora adapter '{asked.lora_name}' cannot be found."
            raise Refusal(404, message, "NotFoundError")
        return _text(f"Success: LoRA adapter '{asked.lora_name}' removed successfully.")

    app.routes["/v1/models"] = {"GET": models}
    app.routes["/v1/load_lora_adapter"] = {"POST": load}
    app.routes["/v1/unload_lora_adapter"] = {"POST": unload}


def _text(message: str) -> Page:
    return Page(message.encode(), content_type=b"text/plain; charset=utf-8")
