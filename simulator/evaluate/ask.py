"""Puts the questions to a server, the same way to each."""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import httpx
import msgspec

from router.domain.errors import BadInputError, MotleyError
from simulator.evaluate.items import LONGEST_TOKENS, Asked, prompt_of
from simulator.live.client import EngineClient, open_http

Settled = Callable[[], object]
_SHOWN_CHARACTERS = 160
_TRIES = 3


@dataclass(frozen=True, slots=True)
class Variant:
    """Something to be asked.

    Attributes:
        name: for people, and for the planner: its weight format.
        url: of an OpenAI-compatible server.
        model: there; empty means the first it lists.
    """

    name: str
    url: str
    model: str = ""


class _Message(msgspec.Struct):
    content: str | None = None


class _Choice(msgspec.Struct):
    message: _Message


class _Answer(msgspec.Struct):
    choices: list[_Choice]


async def ask_all(
    variant: Variant,
    items: Sequence[Asked],
    *,
    api_key: str = "",
    concurrency: int = 4,
    timeout_s: float = 120.0,
    seed: int = 0,
    settled: Settled = lambda: None,
) -> list[str]:
    """Ask one variant everything; the answers in the order of the items.

    Raises:
        BadInputError: no server there, or it does not serve the model.
        MotleyError: a question that was not answered: a score without it would not compare.
    """
    async with open_http(variant.url, api_key=api_key, timeout_s=timeout_s) as http:
        model = await _model(http, variant)
        room = asyncio.Semaphore(concurrency)

        async def one(asked: Asked) -> str:
            async with room:
                answer = await _ask(http, variant, model, asked, seed)
            settled()
            return answer

        try:
            async with asyncio.TaskGroup() as group:
                tasks = [group.create_task(one(asked)) for asked in items]
        except* MotleyError as failed:
            raise failed.exceptions[0] from None
    return [task.result() for task in tasks]


async def _model(http: httpx.AsyncClient, variant: Variant) -> str:
    listed = await EngineClient(http, asyncio.get_running_loop().time).json("/v1/models")
    names = [str(entry.get("id")) for entry in listed.get("data", [])]
    if variant.model and names and variant.model not in names:
        raise BadInputError(
            f"{variant.url} does not serve {variant.model!r}; it serves {', '.join(names)}"
        )
    if not variant.model and not names:
        raise BadInputError(
            f"{variant.url} lists no model at /v1/models: name one, as in NAME=URL#MODEL"
        )
    return variant.model or names[0]


async def _ask(
    http: httpx.AsyncClient, variant: Variant, model: str, asked: Asked, seed: int
) -> str:
    body = {
        "model": model,
        "messages": [{"role": "user", "content": prompt_of(asked.item)}],
        "temperature": 0,
        "seed": seed,
        "max_tokens": LONGEST_TOKENS[asked.category],
    }
    problem = ""
    for attempt in range(_TRIES):
        await asyncio.sleep(attempt * 0.5)
        try:
            response = await http.post("/v1/chat/completions", json=body)
        except httpx.HTTPError as error:
            problem = str(error) or type(error).__name__
            continue
        if response.status_code == 200:
            return _text(response.content, variant, asked)
        problem = f"HTTP {response.status_code}: {response.text[:_SHOWN_CHARACTERS]}"
        if response.status_code < 500 and response.status_code != 429:
            break
    raise MotleyError(f"{variant.name} at {variant.url} did not answer {asked.name}: {problem}")


def _text(content: bytes, variant: Variant, asked: Asked) -> str:
    try:
        answer = msgspec.json.decode(content, type=_Answer)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        raise MotleyError(
            f"{variant.name} at {variant.url} answered {asked.name} with something else than a "
            f"chat completion: {error}"
        ) from None
    return (answer.choices[0].message.content if answer.choices else "") or ""


def repeated(names: Sequence[str]) -> list[str]:
    """Names that are there more than once."""
    return [name for name, count in Counter(names).items() if count > 1]
