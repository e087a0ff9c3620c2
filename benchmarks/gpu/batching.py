"""Continuous batching over one engine, as vLLM schedules: decodes first, prompts in chunks."""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch

from benchmarks.gpu.llama import Chunk, Engine
from benchmarks.gpu.shapes import PAGE_TOKENS

SEAT_TOKENS = 4096
"""Room of one sequence in the cache."""
CHUNK_TOKENS = 2048
MAX_SEQS = 256


@dataclass(frozen=True, slots=True)
class Work:
    """One iteration's work, in the terms of the engine model."""

    prefill_tokens: int
    decode_seqs: int
    context_tokens: int
    prefill_pairs: float


@dataclass(slots=True, eq=False)
class Run:
    """One sequence: what it shall get, and how far it is."""

    prompt_tokens: int
    output_tokens: int
    name: str = ""
    first_slot: int = -1
    done: int = 0
    token: int = 1
    emitted: int = 0

    @property
    def ended(self) -> bool:
        return self.emitted >= self.output_tokens


class Batch:
    """The sequences of one engine; each has a seat of its own in the cache.

    Args:
        engine: the model.
        seat_tokens: longest sequence.
        max_seqs: most sequences at once; fewer if the cache has fewer seats.
        chunk_tokens: most tokens of one iteration.
    """

    def __init__(
        self,
        engine: Engine,
        *,
        seat_tokens: int = SEAT_TOKENS,
        max_seqs: int = MAX_SEQS,
        chunk_tokens: int = CHUNK_TOKENS,
    ) -> None:
        self.engine, self.seat_tokens, self.chunk_tokens = engine, seat_tokens, chunk_tokens
        self.seats = min(max_seqs, engine.cache_tokens // seat_tokens)
        self.waiting: deque[Run] = deque()
        self.prompts: list[Run] = []
        self.decoding: list[Run] = []
        self._free = [seat_tokens * k for k in range(self.seats)]

    @property
    def idle(self) -> bool:
        return not (self.waiting or self.prompts or self.decoding)

    @property
    def held_tokens(self) -> int:
        """Tokens whose keys and values are kept."""
        return sum(run.done for run in (*self.prompts, *self.decoding))

    def submit(self, run: Run) -> None:
        """Queue a sequence; it must fit a seat."""
        self.waiting.append(run)

    def cancel(self, run: Run) -> None:
        """Forget a sequence; does nothing if it has ended. Only between iterations."""
        if run in self.decoding:
            self._leave(self.decoding.index(run))
        elif run in self.prompts:
            self.prompts.remove(run)
            self._free.append(run.first_slot)
        elif run in self.waiting:
            self.waiting.remove(run)

    def iterate(self) -> tuple[Work, list[Run]]:
        """One iteration; who gained a token by it."""
        chosen = self._choose()
        work = self._work(chosen)
        return work, self._emit(chosen, self._step(chosen))

    def _choose(self) -> list[tuple[Run, int]]:
        """Prompts of this iteration and how many tokens of each."""
        budget = self.chunk_tokens - len(self.decoding)
        chosen: list[tuple[Run, int]] = []
        while budget > 0:
            if len(chosen) == len(self.prompts):
                if not (self.waiting and self._free):
                    break
                self.prompts.append(self.waiting.popleft())
                self.prompts[-1].first_slot = self._free.pop()
            run = self.prompts[len(chosen)]
            tokens = min(budget, run.prompt_tokens - run.done)
            chosen.append((run, tokens))
            budget -= tokens
        return chosen

    def _work(self, chosen: Sequence[tuple[Run, int]]) -> Work:
        prefill = sum(tokens for _, tokens in chosen)
        context = sum(run.done + 1 for run in self.decoding)
        pairs = sum(tokens * (run.done + tokens / 2) for run, tokens in chosen)
        return Work(prefill, len(self.decoding), context, pairs)

    def _step(self, chosen: Sequence[tuple[Run, int]]) -> list[int]:
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

    def _emit(self, chosen: list[tuple[Run, int]], emitted: list[int]) -> list[Run]:
        before = len(self.decoding)
        for run, token in zip(self.decoding, emitted, strict=False):
            run.done += 1
            run.token, run.emitted = token, run.emitted + 1
        for (run, tokens), token in zip(chosen, emitted[before:], strict=True):
            run.done += tokens
            if run.done == run.prompt_tokens:
                run.token, run.emitted = token, 1
                self.prompts.remove(run)
                self._seat(len(self.decoding), run)
                self.decoding.append(run)
        gained = list(self.decoding)
        for row in reversed(range(len(self.decoding))):
            if self.decoding[row].ended:
                self._leave(row)
        return gained

    def _seat(self, row: int, run: Run) -> None:
        pages = self.seat_tokens // PAGE_TOKENS
        first = run.first_slot // PAGE_TOKENS
        table = self.engine.tables[row, :pages]
        torch.arange(first, first + pages, dtype=torch.int32, device=table.device, out=table)

    def _leave(self, row: int) -> None:
        self._free.append(self.decoding[row].first_slot)
        last = self.decoding.pop()
        if row < len(self.decoding):
            self.decoding[row] = last
            self._seat(row, last)
