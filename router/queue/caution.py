"""How much of the room below a TPOT target may be planned with, learned from the targets missed.

What a token will take is predicted from what a backend holds now; who comes next, how an engine
mixes prompts with tokens and what a belief is wrong by show only in what really came. So the share
of that room follows the misses of those whose target is the tightest, by the rule of adaptive
conformal inference (Gibbs and Candes, NeurIPS 2021)::

    log share += STEP * (ALLOWED - 1 if it missed, else ALLOWED)        LEAST <= share <= 1

In the long run ``ALLOWED`` of them miss, whatever the predictions are wrong by, as far as the share
can bring that about.
"""

from __future__ import annotations

import math
from collections.abc import Iterator

ALLOWED, STEP, LEAST = 0.01, 0.03, 0.5


class Caution:
    """The learned share of every model."""

    __slots__ = ("_logs",)

    def __init__(self) -> None:
        self._logs: dict[str, float] = {}

    def share(self, model: str) -> float:
        """From ``LEAST`` to 1, which it is where nothing was missed."""
        return math.exp(self._logs.get(model, 0.0))

    def __iter__(self) -> Iterator[str]:
        """Models of which something was learned."""
        return iter(self._logs)

    def learn(self, model: str, *, missed: bool) -> None:
        """An answer with the tightest target is complete."""
        step = STEP * (ALLOWED - 1.0 if missed else ALLOWED)
        log = min(max(self._logs.get(model, 0.0) + step, math.log(LEAST)), 0.0)
        self._logs[model] = log

    def forget(self) -> None:
        """Other targets hold from now on."""
        self._logs.clear()
