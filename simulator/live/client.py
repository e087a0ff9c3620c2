"""Asks one engine for completions of exactly known size."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import httpx
import msgspec

from router.domain.errors import ConfigError
from simulator.live.stream import Answer, AnswerError, StreamReader

Clock = Callable[[], float]
Watch = Callable[[Answer], object]
"""Told of an answer whenever more of it has come."""

_SHOWN_CHARACTERS = 300


class EngineClient:
    """One engine behind HTTP.

    Prompts are lists of token ids, which vLLM and SGLang take on ``/v1/completions``: their length
    is exact, and no tokenizer is in the way. ``ignore_eos`` makes the answers' lengths exact too.

    Args:
        http: with the engine's URL as its base; the caller closes it.
        clock: seconds on a monotonic axis.
    """

    def __init__(self, http: httpx.AsyncClient, clock: Clock) -> None:
        self._http = http
        self.clock = clock
        self.model = ""

    @property
    def url(self) -> str:
        """Where the engine is."""
        return str(self._http.base_url).rstrip("/")

    async def complete(
        self, prompt: Sequence[int], output_tokens: int, watch: Watch | None = None
    ) -> Answer:
        """Stream one completion of exactly ``output_tokens`` tokens.

        Raises:
            AnswerError: the engine refused, failed, or cut the stream.
        """
        reader = StreamReader(self.clock())
        try:
            async with self._http.stream(
                "POST",
                "/v1/completions",
                content=self._body(prompt, output_tokens),
                headers={"content-type": "application/json"},
            ) as response:
                if response.status_code != 200:
                    said = _refusal(response, await response.aread())
                    raise AnswerError(f"status_{response.status_code}", said)
                async for piece in response.aiter_bytes():
                    reader.feed(piece, self.clock())
                    if watch is not None:
                        watch(reader.answer)
        except httpx.TimeoutException:
            raise AnswerError("timeout", f"{self.url} did not answer in time") from None
        except httpx.HTTPError as error:
            raise AnswerError("connection", f"{self.url}: {_why(error)}") from None
        return reader.finish()

    def _body(self, prompt: Sequence[int], output_tokens: int) -> bytes:
        return msgspec.json.encode(
            {
                "model": self.model,
                "prompt": prompt,
                "max_tokens": output_tokens,
                "ignore_eos": True,
                "temperature": 0.0,
                "stream": True,
                "stream_options": {"include_usage": True, "continuous_usage_stats": True},
            }
        )

    async def page(self, path: str) -> bytes | None:
        """Body of a page, or ``None`` if the engine has no such page.

        Raises:
            ConfigError: the engine cannot be reached, or wants a key.
        """
        try:
            response = await self._http.get(path)
        except httpx.HTTPError as error:
            raise ConfigError(
                f"cannot reach {self.url}: {_why(error)}; is the engine up, and is this its base "
                "URL (without /v1)?"
            ) from None
        if response.status_code in (401, 403):
            raise ConfigError(f"{self.url}{path} wants a key: pass --api-key")
        return response.content if response.status_code == 200 else None

    async def json(self, path: str) -> dict[str, Any]:
        """A page as a JSON object; empty if there is no such page or it is something else."""
        body = await self.page(path)
        try:
            found = msgspec.json.decode(body) if body else {}
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return {}
        return found if isinstance(found, dict) else {}


def open_http(url: str, *, api_key: str = "", timeout_s: float = 120.0) -> httpx.AsyncClient:
    """Connections to an engine: as many as there are requests, no proxy, no compression.

    Raises:
        ConfigError: not an HTTP URL.
    """
    if not url.startswith(("http://", "https://")):
        raise ConfigError(f"--url {url!r} should look like http://host:8000")
    headers = {"accept-encoding": "identity"}
    if api_key:
        headers["authorization"] = f"Bearer {api_key}"
    return httpx.AsyncClient(
        base_url=url.rstrip("/").removesuffix("/v1"),
        headers=headers,
        timeout=httpx.Timeout(timeout_s, connect=5.0, pool=None),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=None),
        trust_env=False,
    )


def _refusal(response: httpx.Response, body: bytes) -> str:
    said = body[:_SHOWN_CHARACTERS].decode(errors="replace")
    return f"{response.url} answered {response.status_code}: {said}"


def _why(error: Exception) -> str:
    return str(error) or type(error).__name__
