"""One completion, from body to last byte."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from dataclasses import dataclass, replace
from random import Random
from typing import Any

from simulator.engine_server.asgi import Page, Receive, Send, send_page, send_part, start_stream
from simulator.engine_server.asks import Ask, AskKind, StreamOptions, read_chat, read_completion
from simulator.engine_server.dialect import Dialect, FinishReason, Head, Limits, Usage
from simulator.engine_server.driver import Driver, Ending, Live
from simulator.engine_server.faults import Faults
from simulator.engine_server.handover import Handover
from simulator.engine_server.refusal import Refusal
from simulator.engine_server.tokens import (
    PREFIX_BLOCK_TOKENS,
    LengthRule,
    prefix_hashes,
    words,
)
from simulator.replica.job import Job

NO_OPTIONS = StreamOptions()


@dataclass(frozen=True, slots=True)
class Length:
    """How long one answer gets: ``tokens``, and why it ends there."""

    tokens: int
    finish: FinishReason


def length_of(ask: Ask, limits: Limits, rule: LengthRule, seed: int) -> Length:
    """Draw the natural length, then let the client and the context cut it.

    ``ignore_eos`` fills the limit. A request's own ``seed`` draws anew.
    """
    room = max(0, limits.max_model_len - ask.prompt_tokens)
    limit = room if ask.max_tokens is None else min(ask.max_tokens, room)
    if ask.ignore_eos:
        return Length(limit, "length")
    drawn = rule.draw(ask.question, seed if ask.seed is None else ask.seed)
    natural = max(drawn - ask.said_tokens, ask.min_tokens, 1)
    return Length(limit, "length") if natural > limit else Length(natural, "stop")


def answer_hashes(ask: Ask, length: Length) -> tuple[int, ...]:
    """Prefix blocks that the answer completes: the next turn of the conversation finds them."""
    if not ask.prefix_hashes:
        return ()
    spoken = ask.prompt + words(ask.said_tokens, ask.said_tokens + length.tokens).encode()
    return prefix_hashes(spoken)[len(ask.prefix_hashes) :]


class Completions:
    """Answers ``/v1/chat/completions`` and ``/v1/completions`` as one engine would.

    Args:
        driver: the replica.
        dialect: the engine's words.
        limits: what it serves.
        rule: how long answers get.
        seed: of the lengths.
        rng: for response ids.
        unix_s: wall clock, for ``created``.

    Attributes:
        faults: injected.
        asleep: whether it refuses everything because its memory was given away.
        adapters: LoRA adapters that it serves beside its model: name to path.
        handover: its part in requests that two engines share; ``None``: it has none.
    """

    def __init__(
        self,
        driver: Driver,
        dialect: Dialect,
        limits: Limits,
        *,
        rule: LengthRule,
        seed: int,
        rng: Random,
        unix_s: Callable[[], float],
    ) -> None:
        self.faults = Faults()
        self.asleep = False
        self.adapters: dict[str, str] = {}
        self.handover: Handover | None = None
        self._driver, self._dialect, self._limits = driver, dialect, limits
        self._rule, self._seed, self._rng, self._unix_s = rule, seed, rng, unix_s
        self._submitted = 0

    async def answer(
        self, kind: AskKind, body: bytes, request_id: str, receive: Receive, send: Send
    ) -> None:
        """Answer one request; a client that leaves takes it out of the engine.

        Raises:
            Refusal: before anything was sent.
            InvalidBody: likewise.
        """
        ask = read_chat(body) if kind == "chat" else read_completion(body)
        if self.faults.error_status is not None:
            raise Refusal(self.faults.error_status, "Injected fault.", "InternalServerError")
        if self.asleep:
            raise Refusal(503, "The engine is sleeping.", "Service Unavailable")
        base = replace(ask, model=self._limits.model) if ask.model in self.adapters else ask
        self._dialect.check(base, self._limits)
        length = length_of(ask, self._limits, self._rule, self._seed)
        if self.handover is not None and self.handover.prompt_only(ask):
            length = Length(1, "length")
        leaving = asyncio.ensure_future(receive())
        live: Live | None = None
        try:
            received = await self._receive(ask, leaving)
            if received is None:
                return
            live = self._submit(ask, length, received=received)
            if live is None:
                await self._refuse_busy(ask, send)
                return
            leaving.add_done_callback(lambda _: self._driver.abort(live))
            head = self._head(ask, request_id)
            answering = self._stream if ask.stream else self._whole
            if await answering(live, ask, length.tokens, head, send) == "died":
                await self._last_words(ask, leaving, send)
        finally:
            leaving.cancel()
            if live is not None:
                self._driver.abort(live)

    async def _receive(self, ask: Ask, leaving: asyncio.Future[Any]) -> bool | None:
        """Whether the prompt's KV came from another engine; ``None`` if the client left first."""
        if self.handover is None:
            return False
        coming = asyncio.ensure_future(self.handover.receive(ask))
        await asyncio.wait([coming, leaving], return_when=asyncio.FIRST_COMPLETED)
        if coming.done():
            return coming.result()
        coming.cancel()
        return None

    def _submit(self, ask: Ask, length: Length, *, received: bool) -> Live | None:
        self._submitted += 1
        job = Job(
            job_id=str(self._submitted),
            prompt_tokens=ask.prompt_tokens,
            # max_tokens 0 still runs the prompt, and its one token is not shown.
            output_tokens=max(1, length.tokens),
            max_tokens=ask.max_tokens or 0,
            prefix_hashes=ask.prefix_hashes,
            prefix_block_tokens=PREFIX_BLOCK_TOKENS if ask.prefix_hashes else 0,
            output_hashes=answer_hashes(ask, length),
            received=received,
        )
        return self._driver.submit(job, length.finish, stream=ask.stream)

    def _head(self, ask: Ask, request_id: str) -> Head:
        options = ask.stream_options or NO_OPTIONS
        return Head(
            kind=ask.kind,
            response_id=self._dialect.response_id(ask, request_id, self._rng),
            created=int(self._unix_s()),
            model=ask.model or self._limits.model,
            usage_in_every_chunk=options.include_usage and options.continuous_usage_stats,
            usage_at_the_end=options.include_usage,
        )

    async def _refuse_busy(self, ask: Ask, send: Send) -> None:
        busy = self._dialect.busy()
        if not (ask.stream and self._dialect.busy_in_band):
            raise busy
        await start_stream(send)
        await send_part(send, self._dialect.in_band(busy), more=False)

    def _computed(self, ask: Ask) -> dict[str, Any] | None:
        return self.handover.computed(ask) if self.handover is not None else None

    async def _whole(self, live: Live, ask: Ask, shown: int, head: Head, send: Send) -> Ending:
        ending, said = await live.end(), ask.said_tokens
        if ending == "finished":
            head = replace(head, kv_transfer_params=self._computed(ask))
            usage = Usage(live.job.prompt_tokens, shown, live.job.cached_tokens)
            body = self._dialect.whole(head, words(said, said + shown), live.finish, usage)
            await send_page(send, Page(body))
        return ending

    async def _stream(self, live: Live, ask: Ask, shown: int, head: Head, send: Send) -> Ending:
        """Send every token once, in order, as soon as it is there."""
        said = ask.said_tokens
        await start_stream(send)
        frames = self._dialect.frames(head)
        usage = Usage(live.job.prompt_tokens, 0, 0)
        cut = self.faults.cut_after_tokens
        last = shown - 1 if cut is None else min(cut, shown - 1)
        seen = 0
        while True:
            tokens = await live.more(seen)
            usage.cached_tokens = live.job.cached_tokens
            parts = [frames.opening(usage)] if tokens > seen == 0 else []
            for i in range(seen, min(tokens, last)):
                usage.completion_tokens = i + 1
                parts.append(frames.token(words(said + i, said + i + 1), usage))
            if parts:
                await send_part(send, b"".join(parts), more=True)
            seen = tokens
            if cut is not None and tokens >= cut:
                return "aborted"  # uvicorn cuts the connection of a response left unfinished
            if live.ending is not None:
                break
        if live.ending == "finished":
            self._computed(ask)
            usage.completion_tokens = shown
            text = words(said + shown - 1, said + shown) if shown else ""
            await send_part(send, frames.closing(text, live.finish, usage), more=False)
        return live.ending

    async def _last_words(self, ask: Ask, leaving: asyncio.Future[Any], send: Send) -> None:
        """vLLM says that it died; SGLang's connections stay silent until they drop."""
        dead = self._dialect.dead()
        if dead is None:
            await asyncio.wait([leaving])
        elif ask.stream:
            await send_part(send, self._dialect.in_band(dead), more=False)
        else:
            raise dead
