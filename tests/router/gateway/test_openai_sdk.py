"""The official SDK against the gateway, sync and async, streamed and not."""

from __future__ import annotations

import asyncio
from typing import Any

import openai
import pytest

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, Behaviour, answer, chat, event, events, reset, stream

TOKENS = [f"token-{n} " for n in range(200)]
USAGE = {"prompt_tokens": 7, "completion_tokens": 200, "total_tokens": 207}
ASK: dict[str, Any] = {"model": MODEL, "messages": [{"role": "user", "content": "Count."}]}


def sdk(url: str, **settings: Any) -> openai.AsyncOpenAI:
    return openai.AsyncOpenAI(base_url=f"{url}/v1", api_key="k", max_retries=0, **settings)


async def test_a_stream_brings_every_token_in_order(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(stream(TOKENS, usage=USAGE)))
    got, usage = [], None
    async with sdk(gate.url) as client:
        async for part in await client.chat.completions.create(**ASK, stream=True):
            got += [choice.delta.content for choice in part.choices if choice.delta.content]
            usage = part.usage or usage
    assert got == TOKENS
    assert usage is not None
    assert usage.completion_tokens == 200


async def test_the_sync_client_as_well(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(chat("hello"), stream(TOKENS)))

    def use() -> tuple[str | None, list[str]]:
        with openai.OpenAI(base_url=f"{gate.url}/v1", api_key="k", max_retries=0) as client:
            plain = client.chat.completions.create(**ASK).choices[0].message.content
            parts = client.chat.completions.create(**ASK, stream=True)
            got = [p.choices[0].delta.content for p in parts if p.choices[0].delta.content]
            return plain, got

    assert await asyncio.to_thread(use) == ("hello", TOKENS)


async def test_models_and_raw_headers(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(chat()))
    async with sdk(gate.url) as client:
        assert [model.id async for model in client.models.list()] == [MODEL]
        assert (await client.models.retrieve(MODEL)).owned_by == "motley"
        raw = await client.chat.completions.with_raw_response.create(**ASK)
        assert raw.headers["x-motley-backend"] == "e0"


@pytest.mark.parametrize(
    ("behaviour", "raised"),
    [
        (answer(400, {"object": "error", "message": "bad", "code": 400}), openai.BadRequestError),
        (answer(401, {"error": "Unauthorized"}), openai.AuthenticationError),
        (answer(422, {"detail": "x"}), openai.UnprocessableEntityError),
        (answer(429, b""), openai.RateLimitError),
        (answer(500, b"oops"), openai.InternalServerError),
        (answer(503, b""), openai.InternalServerError),
    ],
)
async def test_errors_arrive_as_the_sdks_own(
    engine: StartEngine,
    gateway: StartGateway,
    behaviour: Behaviour,
    raised: type[openai.APIStatusError],
) -> None:
    gate = await gateway(await engine(behaviour))
    async with sdk(gate.url) as client:
        with pytest.raises(raised) as caught:
            await client.chat.completions.create(**ASK)
    assert caught.value.message
    assert caught.value.request_id


async def test_an_unknown_model_is_not_found(gateway: StartGateway) -> None:
    gate = await gateway("http://127.0.0.1:9")
    async with sdk(gate.url) as client:
        with pytest.raises(openai.NotFoundError) as caught:
            await client.chat.completions.create(**{**ASK, "model": "gpt-9"})
    assert caught.value.code == "model_not_found"
    assert caught.value.param == "model"


async def test_a_broken_stream_raises(engine: StartEngine, gateway: StartGateway) -> None:
    """Nobody can take half an answer for a whole one."""
    gate = await gateway(await engine(events(event({"content": "a"}), then=reset)))
    async with sdk(gate.url) as client:
        parts = await client.chat.completions.create(**ASK, stream=True)
        assert (await anext(parts)).choices[0].delta.content == "a"
        with pytest.raises(openai.APIError, match="in mid-answer"):
            await anext(parts)


async def test_leaving_a_stream_early(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(stream(TOKENS, gap_s=0.01)))
    async with sdk(gate.url) as client:
        parts = await client.chat.completions.create(**ASK, stream=True)
        async for _ in parts:
            break
        await parts.close()
    async with asyncio.timeout(15):
        while not gate.books["cancelled"]:
            await asyncio.sleep(0.005)


async def test_many_at_once(engine: StartEngine, gateway: StartGateway) -> None:
    engines = [await engine(stream(TOKENS[:20], gap_s=0.001)) for _ in range(3)]
    gate = await gateway(*engines)

    async def one(client: openai.AsyncOpenAI) -> list[str]:
        parts = await client.chat.completions.create(**ASK, stream=True)
        return [
            part.choices[0].delta.content async for part in parts if part.choices[0].delta.content
        ]

    async with sdk(gate.url) as client:
        answers = await asyncio.gather(*(one(client) for _ in range(60)))
    assert answers == [TOKENS[:20]] * 60
    assert gate.books["completed"] == 60
    assert [len(fake.received) for fake in engines] == [20, 20, 20]
