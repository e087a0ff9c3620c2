"""What a finished request tells about its engine: how much work went into how many seconds.

A request sees two durations. From dispatch to first token: its own prefill, in iterations that
also serve the batch it joins. From first to last token: one iteration for each of its tokens,
with the batch around it, and with the prompts that others had computed meanwhile. The model is
``LinearCost``, so each duration is a sum of work amounts times the cost coefficients, and
learning them is a linear affair.

What the others did meanwhile is the router's own exact count (``Outcome.meanwhile``), so no
prediction enters, what was learned cannot feed back into itself, and all is known the moment the
request ends.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

from router.domain.outcome import Begun, Outcome
from telemetry.lives import LONGEST_S, MIN_DECODE_STEPS, Life, is_clear, life_of

Phase = Literal["prefill", "decode", "whole"]
"""Dispatch to first token; first to last token; both, where the answer was not streamed."""

MEMORY = 64.0
"""Requests over which the typical context and the prefix cache's true share are averaged."""

KEPT = 1.0 - 1.0 / MEMORY

ROUNDING = 1.0 + 1e-6

MOST_AMISS = 1.5
"""Prompts turn out at most so many times as long as was expected."""


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


class Sightings:
    """Turns the outcomes of one backend into sightings.

    Attributes:
        unusable: outcomes whose times or counts made no sense.
        unclear: decode phases of which it is not known what went on beside them.
    """

    def __init__(self, shape: EngineShape) -> None:
        self._shape = shape
        self._context_seconds = self._seconds = 0.0
        self._computed = self._expected = 0.0
        self.unusable = 0
        self.unclear = 0

    def note(
        self, outcome: Outcome, learn: bool = True, cached_share: float = 0.0
    ) -> list[Sighting]:
        """What one outcome tells.

        Args:
            outcome: in the order of their ends.
            learn: whether this one is to be told about, or only serves the others.
            cached_share: share of prompt tokens that the engine finds in its prefix cache,
                for outcomes that do not tell their own.
        """
        life = life_of(outcome, cached_share)
        if life is None:
            self.unusable += 1
            return []
        self._average(outcome, life)
        if not learn or outcome.status != "completed":
            return []
        prefill = self._prefill(outcome, life) if is_clear(outcome, life) else None
        decode = None
        if outcome.output_tokens > MIN_DECODE_STEPS:
            decode = self._decode(outcome, life)
            self.unclear += decode is None
        if life.streamed:
            return [one for one in (prefill, decode) if one is not None]
        return [_whole(prefill, decode)] if prefill and decode else []

    def first(self, attempt: Begun) -> Sighting | None:
        """What a first token tells while the answer still comes; what was cached is a guess.

        ``None`` if its prompt was queued behind another's, or its times make no sense.
        """
        first_s = attempt.first_token_s
        if first_s is None or not 0.0 < first_s - attempt.dispatched_s < LONGEST_S:
            return None
        if attempt.prefilling_at_dispatch:
            return None
        computed = max(1, round(attempt.fresh_tokens * self._amiss))
        pairs = computed * (max(0, attempt.prompt_tokens - computed) + computed / 2.0)
        life = Life(attempt.dispatched_s, first_s, first_s, computed, pairs, 0.0, True, True)
        return self._prefill(attempt, life)

    def _average(self, outcome: Outcome, life: Life) -> None:
        seconds = life.finished_s - life.first_s
        # A sequence that runs twice as long is twice as likely to be met in a batch.
        self._context_seconds = self._context_seconds * KEPT + life.context * seconds
        self._seconds = self._seconds * KEPT + seconds
        if outcome.fresh_tokens and life.prompt:
            self._computed = self._computed * KEPT + life.prompt
            self._expected = self._expected * KEPT + outcome.fresh_tokens

    @property
    def _context(self) -> float:
        """KV tokens of a typical running sequence."""
        return self._context_seconds / self._seconds if self._seconds > 0.0 else 0.0

    @property
    def _amiss(self) -> float:
        """Prompt tokens computed, over those expected: the prefix cache knows more, or less."""
        return min(MOST_AMISS, self._computed / self._expected) if self._expected > 0.0 else 1.0

    def _prefill(self, outcome: Outcome | Begun, life: Life) -> Sighting:
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

    def _decode(self, outcome: Outcome, life: Life) -> Sighting | None:
        """All tokens but the first; ``None`` if it is not known what went on beside them."""
        beside = outcome.meanwhile
        if beside is None or not 0.0 < beside.seconds <= beside.seq_s * ROUNDING:
            return None  # it has not been seen to decode, or the clock was set back
        steps, seqs = outcome.output_tokens - 1, beside.seq_s / beside.seconds
        amiss = self._amiss
        return Sighting(
            phase="decode",
            duration_s=life.finished_s - life.first_s,
            at_s=life.finished_s,
            requests=0.0,
            steps=steps + (0.0 if self._shape.mixed else beside.prefills),
            prefill_tokens=beside.prefill_tokens * amiss,
            seq_steps=steps * seqs,
            context_steps=steps * (life.context + max(0.0, seqs - 1.0) * self._context),
            prefill_pairs=beside.prefill_pairs * amiss,
        )


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
