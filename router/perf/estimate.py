"""Predicted TTFT and TPOT of one more request on one backend, from its current state.

Used by policies and, as "the prediction at dispatch", by telemetry.
"""

from __future__ import annotations

from router.domain.state import BackendView


def decode_iteration_s(view: BackendView, extra_seqs: int = 0, extra_tokens: float = 0.0) -> float:
    """Seconds of one decode iteration with everything in flight decoding, and some more."""
    cost = view.cost
    return (
        cost.step_s
        + cost.seq_s * (view.in_flight + extra_seqs)
        + cost.context_s * (view.context_tokens + extra_tokens)
    )


def prefill_backlog_s(view: BackendView, now: float) -> float:
    """Seconds until the prompts already there are prefilled, progress deducted."""
    return _backlog_s(view, now, _decode_share_s(view)) if view.prefilling else 0.0


def _backlog_s(view: BackendView, now: float, share_s: float) -> float:
    cost = view.cost
    pending = view.pending_prefill_tokens
    iterations = pending / view.chunk_tokens + 1.0
    total = cost.prefill_s * pending + cost.pair_s * view.pending_prefill_pairs
    total += iterations * share_s
    return max(total - (now - view.prefill_since_s), 0.0)


def kv_wait_s(view: BackendView, prompt_tokens: int) -> float:
    """Seconds until enough KV is freed, if the prompt does not fit now.

    Requests finish at rate ``n / (remaining output * TPOT)`` and each frees the mean context.
    """
    excess = view.context_tokens + prompt_tokens - view.kv_capacity_tokens
    if excess <= 0 or not view.in_flight:
        return 0.0
    remaining_tokens = view.pending_output_tokens / view.in_flight
    drain_s = remaining_tokens * decode_iteration_s(view)
    # The share of what is held that has to go; at most all of it, and there may be nothing.
    return drain_s * excess / max(view.context_tokens, excess)


def ttft_s(view: BackendView, prompt_tokens: int, now: float, *, cached_tokens: int = 0) -> float:
    """Predicted seconds from now to the first token of one more request."""
    share = _decode_share_s(view)
    chunks = (prompt_tokens - cached_tokens) / view.chunk_tokens + 1.0
    own = view.cost.prompt_s(prompt_tokens, cached_tokens) + chunks * share
    if not view.in_flight:
        return own
    waiting = 0.5 * share + kv_wait_s(view, prompt_tokens)
    return own + (waiting + _backlog_s(view, now, share) if view.prefilling else waiting)


def tpot_s(view: BackendView, prompt_tokens: int, output_tokens: float) -> float:
    """Predicted seconds per output token of one more request."""
    return decode_iteration_s(view, 1, prompt_tokens + 0.5 * output_tokens)


def _decode_share_s(view: BackendView) -> float:
    cost = view.cost
    return cost.step_s + cost.seq_s * view.decoding + cost.context_s * view.context_tokens
