"""What the answers to a shape say about the engine's iterations."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import pairwise
from statistics import median

from router.domain.fleet import EngineName
from router.perf.measurements import Term, prefill_terms
from simulator.live.shapes import WINDOW_TOKENS, Kind, Shape
from simulator.live.stream import Answer


@dataclass(frozen=True, slots=True)
class Observation:
    """One measured time as a sum of iterations.

    Attributes:
        kind: of the shape.
        terms: the iterations.
        time_s: what was measured.
        requests: how often the API's overhead is in it (0 or 1).
        held_back: not fitted to.
    """

    kind: Kind
    terms: tuple[Term, ...]
    time_s: float
    requests: int
    held_back: bool = False


def prefill_observation(shape: Shape, answer: Answer, chunk_tokens: int) -> Observation:
    """The time to first token of a prompt alone in the engine."""
    terms = prefill_terms(shape.prompt_tokens, chunk_tokens)
    return Observation("prefill", terms, answer.first_s - answer.sent_s, 1, shape.held_back)


def decode_observation(shape: Shape, answers: Sequence[Answer]) -> Observation | None:
    """The mean iteration while all of them decode; ``None`` if they hardly did so together."""
    start_s = max(answer.first_s for answer in answers)
    end_s = min(answer.last_s for answer in answers)
    steps, contexts, iterations = [], [], []
    for answer in answers:
        at_s, tokens = answer.between(start_s, end_s)
        if len(at_s) < 2:
            return None
        steps.append((at_s[-1] - at_s[0]) / (tokens[-1] - tokens[0]))
        iterations.append(tokens[-1] - tokens[0])
        contexts.append(shape.prompt_tokens + (tokens[0] + tokens[-1]) / 2)
    if median(iterations) < WINDOW_TOKENS / 2:
        return None
    term = Term(0, shape.seqs, sum(contexts))
    return Observation("decode", (term,), median(steps), 0, shape.held_back)


def mixed_observation(
    shape: Shape, decoding: Sequence[Answer], injected: Answer, engine: EngineName
) -> Observation | None:
    """The gap that a prompt tears into the streams of others; ``None`` if they were over."""
    gaps = [gap for answer in decoding for gap in _widest_gap(answer, injected)]
    if len(gaps) < shape.seqs:
        return None
    gap_s, iterations, tokens = sorted(gaps)[len(gaps) // 2]
    context = shape.seqs * (shape.prompt_tokens + tokens)
    prompt, pairs = shape.injected_tokens, shape.injected_tokens**2 / 2
    decode = Term(0, shape.seqs, context, weight=iterations - 1)
    if engine == "sglang":  # a prompt is an iteration of its own; the others decode after it
        terms = (Term(prompt, 0, 0.0, pairs), Term(0, shape.seqs, context, weight=iterations))
    else:
        terms = (Term(prompt, shape.seqs, context, pairs), decode)
    kept = tuple(term for term in terms if term.weight)
    return Observation("mixed", kept, gap_s, 0, shape.held_back)


def _widest_gap(answer: Answer, injected: Answer) -> Iterator[tuple[float, int, int]]:
    """Length, iterations and tokens before it of the widest gap around the injected prompt."""
    marks = list(zip(answer.at_s, answer.tokens, strict=True))
    around = [
        (later - earlier, after - before, before)
        for (earlier, before), (later, after) in pairwise(marks)
        if later > injected.sent_s and earlier < injected.first_s
    ]
    if around and answer.last_s > injected.first_s:
        yield max(around)
