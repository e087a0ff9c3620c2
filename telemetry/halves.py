"""A request that two backends shared, as two: each side is judged by its own half only."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

from router.domain.outcome import Outcome, PrefillHalf

_QUEUED = 1


def halves(outcome: Outcome, first: PrefillHalf) -> Iterator[Outcome]:
    """What each side did, as if it had been all of a request.

    The prefill side answered with one token when the prompt was computed. The decode side had a
    prompt that was cached but for one token; how long its first token took says nothing of it, for
    the transfer is in there, so it counts as queued behind another and teaches decoding only.

    Args:
        outcome: of the whole request.
        first: its prefill half; nothing is told of it if nobody heard when it was over.
    """
    if first.finished_s is None:
        return
    yield replace(
        outcome,
        backend=first.backend,
        first_token_s=first.finished_s,
        finished_s=first.finished_s,
        output_tokens=1,
        prefilling_at_dispatch=first.prefilling_at_dispatch,
        decoding_at_dispatch=first.decoding_at_dispatch,
        fresh_tokens=first.fresh_tokens,
        meanwhile=None,
        prefill=None,
    )
    if outcome.first_token_s is not None:
        yield replace(
            outcome,
            dispatched_s=first.finished_s,
            cached_tokens=max(outcome.prompt_tokens - 1, 0),
            prefilling_at_dispatch=_QUEUED,
            fresh_tokens=1,
            prefill=None,
        )
