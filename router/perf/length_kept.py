"""What is kept of length forecasts over a restart, and whether it still holds.

What was learned of one kind of traffic is wrong of another, and dangerous where answers are longer
now than they were: those that are really long go to slow cards. So until a model has seen enough
new answers, its old figures are doubted by a one-sided CUSUM test (Page 1954) on the logarithm of
actual over forecast::

    sum = max(0, sum + log(actual / forecast) - SLACK)        out of date at ``TOO_LONG``

A mean of lengths that spread as answers do (a factor of about e) is above their median, so while
nothing has changed the logarithm is half below zero on average and the sum rarely leaves 0. Only
longer answers count: short ones are over first, so early ones are short whatever is true.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

CellKey = tuple[str | int, ...]
"""Model; and tenant; and bucket of the prompt; and bucket of the limit: one to four of them."""
LEAF_DEPTH = 4

SLACK, TOO_LONG = 0.25, 5.0
CLIP = 2.5
"""One answer adds at most so much: three at least must agree."""
LEAST_TOKENS = 8.0
"""Added to both, so that answers of one token and of two are about as long."""
TRIED = 300
"""New answers after which nothing is doubted any more: by then the figures are mostly theirs."""


@dataclass(frozen=True, slots=True)
class LengthCell:
    """What one cell has learned, as it is kept over a restart.

    Attributes:
        key: which cell.
        weight: observations behind it, as far as they count.
        mean_tokens, p90_tokens, square_tokens: of the answers.
    """

    key: CellKey
    weight: float
    mean_tokens: float
    p90_tokens: float
    square_tokens: float


class Doubt:
    """The test of one model's old figures."""

    __slots__ = ("_left", "_said", "_sum")

    def __init__(self) -> None:
        self._sum, self._left = 0.0, TRIED
        self._said: dict[CellKey, float] = {}

    def hear(self, tokens: float, leaf: CellKey, forecast_tokens: float) -> None:
        """An answer is complete.

        Args:
            tokens: of the answer.
            leaf: that it belongs to.
            forecast_tokens: mean that is forecast of it now; what was forecast of the leaf at first
                is what is doubted.
        """
        said = self._said.setdefault(leaf, forecast_tokens)
        error = math.log((tokens + LEAST_TOKENS) / (said + LEAST_TOKENS))
        self._sum = max(0.0, self._sum + min(error, CLIP) - SLACK)
        self._left -= 1

    @property
    def justified(self) -> bool:
        """Answers are longer than the old figures say."""
        return self._sum > TOO_LONG

    @property
    def over(self) -> bool:
        """Enough new answers were heard."""
        return self._left <= 0
