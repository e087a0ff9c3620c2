"""Prompts computed by one emulated engine for another, by the engines' own protocols.

vLLM: a request with ``kv_transfer_params.do_remote_decode`` keeps its KV and its answer says where;
one with ``do_remote_prefill`` fetches it there and computes one token of the prompt. If the KV is
gone, the prompt is computed after all (vLLM's ``kv_load_failure_policy: recompute``).

SGLang: an engine started for one half takes only requests with a ``bootstrap_room``. Its prefill
side opens the room when the prompt is computed; its decode side waits for that, and answers 500 if
the prefill side cannot be reached (as after a crash).

Real engines move KV over RDMA after a handshake of their own; here the handshake is one HTTP GET
to the engine that has the KV, and the move is the time that it takes.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from itertools import count
from typing import Any

from msgspec import json

from router.domain.fleet import BackendSpec
from simulator.engine_server.asgi import Page
from simulator.engine_server.asks import Ask
from simulator.engine_server.refusal import Refusal

ROOM_S = 30.0
"""A decode side waits this long for its prompt (SGLang's ``BOOTSTRAP_TIMEOUT`` is 300)."""
_LOST = "KV transfer failed: the prefill instance cannot be reached."
_NO_ROOM = "Disaggregated request received without bootstrap room id."


class Handover:
    """One engine's part in requests that two engines share.

    Args:
        spec: the engine; its ``role`` matters to SGLang.
        token_s: real seconds that moving one token's KV takes.
        address: where this engine listens: host and port.
    """

    def __init__(self, spec: BackendSpec, token_s: float, address: tuple[str, int]) -> None:
        self._spec, self._token_s, self._address = spec, token_s, address
        self._names = count(1)
        self._kept: dict[str, int] = {}
        self._rooms: dict[str, asyncio.Future[int]] = {}
        self.received = self.recomputed = 0

    def prompt_only(self, ask: Ask) -> bool:
        """Whether all that is wanted of this engine is the prompt."""
        return self._spec.engine == "sglang" and self._spec.role == "prefill" and ask.room != ""

    async def receive(self, ask: Ask) -> bool:
        """Wait for the KV of the prompt, if another engine computes it; whether it came.

        Raises:
            Refusal: it will never come, or the request is none for this engine.
        """
        if self._spec.engine == "vllm":
            return await self._fetch(ask)
        if self._spec.role == "both":
            return False
        if not ask.room:
            raise Refusal(400, _NO_ROOM, "BadRequestError")
        if self._spec.role == "prefill":
            return False
        host, port = ask.bootstrap
        tokens = await _ask(host.strip("[]"), port, f"/emulated/rooms/{ask.room}", ROOM_S)
        if tokens is None:
            raise Refusal(500, _LOST, "InternalServerError")
        await self._move(tokens)
        return True

    def computed(self, ask: Ask) -> dict[str, Any] | None:
        """The prompt is computed: keep it for whom it may concern; what vLLM says of it."""
        tokens = ask.prompt_tokens
        if self._spec.engine == "sglang":
            if self._spec.role == "prefill" and ask.room:
                room = self._room(ask.room)
                if not room.done():
                    room.set_result(tokens)
            return None
        if not (ask.kv_transfer_params or {}).get("do_remote_decode"):
            return None
        name = f"{self._spec.name}-{next(self._names)}"
        self._kept[name] = tokens
        host, port = self._address
        return {
            "do_remote_prefill": True,
            "do_remote_decode": False,
            "remote_block_ids": list(range(-(-tokens // 16))),
            "remote_engine_id": self._spec.name,
            "remote_request_id": name,
            "remote_host": host,
            "remote_port": port,
            "tp_size": self._spec.tensor_parallel,
        }

    def pages(self) -> dict[str, Callable[[str], Awaitable[Page]]]:
        """Where others ask for what is kept here, by path prefix; the rest of the path is given."""
        return {"/emulated/kv/": self._kv_page, "/emulated/rooms/": self._room_page}

    async def _fetch(self, ask: Ask) -> bool:
        wanted = ask.kv_transfer_params or {}
        if not wanted.get("do_remote_prefill"):
            return False
        name = wanted.get("remote_request_id", "")
        host, port = str(wanted.get("remote_host")), int(wanted.get("remote_port") or 0)
        tokens = await _ask(host, port, f"/emulated/kv/{name}", 5.0)
        if tokens is None:
            self.recomputed += 1
            return False
        await self._move(tokens)
        return True

    async def _move(self, tokens: int) -> None:
        await asyncio.sleep(tokens * self._token_s)
        self.received += 1

    def _room(self, name: str) -> asyncio.Future[int]:
        room = self._rooms.get(name)
        if room is None:
            room = self._rooms[name] = asyncio.get_running_loop().create_future()
        return room

    async def _kv_page(self, name: str) -> Page:
        tokens = self._kept.pop(name, None)
        return Page(json.encode(tokens)) if tokens is not None else Page(b"null", 404)

    async def _room_page(self, name: str) -> Page:
        try:
            async with asyncio.timeout(ROOM_S):
                tokens = await asyncio.shield(self._room(name))
        except TimeoutError:
            return Page(b"null", 404)
        self._rooms.pop(name, None)
        return Page(json.encode(tokens))


async def _ask(host: str, port: int, path: str, timeout_s: float) -> int | None:
    """One GET; ``None`` if there is nobody, or nothing."""
    try:
        async with asyncio.timeout(timeout_s):
            reader, writer = await asyncio.open_connection(host, port)
            try:
                head = f"GET {path} HTTP/1.1\r\nhost: {host}\r\nconnection: close\r\n\r\n"
                writer.write(head.encode())
                answer = await reader.read()
            finally:
                writer.close()
    except (OSError, TimeoutError):
        return None
    head_bytes, _, body = answer.partition(b"\r\n\r\n")
    return int(body) if b" 200 " in head_bytes.partition(b"\r\n")[0] else None
