"""Requests that come as they like, served as vLLM schedules them: decodes first, prompts in chunks.

What comes out is what a router sees (when each request came, got its first token and ended) and
what it does not see (each iteration's work and time).
"""

from __future__ import annotations

import random
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import astuple, dataclass

from benchmarks.gpu.batching import Batch, Run
from benchmarks.gpu.llama import Engine


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
    batch, coming = Batch(engine), deque(asks)
    asked: dict[Run, Ask] = {}
    start_s = clock()
    while coming or not batch.idle:
        now_s = clock() - start_s
        while coming and coming[0].arrival_s <= now_s:
            ask = coming.popleft()
            run = Run(ask.prompt_tokens, ask.output_tokens)
            asked[run] = ask
            batch.submit(run)
        if batch.idle:
            sleep(max(0.0, coming[0].arrival_s - now_s))
            continue
        work, gained = batch.iterate()
        end_s = clock() - start_s
        for run in gained:
            if run.emitted == 1:
                asked[run].first_token_s = end_s
            asked[run].finished_s = end_s
        yield Iteration(now_s, end_s - now_s, *astuple(work))
