"""Choosing the least of a score, ties broken at random.

Ties are common (an idle fleet is one big tie) and how they are broken moves P99 by 4 to 15 %, so
every policy breaks them the same way.
"""

from __future__ import annotations

import random
from collections.abc import Callable, Sequence

from router.domain.state import BackendView


def least(
    candidates: Sequence[BackendView],
    score: Callable[[BackendView], float],
    rng: random.Random,
) -> BackendView:
    """The candidate with the least score."""
    scores = [score(view) for view in candidates]
    best = min(scores)
    if scores.count(best) == 1:
        return candidates[scores.index(best)]
    return rng.choice([view for view, s in zip(candidates, scores, strict=True) if s == best])
