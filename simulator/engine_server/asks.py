"""What a client asks for: OpenAI request bodies, read into one plain ``Ask``."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from typing import Any, Literal, TypeVar

import msgspec

from simulator.engine_server.refusal import InvalidBody
from simulator.engine_server.tokens import count_tokens, prefix_hashes

AskKind = Literal["chat", "completion"]
COMPLETION_MAX_TOKENS = 16  # OpenAI's legacy default, kept by vLLM and SGLang


class StreamOptions(msgspec.Struct):
    """``stream_options`` of the OpenAI API, with vLLM's extension."""

    include_usage: bool = False
    continuous_usage_stats: bool = False


class Part(msgspec.Struct):
    """One part of a multi-part message."""

    type: str
    text: str = ""


class Message(msgspec.Struct):
    """One chat message; tool calls and names are read over."""

    role: str
    content: str | list[Part] | None = None


class Sampling(msgspec.Struct, kw_only=True):
    """The fields both endpoints share; unknown ones are accepted, as real engines do."""

    model: str = ""
    max_tokens: int | None = None
    max_completion_tokens: int | None = None
    min_tokens: int = 0
    ignore_eos: bool = False
    stream: bool | None = False
    stream_options: StreamOptions | None = None
    n: int | None = 1
    temperature: float | None = None
    seed: int | None = None
    rid: str | None = None
    kv_transfer_params: dict[str, Any] | None = None
    bootstrap_host: str | None = None
    bootstrap_port: int | None = None
    bootstrap_room: int | None = None


class ChatBody(Sampling, kw_only=True):
    """Body of ``/v1/chat/completions``."""

    messages: list[Message]
    continue_final_message: bool = False
    add_generation_prompt: bool = True


class CompletionBody(Sampling, kw_only=True):
    """Body of ``/v1/completions``."""

    prompt: str | list[int | str | list[int]]


@dataclass(frozen=True, slots=True)
class Ask:
    """One request, whichever endpoint it came through.

    Attributes:
        kind: which endpoint.
        model: as the client wrote it; empty when it did not.
        prompt: the rendered prompt.
        question: the part of it that is not the beginning of the answer: the key of the answer's
            length.
        said_tokens: of the answer, at the end of the prompt: what comes goes on after them.
        continues: whether ``continue_final_message`` was asked for.
        adds_prompt: ``add_generation_prompt``.
        prompt_tokens: by the rule of ``tokens.count_tokens``, or the length of a list of ids.
        prefix_hashes: for the prefix cache; empty for a list of ids.
        max_tokens: the client's limit, if any.
        min_tokens, ignore_eos, temperature, seed, rid: as in the API.
        stream: whether to answer with server-sent events.
        stream_options: as sent; ``None`` when absent.
        kv_transfer_params: vLLM's, for a prompt computed for another engine, or by one.
        room, bootstrap: SGLang's room in which both engines meet (empty: none), and where.
    """

    kind: AskKind
    model: str
    prompt: bytes
    question: bytes
    said_tokens: int
    continues: bool
    adds_prompt: bool
    prompt_tokens: int
    prefix_hashes: tuple[int, ...]
    max_tokens: int | None
    min_tokens: int
    ignore_eos: bool
    temperature: float | None
    seed: int | None
    rid: str | None
    stream: bool
    stream_options: StreamOptions | None
    kv_transfer_params: dict[str, Any] | None = None
    room: str = ""
    bootstrap: tuple[str, int] = ("", 0)


class TokenizeBody(msgspec.Struct):
    """Body of ``/tokenize``: a prompt or messages."""

    prompt: str | None = None
    messages: list[Message] | None = None


class DetokenizeBody(msgspec.Struct):
    """Body of ``/detokenize``."""

    tokens: list[int]


T = TypeVar("T")


def decode(body: bytes, shape: type[T]) -> T:
    """Decode JSON into ``shape``, coercing numbers in strings as pydantic does.

    Raises:
        InvalidBody: empty, no JSON, or not of that shape; names the field.
    """
    if not body:
        raise InvalidBody("Field required")
    try:
        return msgspec.json.decode(body, type=shape, strict=False)
    except msgspec.ValidationError as error:
        raise InvalidBody(str(error).partition(" - at ")[0], _param(str(error))) from None
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise InvalidBody(f"JSON decode error: {error}") from None


def read_chat(body: bytes) -> Ask:
    """Read a chat body.

    Raises:
        InvalidBody: it does not parse, or asks for what the emulator does not do.
    """
    chat = decode(body, ChatBody)
    limit = chat.max_tokens if chat.max_completion_tokens is None else chat.max_completion_tokens
    messages, said = chat.messages, ""
    if chat.continue_final_message and messages and messages[-1].role == "assistant":
        messages, said = messages[:-1], _text(messages[-1].content)
    ask = _ask("chat", chat, render(messages), said, None, limit)
    return replace(
        ask, continues=chat.continue_final_message, adds_prompt=chat.add_generation_prompt
    )


def read_completion(body: bytes) -> Ask:
    """Read a legacy completion body; raises as ``read_chat``."""
    completion = decode(body, CompletionBody)
    prompt, tokens = _prompt(completion.prompt)
    limit = COMPLETION_MAX_TOKENS if completion.max_tokens is None else completion.max_tokens
    begun = _BEGUN.search(prompt) if tokens is None else None
    said = begun.group().decode() if begun is not None and _is_answer(begun.group()) else ""
    return _ask("completion", completion, prompt[: len(prompt) - len(said)], said, tokens, limit)


def read_tokenize(body: bytes) -> bytes:
    """The prompt that a ``/tokenize`` body means; raises as ``read_chat``."""
    asked = decode(body, TokenizeBody)
    if asked.messages is not None:
        return render(asked.messages)
    if asked.prompt is None:
        raise InvalidBody("Field required", "body.prompt")
    return asked.prompt.encode()


def render(messages: list[Message]) -> bytes:
    """The chat template: appending a message only appends bytes, so prefixes stay shared."""
    if not messages:
        return b""
    turns = "".join([f"<|{m.role}|>{_text(m.content)}<|end|>" for m in messages])
    return f"{turns}<|assistant|>".encode()


def _text(content: str | list[Part] | None) -> str:
    if content is None or isinstance(content, str):
        return content or ""
    for part in content:
        if part.type != "text":
            raise InvalidBody(f"This model takes text only, got {part.type!r}", "body.messages")
    return "".join([part.text for part in content])


def _prompt(prompt: str | list[int | str | list[int]]) -> tuple[bytes, int | None]:
    """The prompt's bytes, and its token count where the client sent ids."""
    if isinstance(prompt, str):
        return prompt.encode(), None
    if len(prompt) == 1 and not isinstance(prompt[0], int):
        return _prompt(prompt[0] if isinstance(prompt[0], str) else list(prompt[0]))
    ids = [i for i in prompt if isinstance(i, int)]
    if len(ids) != len(prompt):
        raise InvalidBody("This emulated engine answers one prompt a request", "body.prompt")
    return b",".join([b"%d" % i for i in ids]), len(ids)


_BEGUN = re.compile(rb"w0(?: w\d+)*$")


def _is_answer(words: bytes) -> bool:
    """Whether it is the beginning of an answer: ``w0 w1 w2`` and so on."""
    return all(word == b"w%d" % i for i, word in enumerate(words.split(b" ")))


def _ask(  # noqa: PLR0917
    kind: AskKind,
    body: Sampling,
    question: bytes,
    said: str,
    tokens: int | None,
    limit: int | None,
) -> Ask:
    """``question`` and ``said`` are the prompt; ``tokens`` its length where it came as ids."""
    if body.n not in {None, 1}:
        raise InvalidBody("This emulated engine gives one choice a request", "body.n")
    prompt = question + said.encode()
    return Ask(
        kind=kind,
        model=body.model,
        prompt=prompt,
        question=question,
        said_tokens=len(said.split()),
        continues=False,
        adds_prompt=True,
        prompt_tokens=count_tokens(prompt) if tokens is None else tokens,
        prefix_hashes=prefix_hashes(prompt) if tokens is None else (),
        max_tokens=limit,
        min_tokens=body.min_tokens,
        ignore_eos=body.ignore_eos,
        temperature=body.temperature,
        seed=body.seed,
        rid=body.rid,
        stream=bool(body.stream),
        stream_options=body.stream_options,
        kv_transfer_params=body.kv_transfer_params,
        room="" if body.bootstrap_room is None else str(body.bootstrap_room),
        bootstrap=(body.bootstrap_host or "", body.bootstrap_port or 0),
    )


_MISSING = re.compile(r"missing required field `(\w+)`")
_AT = re.compile(r"at `\$\.?([^`]*)`")


def _param(message: str) -> str:
    """Path of the offending field in msgspec's message, as FastAPI writes it."""
    parts = [m.group(1) for m in (_AT.search(message), _MISSING.search(message)) if m]
    path = ".".join(part for part in parts if part)
    return "body." + path.replace("[", ".").replace("]", "") if path else "body"
