"""Sends the requests of a load test and times the answers."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterator, Sequence
from dataclasses import dataclass

import httpx
import msgspec
import numpy as np

from simulator.bench.answer import AnswerReader, Sample
from simulator.bench.plan import Closed, Job, Open, Target
from simulator.live.prompts import random_prompt

Clock = Callable[[], float]
Settled = Callable[[int, int], object]
"""Told (requests settled, requests)."""

_Send = Callable[[Job, float], Awaitable[None]]

_TEXT = (
    "time year people way day man thing woman life child world school state family student group "
    "country problem hand part place case week company system program question work night point "
    "home water room mother area money story fact month lot right study book eye job word business"
)
WORDS = tuple(_TEXT.split(" "))
"""Common words: about one token each in every tokenizer."""

_PATHS = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
_SHOWN_CHARACTERS = 160


@dataclass(slots=True)
class Bench:
    """One load test; run once.

    Args:
        http: with the server's URL as its base.
        target: what is asked.
        clock: seconds, monotonic.
        rng: of the prompts.
        words_per_token: learned from the first answers where prompts are words.
    """

    http: httpx.AsyncClient
    target: Target
    clock: Clock
    rng: np.random.Generator
    words_per_token: float = 1.0

    async def run(
        self, jobs: Sequence[Job], load: Closed | Open, settled: Settled = lambda *_: None
    ) -> list[Sample]:
        """Send everything; one sample a request, in the order of sending."""
        samples: list[Sample] = []
        begin_s = self.clock()

        async def send(job: Job, due_s: float) -> None:
            samples.append(await self.ask(job, due_s))
            settled(len(samples), len(jobs))

        if isinstance(load, Closed):
            await self._closed(iter(jobs), load.concurrency, send)
        else:
            async with asyncio.TaskGroup() as group:
                for job in jobs:
                    due_s = begin_s + job.at_s
                    if (wait_s := due_s - self.clock()) > 0:
                        await asyncio.sleep(wait_s)
                    group.create_task(send(job, due_s))
        return sorted(samples, key=lambda sample: sample.sent_s)

    async def _closed(self, jobs: Iterator[Job], users: int, send: _Send) -> None:
        async def user() -> None:
            for job in jobs:  # the users share it: whoever is free takes the next
                await send(job, self.clock())

        async with asyncio.TaskGroup() as group:
            for _ in range(users):
                group.create_task(user())

    async def warm_up(self, job: Job, times: int) -> None:
        """Some requests that are not counted; they also tell how many tokens a word is."""
        for _ in range(times):
            sample = await self.ask(job, self.clock())
            if sample.ok and sample.input_tokens > 16 and self.target.endpoint == "chat":
                asked = max(1, round(job.input_tokens * self.words_per_token))
                self.words_per_token = min(2.0, max(0.2, asked / sample.input_tokens))

    async def ask(self, job: Job, due_s: float) -> Sample:
        """One request."""
        body = self._body(job)
        sample = Sample(due_s, self.clock())
        reader = AnswerReader(sample)
        try:
            async with self.http.stream(
                "POST",
                _PATHS[self.target.endpoint],
                content=body,
                headers={"content-type": "application/json"},
            ) as response:
                sample.backend = response.headers.get("x-motley-backend", "")
                if response.status_code != 200:
                    said = (await response.aread())[:_SHOWN_CHARACTERS].decode(errors="replace")
                    sample.error = f"HTTP {response.status_code}: {said}"
                    return sample
                async for piece in response.aiter_raw():
                    reader.feed(piece, self.clock())
        except httpx.TimeoutException:
            sample.error = "timeout: no byte came in time"
        except httpx.HTTPError as error:
            sample.error = f"connection: {str(error) or type(error).__name__}"
        return reader.finish()

    def _body(self, job: Job) -> bytes:
        target = self.target
        fields: dict[str, object] = {
            "model": target.model,
            "max_tokens": job.output_tokens,
            "temperature": target.temperature,
            "stream": True,
            "stream_options": {"include_usage": True},
        }
        if target.ignore_eos:
            fields["ignore_eos"] = True
        if target.endpoint == "chat":
            count = max(1, round(job.input_tokens * self.words_per_token))
            text = " ".join(WORDS[i] for i in self.rng.integers(0, len(WORDS), count).tolist())
            fields["messages"] = [{"role": "user", "content": text}]
        else:
            fields["prompt"] = random_prompt(job.input_tokens, self.rng)
        return msgspec.json.encode(fields | dict(target.extra))
