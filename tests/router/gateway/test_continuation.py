"""A backend dies in mid-answer, another one goes on, and the client sees one stream."""

from __future__ import annotations

import asyncio
import json
import re
from typing import Any

import openai
import pytest

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    DONE,
    END,
    MODEL,
    STREAM_HEAD,
    Behaviour,
    Gateway,
    Received,
    answer,
    chat,
    chunk,
    close,
    eventually,
    hang,
    reset,
)

WORDS = [" " * (n > 0) + f"word{n}" for n in range(12)]  # space leads, as in BPE's tokens
TEXT = "".join(WORDS)
ON = {"continuation": {"enabled": True}}
PROMPT_TOKENS = 9


class Speaker:
    """An engine that says ``WORDS`` and takes up its thread where the request leaves it.

    Args:
        name: tells its chunks from those of others.
        dies_after: words; ``None`` lives.
        how: what it does then.
        usage: whether it counts at the end, as ``include_usage`` asks.
        trims: its template trims what it is to go on with, as Llama's does.
        trailing: its space trails.
    """

    def __init__(
        self,
        name: str,
        dies_after: int | None = None,
        how: Behaviour = reset,
        *,
        trims: bool = True,
        trailing: bool = False,
    ) -> None:
        self.name, self.dies_after, self.how, self.trims = name, dies_after, how, trims
        self._token = re.compile(r"\s*\S+\s?" if trailing else r"\s*\S+")
        self.asked: list[dict[str, Any]] = []

    async def __call__(self, request: Received) -> bool | None:
        body = json.loads(request.body)
        self.asked.append(body)
        legacy = "prompt" in body
        said = self._said(body)
        left = self._left(said)
        await request.send(STREAM_HEAD)
        if not legacy:
            await request.send(chunk(self._chat({"role": "assistant", "content": ""})))
        for n, word in enumerate(left):
            if n == self.dies_after:
                return await self.how(request)
            part = self._event({"index": 0, "text": word}) if legacy else None
            await request.send(chunk(part or self._chat({"content": word})))
            await asyncio.sleep(0.001)
        last = {"index": 0, "finish_reason": "stop"} | ({"text": ""} if legacy else {"delta": {}})
        await request.send(chunk(self._event(last)))
        if (body.get("stream_options") or {}).get("include_usage"):
            prompt = PROMPT_TOKENS + len(WORDS) - len(left)
            counts = {"prompt_tokens": prompt, "completion_tokens": len(left)}
            total = counts | {"total_tokens": prompt + len(left)}
            await request.send(chunk(self._event(usage=total)))
        await request.send(chunk(DONE), END)
        return True

    def _said(self, body: dict[str, Any]) -> str:
        if "prompt" in body:
            return str(body["prompt"]).removeprefix("Count: ")
        last = body["messages"][-1]
        if not body.get("continue_final_message"):
            return ""
        assert body["add_generation_prompt"] is False
        assert last["role"] == "assistant"
        return str(last["content"]).strip() if self.trims else str(last["content"])

    def _left(self, said: str) -> list[str]:
        assert TEXT.startswith(said), said
        return self._token.findall(TEXT[len(said) :])

    def _chat(self, delta: dict[str, Any]) -> bytes:
        return self._event({"index": 0, "delta": delta, "finish_reason": None})

    def _event(self, choice: dict[str, Any] | None = None, **more: Any) -> bytes:
        about = {"id": f"id-{self.name}", "created": len(self.name), "model": f"m-{self.name}"}
        document = about | {"object": "x", "choices": [choice] if choice else []} | more
        return b"data: " + json.dumps(document).encode() + b"\n\n"


def in_band(error: Any, *more: bytes) -> Behaviour:
    async def behave(request: Received) -> bool:
        event = b"data: " + json.dumps({"error": error}).encode() + b"\n\n"
        await request.send(*[chunk(part) for part in (event, *more)], END)
        return True

    return behave


async def end(request: Received) -> bool:
    await request.send(END)
    return True


async def half_an_event(request: Received) -> None:
    await request.send(chunk(b'data: {"id": "id-a", "choices": [{"index": 0, "delta": {"con'))
    await asyncio.sleep(0.02)
    await reset(request)


def aborts(request: Received) -> Any:
    choice = {"index": 0, "delta": {"content": ""}, "finish_reason": "abort"}
    event = b"data: " + json.dumps({"id": "id-a", "choices": [choice]}).encode() + b"\n\n"

    async def say() -> bool:
        await request.send(chunk(event), chunk(DONE), END)
        return True

    return say()


async def ask(
    gate: Gateway, fields: dict[str, Any] | None = None, **headers: str
) -> tuple[list[Any], openai.APIError | None]:
    """Stream through the official SDK: the chunks, and the error that ended them."""
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Count."}]} | (fields or {})
    got: list[Any] = []
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="k", max_retries=0) as client:
        try:
            named = {name.replace("_", "-"): value for name, value in headers.items()}
            async for part in await client.chat.completions.create(
                **body, stream=True, extra_headers=named
            ):
                got.append(part)
        except openai.APIError as error:
            return got, error
    return got, None


def said(parts: list[Any]) -> str:
    return "".join(c.delta.content or "" for part in parts for c in part.choices)


async def continuations(gate: Gateway) -> dict[str, float]:
    lines = (await gate.get("/metrics")).text.splitlines()
    name = "motley_continuations_total{"
    found = [line.removeprefix(name).split() for line in lines if line.startswith(name)]
    return {label.split('"')[1]: float(value) for label, value in found}


DEATHS: dict[str, Behaviour] = {
    "reset": reset,
    "closed": close,
    "ended without [DONE]": end,
    "an error in the stream": in_band({"message": "EngineCore died", "code": 500}, DONE),
    "an error that is a string": in_band("dead"),
    "aborted": aborts,
    "half an event": half_an_event,
    "silence": hang,
}


@pytest.mark.parametrize("how", DEATHS.values(), ids=DEATHS.keys())
async def test_the_client_sees_one_unbroken_stream(
    engine: StartEngine, gateway: StartGateway, how: Behaviour
) -> None:
    first, second = Speaker("a", 5, how), Speaker("bb")
    limits = ON | {"idle_timeout_s": 0.3 if how is hang else 10.0}  # a busy machine is silent, too
    gate = await gateway(await engine(first), await engine(second), reliability=limits)
    options = {"stream_options": {"include_usage": True}, "max_tokens": 40}
    parts, error = await ask(gate, options)
    assert error is None
    assert said(parts) == TEXT
    assert {(part.id, part.model, part.created) for part in parts} == {("id-a", "m-a", 1)}
    assert [c.delta.role for part in parts for c in part.choices if c.delta.role] == ["assistant"]
    assert [c.finish_reason for p in parts for c in p.choices if c.finish_reason] == ["stop"]
    (usage,) = [part.usage for part in parts if part.usage]
    counts = (usage.prompt_tokens, usage.completion_tokens, usage.total_tokens)
    assert counts == (PROMPT_TOKENS, len(WORDS), PROMPT_TOKENS + len(WORDS))
    (asked,) = second.asked
    assert asked["messages"][1:] == [{"role": "assistant", "content": TEXT[:29]}]
    assert asked["max_tokens"] == 40 - 5
    await eventually(lambda: gate.relay.engine.live == 0)
    assert (gate.books["arrived"], gate.books["completed"]) == (1, 1)
    assert await continuations(gate) == {"completed": 1.0}


async def test_the_bytes_end_with_one_done(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(Speaker("a", 3)), await engine(Speaker("b")), reliability=ON)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Count."}], "stream": True}
    content = (await gate.post(body=json.dumps(body).encode())).content
    assert content.count(DONE) == 1
    assert content.endswith(DONE)
    assert b"error" not in content


async def test_a_legacy_completion_is_continued_by_its_prompt(
    engine: StartEngine, gateway: StartGateway
) -> None:
    first, second = Speaker("a", 4), Speaker("b")
    gate = await gateway(await engine(first), await engine(second), reliability=ON)
    async with openai.AsyncOpenAI(base_url=f"{gate.url}/v1", api_key="k") as client:
        parts = [
            part
            async for part in await client.completions.create(
                model=MODEL, prompt="Count: ", stream=True
            )
        ]
    assert "".join(choice.text for part in parts for choice in part.choices) == TEXT
    assert {part.id for part in parts} == {"id-a"}
    assert second.asked[0]["prompt"] == "Count: word0 word1 word2 word3"
    assert second.asked[0]["max_tokens"] == 16 - 4  # what the engines take by default


@pytest.mark.parametrize("trims", [True, False])
async def test_space_at_the_seam_is_neither_lost_nor_doubled(
    engine: StartEngine, gateway: StartGateway, trims: bool
) -> None:
    speakers = [Speaker("a", 6, trailing=True), Speaker("b", trims=trims, trailing=True)]
    gate = await gateway(*[await engine(one) for one in speakers], reliability=ON)
    parts, error = await ask(gate)
    assert (said(parts), error) == (TEXT, None)


async def test_before_the_first_word_the_same_request_goes_elsewhere(
    engine: StartEngine, gateway: StartGateway
) -> None:
    first, second = Speaker("a", 0), Speaker("b")
    gate = await gateway(await engine(first), await engine(second), reliability=ON)
    parts, error = await ask(gate)
    assert (said(parts), error) == (TEXT, None)
    assert second.asked == first.asked
    assert [c.delta.role for part in parts for c in part.choices if c.delta.role] == ["assistant"]


async def test_it_may_break_again(engine: StartEngine, gateway: StartGateway) -> None:
    speakers = [Speaker("a", 3), Speaker("b", 3), Speaker("c")]
    gate = await gateway(*[await engine(one) for one in speakers], reliability=ON)
    parts, error = await ask(gate, {"stream_options": {"include_usage": True}})
    assert (said(parts), error) == (TEXT, None)
    assert parts[-1].usage.completion_tokens == len(WORDS)
    assert parts[-1].usage.total_tokens == PROMPT_TOKENS + len(WORDS)
    account = gate.relay.engine.dispatcher
    assert account.completed == 1


async def test_a_continuation_that_fails_before_its_first_byte_is_tried_elsewhere(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backends = [Speaker("a", 3), answer(503, b"busy"), Speaker("c")]
    gate = await gateway(*[await engine(one) for one in backends], reliability=ON)
    parts, error = await ask(gate)
    assert (said(parts), error) == (TEXT, None)


async def test_where_nobody_is_left_the_truth_is_told(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(
        await engine(Speaker("a", 3)), await engine(Speaker("b", 2)), reliability=ON
    )
    parts, error = await ask(gate)
    assert said(parts) == "".join(WORDS[:5])
    assert error is not None
    assert "Tried: e0, e1" in str(error)
    await eventually(lambda: gate.relay.engine.live == 0)
    assert gate.books["failed"] == 1
    assert await continuations(gate) == {"failed": 1.0}


async def test_how_often_is_bounded(engine: StartEngine, gateway: StartGateway) -> None:
    speakers = [Speaker(name, 2) for name in "abcd"]
    once = {"continuation": {"enabled": True, "max_per_request": 1}}
    gate = await gateway(*[await engine(one) for one in speakers], reliability=once)
    parts, error = await ask(gate)
    assert error is not None
    assert said(parts) == "".join(WORDS[:4])
    assert [len(one.asked) for one in speakers] == [1, 1, 0, 0]


async def test_what_is_kept_is_bounded(engine: StartEngine, gateway: StartGateway) -> None:
    small = {"continuation": {"enabled": True, "max_bytes": 1024}}
    first, second = Speaker("a", 11), Speaker("b")
    gate = await gateway(await engine(first), await engine(second), reliability=small)
    content = "x" * 880  # with the rest of the request about 1000 bytes: the answer's is too much
    parts, error = await ask(gate, {"messages": [{"role": "user", "content": content}]})
    assert error is not None
    assert said(parts) == "".join(WORDS[:11])
    assert second.asked == []
    assert await continuations(gate) == {"not_possible": 1.0}


async def test_when_the_whole_time_is_up_nobody_goes_on(
    engine: StartEngine, gateway: StartGateway
) -> None:
    first, second = Speaker("a", 3, hang), Speaker("b")
    limits = ON | {"total_timeout_s": 0.4, "idle_timeout_s": 10.0}
    gate = await gateway(await engine(first), await engine(second), reliability=limits)
    _, error = await ask(gate)
    assert "took too long" in str(error)
    assert second.asked == []


NOT_FOR: dict[str, dict[str, Any]] = {
    "several choices": {"n": 2},
    "tools": {"tools": [{"type": "function", "function": {"name": "f", "parameters": {}}}]},
    "a schema": {"response_format": {"type": "json_object"}},
    "a grammar": {"extra_body": {"structured_outputs": {"regex": "a+"}}},
    "log probabilities": {"logprobs": True},
    "an answer begun by the client": {"extra_body": {"continue_final_message": True}},
    "those who do not want it": {"extra_body": {"motley_continue": False}},
}


@pytest.mark.parametrize("fields", NOT_FOR.values(), ids=NOT_FOR.keys())
async def test_it_is_not_for(
    engine: StartEngine, gateway: StartGateway, fields: dict[str, Any]
) -> None:
    broken = Speaker("a", 2)
    broken._said = lambda body: ""  # type: ignore[method-assign]
    second = Speaker("b")
    gate = await gateway(await engine(broken), await engine(second), reliability=ON)
    parts, error = await ask(gate, fields)
    assert error is not None
    assert said(parts) == "".join(WORDS[:2])
    assert second.asked == []


async def test_tools_that_may_not_be_called_do_not_stand_in_the_way(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(Speaker("a", 3)), await engine(Speaker("b")), reliability=ON)
    tools = [{"type": "function", "function": {"name": "f", "parameters": {}}}]
    parts, error = await ask(gate, {"tools": tools, "tool_choice": "none"})
    assert (said(parts), error) == (TEXT, None)


@pytest.mark.parametrize("delta", [{"reasoning_content": "hm"}, {"tool_calls": [{"index": 0}]}])
async def test_an_answer_that_turns_out_to_be_more_than_text_is_not_continued(
    engine: StartEngine, gateway: StartGateway, delta: dict[str, Any]
) -> None:
    speaker, second = Speaker("a"), Speaker("b")

    async def thinks(request: Received) -> None:
        await request.send(STREAM_HEAD, chunk(speaker._chat({"role": "assistant"} | delta)))
        await request.send(chunk(speaker._chat({"content": "so"})))
        await asyncio.sleep(0.02)
        await reset(request)

    gate = await gateway(await engine(thinks), await engine(second), reliability=ON)
    parts, error = await ask(gate)
    assert (said(parts), error is not None, second.asked) == ("so", True, [])


@pytest.mark.parametrize(
    ("by_default", "headers", "fields", "goes_on"),
    [
        (False, {}, {}, False),
        (False, {"x_motley_continue": "1"}, {}, True),
        (False, {}, {"extra_body": {"motley_continue": True}}, True),
        (True, {"x_motley_continue": "0"}, {}, False),
        (True, {}, {}, True),
    ],
)
async def test_who_gets_it(  # noqa: PLR0917
    engine: StartEngine,
    gateway: StartGateway,
    by_default: bool,
    headers: dict[str, str],
    fields: dict[str, Any],
    goes_on: bool,
) -> None:
    section = {"continuation": {"enabled": True, "by_default": by_default}}
    gate = await gateway(
        await engine(Speaker("a", 3)), await engine(Speaker("b")), reliability=section
    )
    parts, error = await ask(gate, fields, **headers)
    assert (said(parts) == TEXT, error is None) == (goes_on, goes_on)


async def test_it_is_off_unless_configured(engine: StartEngine, gateway: StartGateway) -> None:
    second = Speaker("b")
    gate = await gateway(await engine(Speaker("a", 3)), await engine(second))
    _, error = await ask(gate, x_motley_continue="1")
    assert error is not None
    assert second.asked == []


async def test_a_backend_that_cannot_is_not_asked_to(
    engine: StartEngine, gateway: StartGateway
) -> None:
    speakers = [Speaker("a", 3), Speaker("b"), Speaker("c")]
    engines = [await engine(one) for one in speakers]
    backends = [
        {"gpu": "a100-80", "model": MODEL, "name": f"e{n}", "url": one.url}
        for n, one in enumerate(engines)
    ]
    backends[1]["labels"] = {"continuation": "off"}
    gate = await gateway(reliability=ON | {"health_interval_s": 3600.0}, backends=backends)
    parts, error = await ask(gate)
    assert (said(parts), error) == (TEXT, None)
    assert (speakers[1].asked, len(speakers[2].asked)) == ([], 1)


async def test_what_it_cost_is_counted_once_for_the_client(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """Each attempt counts for its backend; who pays gets the prompt once and the answer once."""
    seen: list[Any] = []
    gate = await gateway(await engine(Speaker("a", 5)), await engine(Speaker("b")), reliability=ON)
    dispatcher = gate.relay.engine.dispatcher
    tell = dispatcher._predictor.observe
    dispatcher._predictor.observe = lambda o: (seen.append(o), tell(o))  # type: ignore[method-assign]
    parts, _ = await ask(gate, {"stream_options": {"include_usage": True}}, x_motley_explain="1")
    await eventually(lambda: gate.relay.engine.live == 0)
    broken, whole = seen
    assert (broken.status, broken.backend, broken.output_tokens) == ("failed", "e0", 5)
    assert (whole.status, whole.backend, whole.output_tokens) == ("completed", "e1", 7)
    assert (whole.prompt_tokens, whole.carried_tokens) == (PROMPT_TOKENS + 5, 5)
    assert (whole.question_tokens, whole.answer_tokens) == (PROMPT_TOKENS, len(WORDS))
    assert whole.ttft_s == broken.first_token_s - broken.arrival_s
    assert whole.first_token_s >= whole.dispatched_s
    assert said(parts) == TEXT


async def test_a_client_that_leaves_while_another_goes_on_stops_it(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gone = asyncio.Event()

    async def waits(request: Received) -> None:
        await request.send(STREAM_HEAD, chunk(Speaker("b")._chat({"content": " word3"})))
        await request.wait_for_leaving()
        gone.set()

    gate = await gateway(await engine(Speaker("a", 3)), await engine(waits), reliability=ON)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "Count."}], "stream": True}
    reader, writer = await gate.ask(json.dumps(body).encode())
    await asyncio.wait_for(reader.readuntil(b"word3"), 5)
    writer.transport.abort()
    await asyncio.wait_for(gone.wait(), 5)
    await eventually(lambda: gate.relay.engine.live == 0)
    assert gate.books["cancelled"] == 1
    assert await continuations(gate) == {"cancelled": 1.0}


async def test_an_answer_that_lost_only_its_end_is_whole(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """The finish reason came, ``[DONE]`` did not: nothing is left to ask anybody for."""
    speaker, second = Speaker("a"), Speaker("b")

    async def nearly(request: Received) -> None:
        last = {"index": 0, "delta": {"content": "all"}, "finish_reason": "stop"}
        await request.send(STREAM_HEAD, chunk(speaker._chat({"role": "assistant"})))
        await request.send(chunk(speaker._event(last)))
        await asyncio.sleep(0.02)
        await reset(request)

    gate = await gateway(await engine(nearly), await engine(second), reliability=ON)
    parts, error = await ask(gate)
    assert (said(parts), error, second.asked) == ("all", None, [])
    await eventually(lambda: gate.relay.engine.live == 0)
    assert gate.books["completed"] == 1


async def test_an_answer_at_the_clients_limit_is_whole(
    engine: StartEngine, gateway: StartGateway
) -> None:
    second = Speaker("b")
    gate = await gateway(await engine(Speaker("a", 4)), await engine(second), reliability=ON)
    parts, error = await ask(gate, {"max_tokens": 4})
    assert (said(parts), error, second.asked) == ("".join(WORDS[:4]), None, [])
    assert parts[-1].choices[0].finish_reason == "length"


async def test_an_answer_that_is_not_streamed_is_retried_before_its_first_byte(
    engine: StartEngine, gateway: StartGateway
) -> None:
    async def head_only(request: Received) -> None:
        await request.send(b"HTTP/1.1 200 OK\r\ncontent-length: 500\r\n\r\n")
        await asyncio.sleep(0.02)
        await reset(request)

    gate = await gateway(await engine(head_only), await engine(chat("saved")))
    assert (await gate.post()).json()["choices"][0]["message"]["content"] == "saved"
