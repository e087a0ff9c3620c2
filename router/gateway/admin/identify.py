"""Ask an engine what it is, so that a worker can be registered by its URL alone.

Both engines list their model; SGLang also tells its card. What an engine does not tell must be
given, and the error says so.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import msgspec

from router.domain.errors import ConfigError
from router.domain.fleet import ENGINES
from router.gateway.upstream import parse_address
from router.perf.gpu_names import gpu_of
from telemetry.http_get import Fetcher, FetchError
from telemetry.sglang_loads import read_loads

TIMEOUT_S = 5.0
MAX_BYTES = 1 << 20


@dataclass(frozen=True, slots=True)
class Identity:
    """What an engine says of itself; empty where it does not.

    Attributes:
        engine, model, gpu: catalogue names.
        max_model_len: context in tokens.
    """

    engine: str = ""
    model: str = ""
    gpu: str = ""
    max_model_len: int | None = None

    def fields(self) -> dict[str, Any]:
        """What is known, as fields of a ``backends`` entry."""
        told = {"engine": self.engine, "model": self.model, "gpu": self.gpu}
        known: dict[str, Any] = {name: value for name, value in told.items() if value}
        if self.max_model_len:
            known["max_model_len"] = self.max_model_len
        return known


async def identify(url: str, fetcher: Fetcher, gpus: list[str]) -> Identity:
    """Ask the engine at ``url``.

    Args:
        url: its base URL.
        fetcher: for the GETs.
        gpus: names in the catalogue.

    Raises:
        ConfigError: it cannot be reached, or lists no model.
    """
    address = parse_address(url, url)
    try:
        body = await fetcher.get(
            address.url("/v1/models"), timeout_s=TIMEOUT_S, max_bytes=MAX_BYTES
        )
    except FetchError as error:
        raise ConfigError(
            f"{url} does not say what it serves (GET /v1/models: {error}); "
            "give model, engine and gpu"
        ) from error
    first = _first_model(body, url)
    engine = str(first.get("owned_by") or "").lower()
    length = first.get("max_model_len")
    return Identity(
        engine=engine if engine in ENGINES else "",
        model=str(first["id"]),
        gpu=await _card(address.url("/v1/loads"), fetcher, gpus) if engine == "sglang" else "",
        max_model_len=length if isinstance(length, int) and length > 0 else None,
    )


def _first_model(body: bytes, url: str) -> dict[str, Any]:
    try:
        listed = msgspec.json.decode(body)["data"]
        first = listed[0]
        if not isinstance(first["id"], str):
            raise TypeError
    except (
        msgspec.DecodeError,
        UnicodeDecodeError,
        RecursionError,
        LookupError,
        TypeError,
    ) as error:
        raise ConfigError(
            f"{url} lists no model under /v1/models; give model and engine"
        ) from error
    return dict(first)


async def _card(url: str, fetcher: Fetcher, gpus: list[str]) -> str:
    try:
        body = await fetcher.get(url, timeout_s=TIMEOUT_S, max_bytes=MAX_BYTES)
    except FetchError:
        return ""
    return gpu_of(read_loads(body, 0.0).accelerator, gpus) or ""
