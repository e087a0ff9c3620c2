"""One finished attempt, reduced to what its neighbours need to know of it."""

from __future__ import annotations

from dataclasses import dataclass

from router.domain.outcome import Outcome

LONGEST_S = 3600.0
MOST_TOKENS = 4_000_000
"""A prompt or an answer longer than this is a broken counter."""

UNCLEAR_SHARE = 0.1
"""Where the engine finds more than this share of prompts in its cache, but does not say of which
request, first tokens tell nothing: 3000 tokens may have been computed, or 30."""

MIN_DECODE_STEPS = 8
"""Shorter answers say more about packets than about iterations."""

BUFFERED_TOKEN_S = 5e-5
"""Tokens that come faster than this were not streamed but buffered: no GPU decodes at 20 kHz."""


@dataclass(slots=True)
class Life:
    """One outcome, reduced.

    Attributes:
        dispatched_s, first_s, finished_s: when; without a streamed first token a guess.
        prompt: prompt tokens that had to be computed.
        pairs: attention pairs of that, ``n * (c + n / 2)`` on top of ``c`` cached ones.
        context: its KV tokens on average while it decoded.
        streamed: whether the first token came on its own.
        known: whether ``prompt`` is known, or a guess from the cache's hit ratio.
    """

    dispatched_s: float
    first_s: float
    finished_s: float
    prompt: int
    pairs: float
    context: float
    streamed: bool
    known: bool


def is_clear(outcome: Outcome, life: Life) -> bool:
    """Whether it is known what the engine did between dispatch and first token."""
    return life.known and outcome.prefilling_at_dispatch == 0


def life_of(outcome: Outcome, cached_share: float) -> Life | None:
    """The reduced outcome; ``None`` if its times or counts make no sense (or are NaN)."""
    dispatched_s, finished_s = outcome.dispatched_s, outcome.finished_s
    if not 0.0 <= finished_s - dispatched_s < LONGEST_S:
        return None
    if not (0 <= outcome.prompt_tokens < MOST_TOKENS and 0 <= outcome.output_tokens < MOST_TOKENS):
        return None
    first_s = outcome.first_token_s
    if first_s is not None and not dispatched_s < first_s <= finished_s:
        return None
    if outcome.output_tokens == 0:  # it ended before it decoded anything
        return Life(dispatched_s, finished_s, finished_s, 0, 0.0, 0.0, streamed=False, known=False)
    streamed = first_s is not None and not _buffered(outcome, first_s)
    if first_s is None or not streamed:
        # Only to place it among the others; what is learned from it is the whole duration.
        first_s = dispatched_s + _guess(outcome)
    prompt, cached, known = outcome.prompt_tokens, outcome.cached_tokens, True
    if cached is None:
        cached, known = int(prompt * cached_share), cached_share <= UNCLEAR_SHARE
    computed = max(1, prompt - cached)  # the last one always is
    pairs = computed * (max(0, prompt - computed) + computed / 2.0)
    context = prompt + outcome.output_tokens / 2.0
    return Life(dispatched_s, first_s, finished_s, computed, pairs, context, streamed, known)


def _guess(outcome: Outcome) -> float:
    """Seconds from dispatch to the first token as they were predicted, half of all at most."""
    half_s = (outcome.finished_s - outcome.dispatched_s) / 2.0
    since_dispatch_s = outcome.predicted_ttft_s - (outcome.dispatched_s - outcome.arrival_s)
    return since_dispatch_s if 0.0 <= since_dispatch_s < half_s else half_s


def _buffered(outcome: Outcome, first_s: float) -> bool:
    steps = outcome.output_tokens - 1
    return steps >= MIN_DECODE_STEPS and outcome.finished_s - first_s < steps * BUFFERED_TOKEN_S
