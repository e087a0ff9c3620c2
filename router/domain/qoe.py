"""Andes QoE: how far a reader falls behind the timeline that he expects (Liu et al., 2024).

A reader expects the first token after ``tau`` and then one every ``gap`` seconds; his client shows
token i at ``v_1 = d_1, v_i = max(d_i, v_{i-1} + gap)``, so tokens that come faster earn nothing.
With ``TTLT = v_l``::

    QoE = min(1, sum_i (TTLT - v_i) / sum_i max(0, TTLT - (tau + (i - 1) * gap)))

It is 1 if no token is ever late. Here tokens are taken as evenly spaced after the first, which is
what TTFT and TPOT say of an answer; both sums then have closed forms.
"""

from __future__ import annotations

import math

from router.domain.slo import Slo

READING_S = 1.0 / 4.8
"""Seconds a reader needs for a token of text, where a class has no TPOT target (Andes)."""


def qoe(
    *,
    ttft_s: float,
    tpot_s: float,
    output_tokens: int,
    expected_ttft_s: float,
    expected_gap_s: float = READING_S,
) -> float:
    """QoE of one answer, 0 to 1.

    Args:
        ttft_s: time to its first token.
        tpot_s: time per further token; of no meaning if there is only one.
        output_tokens: tokens delivered, at least 1.
        expected_ttft_s: the reader's patience for the first token.
        expected_gap_s: the reader's time per token, more than 0.
    """
    count = output_tokens
    shown_gap_s = max(tpot_s, expected_gap_s) if count > 1 else expected_gap_s
    last_s = ttft_s + (count - 1) * shown_gap_s
    actual = shown_gap_s * count * (count - 1) / 2.0
    ahead = (last_s - expected_ttft_s) / expected_gap_s
    if ahead <= 0:
        return 1.0
    terms = min(count, math.ceil(ahead))
    expected = expected_gap_s * (terms * ahead - terms * (terms - 1) / 2.0)
    return min(1.0, actual / expected)


def qoe_under(slo: Slo, *, ttft_s: float, tpot_s: float | None, output_tokens: int) -> float | None:
    """QoE where the class's targets are what its readers expect; ``None`` without a TTFT target.

    Args:
        slo: the targets.
        ttft_s: time to the first token.
        tpot_s: ``None`` below two tokens.
        output_tokens: tokens delivered; below 1 nobody read anything: 0.
    """
    if slo.ttft_s is None:
        return None
    if output_tokens < 1:
        return 0.0
    return qoe(
        ttft_s=ttft_s,
        tpot_s=tpot_s or 0.0,
        output_tokens=output_tokens,
        expected_ttft_s=slo.ttft_s,
        expected_gap_s=slo.tpot_s or READING_S,
    )
