"""What an engine is asked in order to learn how long its iterations take.

Three kinds, each telling something the others cannot:

- *prefill*: one prompt on an idle engine. Its time to first token is the API's overhead and its
  chunks.
- *decode*: several requests at once, started together; while all of them decode, every iteration
  is the same but for the growing context.
- *mixed*: a prompt sent while others decode. The gap it tears into their streams is one
  iteration with that prompt, free of any API overhead.

Shapes that are *held back* take no part in the fit; they show what it is worth.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal

Kind = Literal["prefill", "decode", "mixed"]

WINDOW_TOKENS = 24
"""Iterations that a decode shape is observed for."""
SHORT_TOKENS = 32
LEAST_PROMPT_TOKENS = 16
LEAD_TOKENS = 4
"""Mixed: tokens that each decoding request has before the prompt is sent."""
_SLACK_TOKENS = 32
"""Mixed: tokens of the others while the prompt is on its way through the server."""


@dataclass(frozen=True, slots=True)
class Shape:
    """One thing to ask.

    Attributes:
        kind: which of the three.
        seqs: requests at once: those that decode (mixed), all of them otherwise.
        prompt_tokens: of each of them.
        output_tokens: of each of them.
        injected_tokens: mixed only: the prompt sent while they decode.
        held_back: not fitted to.
    """

    kind: Kind
    seqs: int
    prompt_tokens: int
    output_tokens: int
    injected_tokens: int = 0
    held_back: bool = False

    @property
    def kv_tokens(self) -> int:
        """KV tokens it holds at most."""
        return self.seqs * (self.prompt_tokens + self.output_tokens) + self.injected_tokens

    def expected_s(self, pace: Pace) -> float:
        """About how long it will take."""
        prompts = self.seqs * self.prompt_tokens + self.injected_tokens
        return pace.prefill_s * prompts + self.output_tokens * (
            pace.step_s + pace.seq_s * self.seqs
        )


@dataclass(frozen=True, slots=True)
class Pace:
    """A first idea of the engine's speed, in seconds per prompt token, iteration and sequence."""

    prefill_s: float
    step_s: float
    seq_s: float


@dataclass(frozen=True, slots=True)
class Bounds:
    """What shapes must stay within.

    Attributes:
        max_prompt_tokens: longest prompt.
        max_seqs: most requests at once.
        kv_tokens: KV cache to fill.
        chunk_tokens: prompt tokens of one iteration.
        shape_s: longest time one shape may take.
    """

    max_prompt_tokens: int
    max_seqs: int
    kv_tokens: int
    chunk_tokens: int
    shape_s: float


def plan_shapes(bounds: Bounds, pace: Pace) -> list[Shape]:
    """All shapes within the bounds, each once, in a fixed order."""
    everything = [*_prefills(bounds), *_decodes(bounds, pace), *_mixed(bounds)]
    return [
        shape
        for shape in everything
        if shape.expected_s(pace) <= bounds.shape_s and shape.kv_tokens <= bounds.kv_tokens
    ]


def _prefills(bounds: Bounds) -> Iterator[Shape]:
    """Doubling lengths; every third is held back."""
    tokens, number = LEAST_PROMPT_TOKENS, 0
    while tokens <= bounds.max_prompt_tokens:
        yield Shape("prefill", 1, tokens, 1, held_back=number % 3 == 1)
        tokens, number = tokens * 2, number + 1


def _decodes(bounds: Bounds, pace: Pace) -> Iterator[Shape]:
    """Powers of two with short and long contexts; between them, held back, medium ones."""
    seqs = 1
    while seqs <= bounds.max_seqs:
        yield _decode(bounds, seqs, SHORT_TOKENS)
        affordable = int(0.5 * bounds.shape_s / (pace.prefill_s * seqs))
        room = bounds.kv_tokens // seqs - _decode(bounds, seqs, SHORT_TOKENS).output_tokens - 64
        long = min(affordable, room, bounds.max_prompt_tokens)
        if long >= 4 * SHORT_TOKENS:
            yield _decode(bounds, seqs, long)
        between = 3 * seqs // 2
        if 1 < between <= bounds.max_seqs and between != seqs:
            medium = max(SHORT_TOKENS, min(long, bounds.max_prompt_tokens) // 2)
            yield _decode(bounds, between, medium, held_back=True)
        seqs *= 2


def _decode(bounds: Bounds, seqs: int, prompt: int, *, held_back: bool = False) -> Shape:
    # The first of them decode while the last are on their way, and while theirs is computed.
    ramp = -(-seqs * prompt // bounds.chunk_tokens) + seqs
    return Shape("decode", seqs, prompt, WINDOW_TOKENS + ramp + 2, held_back=held_back)


def _mixed(bounds: Bounds) -> Iterator[Shape]:
    lengths = ((128, 1, False), (512, 1, False), (128, 4, False), (512, 4, False), (256, 2, True))
    for injected, seqs, held_back in lengths:
        fits = injected + seqs <= bounds.chunk_tokens and injected <= bounds.max_prompt_tokens
        if fits and seqs <= bounds.max_seqs - 1:
            output = seqs + LEAD_TOKENS + _SLACK_TOKENS
            yield Shape("mixed", seqs, SHORT_TOKENS, output, injected, held_back)
