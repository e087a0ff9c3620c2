"""Requests that come as they like, served as vLLM schedules them: decodes first, prompts in chunks.

What comes out is what a router sees (when each request came, got its first token and ended) and
what it does not see (each iteration's work and time).
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch

from benchmarks.gpu.kernels import PAGE_TOKENS
from benchmarks.gpu.llama import Chunk, Engine

SEAT_TOKENS = 4096
"""Room of one sequence in the cache."""
CHUNK_TOKENS = 2048
MAX_SEQS = 256


@dataclass(slots=True)
class Ask:
    """One request; times in seconds from the start, NaN until they are known."""

    arrival_s: float
    prompt_tokens: int
    output_tokens: int
    first_token_s: float = float("nan")
    finished_s: float = float("nan")


@dataclass(slots=True)
class Iteration:
    """One iteration: its work in the terms of the engine model, and when."""

    started_s: float
    time_s: float
    prefill_tokens: int
    decode_seqs: int
    context_tokens: int
    prefill_pairs: float


@dataclass(slots=True)
class _Run:
    ask: Ask
    first_slot: int
    done: int = 0
    token: int = 1
    emitted: int = 0


def poisson(rate_per_s: float, seconds: float, seed: int) -> list[Ask]:
    """Arrivals at a rate, with prompts of 700 and answers of 130 tokens in the median."""
    rng = random.Random(seed)
    asks, at_s = [], rng.expovariate(rate_per_s)
    while at_s < seconds:
        prompt = min(3500, max(16, round(rng.lognormvariate(6.55, 0.8))))
        output = min(500, max(8, round(rng.lognormvariate(4.87, 0.6))))
        asks.append(Ask(at_s, prompt, output))
        at_s += rng.expovariate(rate_per_s)
    return asks


def serve(
    engine: Engine,
    asks: Sequence[Ask],
    clock: Callable[[], float] = time.perf_counter,
    sleep: Callable[[float], None] = time.sleep,
) -> Iterator[Iteration]:
    """Serve all of them, in the order of ``asks``; fills in their times."""
    return _Server(engine, deque(asks), clock, sleep).run()


@dataclass
class _Server:
    engine: Engine
    coming: deque[Ask]
    clock: Callable[[], float]
    sleep: Callable[[float], None]
    waiting: deque[Ask] = field(default_factory=deque)
    prompts: list[_Run] = field(default_factory=list)
    decoding: list[_Run] = field(default_factory=list)

    def run(self) -> Iterator[Iteration]:
        seats = self.engine.cache_tokens // SEAT_TOKENS
        self.free = [SEAT_TOKENS * k for k in range(min(MAX_SEQS, seats))]
        start_s = self.clock()
        while self.coming or self.waiting or self.prompts or self.decoding:
            now_s = self.clock() - start_s
            while self.coming and self.coming[0].arrival_s <= now_s:
                self.waiting.append(self.coming.popleft())
            chosen = self._choose()
            if not chosen and not self.decoding:
                self.sleep(max(0.0, self.coming[0].arrival_s - now_s))
                continue
            work = self._work(chosen)
            emitted = self._step(chosen)
            end_s = self.clock() - start_s
            self._emit(chosen, emitted, end_s)
            yield Iteration(now_s, end_s - now_s, *work)

    def _choose(self) -> list[tuple[_Run, int]]:
        """Prompts of this iteration and how many tokens of each."""
        budget = CHUNK_TOKENS - len(self.decoding)
        chosen = []
        while budget > 0:
            if len(chosen) == len(self.prompts):
                if not (self.waiting and self.free):
                    break
                self.prompts.append(_Run(self.waiting.popleft(), self.free.pop()))
            run = self.prompts[len(chosen)]
            tokens = min(budget, run.ask.prompt_tokens - run.done)
            chosen.append((run, tokens))
            budget -= tokens
        return chosen

    def _work(self, chosen: Sequence[tuple[_Run, int]]) -> tuple[int, int, int, float]:
        prefill = sum(tokens for _, tokens in chosen)
        context = sum(run.done + 1 for run in self.decoding)
        pairs = sum(tokens * (run.done + tokens / 2) for run, tokens in chosen)
        return prefill, len(self.decoding), context, pairs

    def _step(self, chosen: Sequence[tuple[_Run, int]]) -> list[int]:
        tokens = [np.array([run.token for run in self.decoding], dtype=np.int32)]
        positions = [np.array([run.done for run in self.decoding], dtype=np.int32)]
        firsts = [np.array([run.first_slot for run in self.decoding], dtype=np.int32)]
        for run, count in chosen:
            positions.append(np.arange(run.done, run.done + count, dtype=np.int32))
            tokens.append(positions[-1] * 7 % self.engine.shape.vocab)
            firsts.append(np.full(count, run.first_slot, dtype=np.int32))
        at = np.concatenate(positions)
        return self.engine.step(
            np.concatenate(tokens),
            at,
            at + np.concatenate(firsts),
            len(self.decoding),
            [Chunk(run.first_slot, run.done, count) for run, count in chosen],
        )

    def _emit(self, chosen: list[tuple[_Run, int]], emitted: list[int], now_s: float) -> None:
        for run, token in zip(self.decoding, emitted, strict=False):
            self._advance(run, 1, token, now_s)
        for (run, tokens), token in zip(chosen, emitted[len(self.decoding) :], strict=True):
            run.done += tokens
            if run.done == run.ask.prompt_tokens:
                run.ask.first_token_s = now_s
                self._advance(run, 0, token, now_s)
                self.prompts.remove(run)
                self._seat(len(self.decoding), run)
                self.decoding.append(run)
        for row in reversed(range(len(self.decoding))):
            if self.decoding[row].emitted >= self.decoding[row].ask.output_tokens:
                self._leave(row)

    def _advance(self, run: _Run, computed: int, token: int, now_s: float) -> None:
        run.done += computed
        run.token, run.emitted, run.ask.finished_s = token, run.emitted + 1, now_s

    def _seat(self, row: int, run: _Run) -> None:
        pages = SEAT_TOKENS // PAGE_TOKENS
        first = run.first_slot // PAGE_TOKENS
        table = self.engine.tables[row, :pages]
        torch.arange(first, first + pages, dtype=torch.int32, device=table.device, out=table)

    def _leave(self, row: int) -> None:
        self.free.append(self.decoding[row].first_slot)
        last = self.decoding.pop()
        if row < len(self.decoding):
            self.decoding[row] = last
            self._seat(row, last)
