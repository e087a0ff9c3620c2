"""What a finished request tells about its engine: how much work went into how many seconds.

A request sees two durations. From dispatch to first token: its own prefill, in iterations that
also serve the batch it joins. From first to last token: one iteration for each of its tokens,
with the batch around it, and with the prompts that others had computed meanwhile. The model is
``LinearCost``, so each duration is a sum of work amounts times the cost coefficients, and
learning them is a linear affair.

What the others did is put together from *their* outcomes, so no prediction enters and what was
learned cannot feed back into itself. It is known once they have finished, so a request's decode
phase is judged a while after its end, two mean decode phases later. By then, of a request
dispatched at ``s`` with first token at ``a`` and end at ``f``:

- requests finished so far: their overlap with ``[a, f]`` is known exactly;
- requests in flight at ``s`` and still unfinished: as many as were in flight at ``s`` less those
  of them that have finished; they overlap all of it;
- requests that came in ``(s, f)`` and are still unfinished, some 10%: each finished one stands
  for 1/P(finished by now) of them (inverse probability weighting).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Literal

from router.domain.outcome import Outcome
from telemetry.lives import MIN_DECODE_STEPS, Life, is_clear, life_of

Phase = Literal["prefill", "decode", "whole"]
"""Dispatch to first token; first to last token; both, where the answer was not streamed."""

REMEMBERED = 1024
"""Outcomes kept per backend; a request longer than these cover tells nothing about its batch."""

TOGETHER_S = 0.002
"""First tokens within this of each other came out of the same iteration."""

MEMORY = 64.0
"""Requests over which the typical context and decode phase are averaged."""

KEPT = 1.0 - 1.0 / MEMORY

PATIENCE = 2.0
"""Decode phases are judged this many mean decode phases after their end ..."""

MOST_PATIENCE_S = 60.0
"""... and this long after it at the latest; where that is too short, the queue is so long that
nothing certain can be told, and nothing is."""

LEAST_KNOWN = 0.75
"""Share of the requests that came meanwhile which must have finished for a judgement."""


@dataclass(frozen=True, slots=True)
class EngineShape:
    """How an engine schedules, as far as it matters here.

    Attributes:
        chunk_tokens: most prompt tokens of one iteration.
        mixed: whether prompts are computed in the same iterations as decodes (chunked prefill
            of vLLM); else they are iterations of their own (SGLang, vLLM on Volta).
        ahead: iterations a busy engine has scheduled before the running one ends; a newcomer
            waits for them too.
    """

    chunk_tokens: int = 2048
    mixed: bool = True
    ahead: int = 0


VLLM_LIKE = EngineShape()


@dataclass(slots=True)
class Sighting:
    """Work done during one observed duration.

    Attributes:
        phase: which part of the request's life.
        duration_s: how long it took.
        at_s: when it ended.
        requests: 1 if the engine's front end and the network are in it, else 0.
        steps: iterations.
        prefill_tokens, prefill_pairs: prompt tokens computed in them, and their attention pairs.
        seq_steps: sequences decoded, summed over the iterations.
        context_steps: KV tokens read, summed over the iterations.
    """

    phase: Phase
    duration_s: float
    at_s: float
    requests: float
    steps: float
    prefill_tokens: float
    seq_steps: float
    context_steps: float
    prefill_pairs: float


@dataclass(slots=True)
class _Batch:
    """Mean batch around a request in its decode phase, itself not counted."""

    seqs: float = 0.0
    context: float = 0.0
    prefill_tokens: float = 0.0
    prefill_pairs: float = 0.0
    prefills: list[tuple[float, float]] = field(default_factory=list)

    def prefill_steps(self) -> float:
        """Iterations that computed prompts: those that end together were one."""
        steps, last_s = 0.0, -math.inf
        for at_s, weight in sorted(self.prefills):
            if at_s - last_s > TOGETHER_S:
                steps += weight
            last_s = at_s
        return steps


class Sightings:
    """Turns the outcomes of one backend into sightings; memory is bounded.

    Attributes:
        unusable: outcomes whose times or counts made no sense.
        unclear: decode phases whose surroundings did not become known in time.
    """

    def __init__(self, shape: EngineShape) -> None:
        self._shape = shape
        self._lives: deque[Life] = deque(maxlen=REMEMBERED)
        self._waiting: deque[tuple[Outcome, Life]] = deque(maxlen=REMEMBERED)
        self._context_seconds = 0.0
        self._seconds = 0.0
        self._mean_s = 0.0
        self.unusable = 0
        self.unclear = 0

    def note(
        self, outcome: Outcome, learn: bool = True, cached_share: float = 0.0
    ) -> list[Sighting]:
        """Remember one outcome and return what can be told now, of it and of earlier ones.

        Args:
            outcome: in the order of their ends.
            learn: whether this one is to be told about later, or only serves the others.
            cached_share: share of prompt tokens that the engine finds in its prefix cache,
                for outcomes that do not tell their own.
        """
        life = life_of(outcome, cached_share)
        if life is None:
            self.unusable += 1
            return []
        if self._lives and life.finished_s < self._lives[-1].finished_s - 1.0:
            self._lives.clear()  # the clock was set back: nothing before it can be compared
            self._waiting.clear()
        self._lives.append(life)
        self._average(life)
        told: list[Sighting] = []
        if learn and outcome.status == "completed":
            if outcome.output_tokens > MIN_DECODE_STEPS:
                self._waiting.append((outcome, life))
            if life.streamed and is_clear(outcome, life):
                told.append(self._prefill(outcome, life))
        if self._waiting:
            told += self._due(life.finished_s)
        return told

    def _average(self, life: Life) -> None:
        seconds, seen = life.finished_s - life.first_s, len(self._lives)
        self._mean_s += (seconds - self._mean_s) / (seen if seen < MEMORY else MEMORY)
        # A sequence that runs twice as long is twice as likely to be met in a batch.
        self._context_seconds = self._context_seconds * KEPT + life.context * seconds
        self._seconds = self._seconds * KEPT + seconds

    def _due(self, now: float) -> Iterator[Sighting]:
        """Decode phases whose surroundings are known by now."""
        patience_s = min(PATIENCE * self._mean_s, MOST_PATIENCE_S)
        while self._waiting and self._waiting[0][1].finished_s + patience_s <= now:
            outcome, life = self._waiting.popleft()
            known = _finished(now - life.finished_s, self._mean_s)
            decode = self._decode(outcome, life, now) if known >= LEAST_KNOWN else None
            if decode is None:
                self.unclear += 1
                continue
            if life.streamed:
                yield decode
            elif is_clear(outcome, life):
                yield _whole(self._prefill(outcome, life), decode)

    @property
    def _context(self) -> float:
        """KV tokens of a typical running sequence."""
        return self._context_seconds / self._seconds if self._seconds > 0.0 else 0.0

    def _prefill(self, outcome: Outcome, life: Life) -> Sighting:
        """The first token of a request whose prompt was not queued behind another's."""
        tokens = life.prompt
        batch = float(outcome.decoding_at_dispatch)
        beside = batch if self._shape.mixed else 0.0
        own = math.ceil(tokens / max(1.0, self._shape.chunk_tokens - beside))
        # It arrives in the middle of a running iteration, half of which is left on average.
        left = 0.5 + self._shape.ahead if batch else 0.0
        decoded = beside * own + batch * left
        return Sighting(
            phase="prefill",
            duration_s=life.first_s - life.dispatched_s,
            at_s=life.first_s,
            requests=1.0,
            steps=own + left,
            prefill_tokens=float(tokens),
            seq_steps=decoded,
            context_steps=decoded * self._context,
            prefill_pairs=life.pairs,
        )

    def _decode(self, outcome: Outcome, life: Life, now: float) -> Sighting | None:
        """All tokens but the first; ``None`` if the batch around them is not known."""
        steps, window_s = outcome.output_tokens - 1, life.finished_s - life.first_s
        batch = self._batch(outcome, life, now) if window_s > 0.0 else None
        if batch is None:
            return None
        return Sighting(
            phase="decode",
            duration_s=window_s,
            at_s=life.finished_s,
            requests=0.0,
            steps=steps + (0.0 if self._shape.mixed else batch.prefill_steps()),
            prefill_tokens=batch.prefill_tokens,
            seq_steps=steps * (1.0 + batch.seqs),
            context_steps=steps * (life.context + batch.context),
            prefill_pairs=batch.prefill_pairs,
        )

    def _batch(self, outcome: Outcome, life: Life, now: float) -> _Batch | None:
        """The batch after the first token; ``None`` if it reaches beyond memory."""
        batch = _Batch()
        start_s, first_s, end_s = life.dispatched_s, life.first_s, life.finished_s
        there_before = outcome.decoding_at_dispatch + outcome.prefilling_at_dispatch
        for other in reversed(self._lives):
            if other.finished_s <= start_s:
                break
            if other.dispatched_s < start_s:
                there_before -= 1
                if other.finished_s > first_s:
                    _overlap(batch, other, life, 1.0)
            elif other.first_s < end_s and other is not life:
                known = _finished(now - other.first_s, self._mean_s)
                _overlap(batch, other, life, 1.0 / max(LEAST_KNOWN, known))
        else:
            if len(self._lives) == REMEMBERED:
                return None
        staying = max(0, there_before)
        batch.seqs += staying
        batch.context += staying * self._context
        return batch


def _finished(age_s: float, mean_s: float) -> float:
    """Share of requests done at this age since their first token, taken as exponential."""
    return -math.expm1(-age_s / mean_s) if mean_s > 0.0 else 1.0


def _overlap(batch: _Batch, other: Life, life: Life, weight: float) -> None:
    """Add ``weight`` requests like ``other`` to the batch around ``life``'s decode phase."""
    first_s, end_s = life.first_s, life.finished_s
    began_s = other.first_s
    if began_s > first_s:
        batch.prefills.append((began_s, weight))
        batch.prefill_tokens += weight * other.prompt
        batch.prefill_pairs += weight * other.pairs
    else:
        began_s = first_s
    ended_s = other.finished_s if other.finished_s < end_s else end_s
    share = weight * (ended_s - began_s) / (end_s - first_s)
    batch.seqs += share
    batch.context += share * other.context


def _whole(prefill: Sighting, decode: Sighting) -> Sighting:
    """Both phases of an answer that came in one piece."""
    return Sighting(
        phase="whole",
        duration_s=prefill.duration_s + decode.duration_s,
        at_s=decode.at_s,
        requests=prefill.requests,
        steps=prefill.steps + decode.steps,
        prefill_tokens=prefill.prefill_tokens + decode.prefill_tokens,
        seq_steps=prefill.seq_steps + decode.seq_steps,
        context_steps=prefill.context_steps + decode.context_steps,
        prefill_pairs=prefill.prefill_pairs + decode.prefill_pairs,
    )
