"""One request as Motley's policy scores it, and the weights of the terms of its pain."""

from __future__ import annotations

import math

from router.domain.request import LengthForecast
from router.policies.tail_scale import TailScale

_exp, _log, _sqrt = math.exp, math.log, math.sqrt
Z90 = 1.2816
LEAST_VARIANCE = 0.01


class Ask:
    """What the pain needs to know of the request, and what all backends have in common.

    Args:
        prompt: prompt tokens.
        forecast: of its answer.
        waited_s: seconds since it arrived.
        now: the time.
        scale: recent tails of TTFT and E2E.
        weights: of the terms.
        urgency: how much a second of its own counts, at most 1.
        typical: it stands for others, so the prefill share of the moment is left out.

    Attributes:
        output: forecast output tokens, at least 1.
        spread: their expected square above the square of the expectation, weighted.
        context: its tokens when it is met in flight.
        per_late, per_overshoot, per_inflicted, per_price: factors of the terms.
        flat: 0, or by how much what is spread counts as its mean.
        least: the least pain so far, where no term can make less of one that is above it.
        tail_square: square of ``tail_e2e_s``.
    """

    __slots__ = (
        "_p90",
        "_sigma",
        "context",
        "flat",
        "least",
        "now",
        "output",
        "per_inflicted",
        "per_late",
        "per_overshoot",
        "per_price",
        "prompt",
        "spread",
        "tail_e2e_s",
        "tail_square",
        "tail_ttft_s",
        "typical",
        "waited_s",
    )

    def __init__(  # noqa: PLR0917
        self,
        prompt: int,
        forecast: LengthForecast,
        waited_s: float,
        now: float,
        scale: TailScale,
        weights: Weights,
        urgency: float = 1.0,
        typical: bool = False,
    ) -> None:
        output, square = forecast.mean_tokens, forecast.square_tokens
        output = output if output > 1.0 else 1.0
        product = output * output
        square = square if square > product else product
        self.prompt, self.output = prompt, output
        self.spread = weights.tail * (square - product)
        self.context = prompt + 0.5 * square / output
        self.waited_s, self.now, self.typical = waited_s, now, typical
        patience = 1.0 / urgency
        others = patience * patience
        self.tail_ttft_s = scale.ttft_s * patience
        self.tail_e2e_s = worst_s = scale.e2e_s * patience
        self.tail_square = worst_s * worst_s
        self.per_late = weights.ttft * scale.worth
        self.per_overshoot = weights.overshoot * scale.overshoot
        self.per_inflicted = 2.0 * weights.externality * others
        self.per_price = 2.0 * weights.price * others
        self.flat, self.least = 1.0 - weights.tail, math.inf
        p90 = forecast.p90_tokens
        self._p90 = p90 if p90 > output else output
        variance = _log(square / product)
        self._sigma = _sqrt(variance if variance > LEAST_VARIANCE else LEAST_VARIANCE)

    def exceeds(self, tokens: float) -> float:
        """Probability that the answer is longer: log-normal through the 90th percentile.

        The normal tail by its logistic approximation, within 0.01.
        """
        if tokens <= 1.0:
            return 1.0
        z = Z90 + _log(tokens / self._p90) / self._sigma
        return 1.0 / (1.0 + _exp(1.702 * z)) if z < 20.0 else 0.0


class Weights:
    """Weights of the terms of the pain; ``tail`` 0 makes means of whatever is spread.

    Attributes:
        add: whether every term adds to the pain.
    """

    __slots__ = ("add", "externality", "overshoot", "price", "tail", "ttft")

    def __init__(
        self,
        ttft: float,
        externality: float,
        price: float,
        tail: float = 1.0,
        overshoot: float = 0.0,
    ) -> None:
        self.ttft, self.externality, self.price, self.tail = ttft, externality, price, tail
        self.overshoot = overshoot
        self.add = min(externality, price, overshoot) >= 0.0 <= tail <= 1.0
