"""What arrives: one request, as far as anybody may know it before it is served (I6)."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from statistics import NormalDist

from router.domain.slo import Slo

LEAST_SIGMA, Z90 = 0.2, 1.2816
RARE = 1e-9


@dataclass(slots=True, unsafe_hash=True)
class LengthForecast:
    """How long an answer may get, in output tokens. Never the truth (I6).

    Not frozen, for speed only: nobody writes to one.

    Attributes:
        mean_tokens: expected length.
        p90_tokens: 90th percentile.
        square_tokens: expected square of the length; 0 when unknown.
    """

    mean_tokens: float
    p90_tokens: float
    square_tokens: float = 0.0

    @property
    def residual_tokens(self) -> float:
        """Tokens still to come of a request met in flight, and as many behind it.

        Long answers are met in flight more often, so it is the mean square over twice the mean
        (renewal theory), not half of the mean: five times as much on a code trace.
        """
        if not self.square_tokens:
            return 0.5 * self.mean_tokens
        return 0.5 * self.square_tokens / max(self.mean_tokens, 1.0)

    def beyond(self, tokens: int) -> LengthForecast:
        """What remains of an answer that is longer than ``tokens``; at least one token.

        Lengths are taken for log-normal, through the 90th percentile: who is longer than
        expected is likely to be much longer.
        """
        if tokens <= 0 or not self.mean_tokens:
            return LengthForecast(
                max(1.0, self.mean_tokens), max(1.0, self.p90_tokens), self.square_tokens
            )
        sigma = self._sigma
        mu = math.log(max(self.p90_tokens, self.mean_tokens, 1.0)) - Z90 * sigma
        z = (math.log(tokens) - mu) / sigma
        longer = _above(z)
        if longer < RARE:  # beyond all that was seen: what remains is exponential
            mean = max(1.0, tokens * sigma / z)
            return LengthForecast(mean, math.log(10.0) * mean, 2.0 * mean * mean)
        first = math.exp(mu + sigma**2 / 2) * _above(z - sigma) / longer
        second = math.exp(2 * mu + 2 * sigma**2) * _above(z - 2 * sigma) / longer
        p90 = math.exp(mu + sigma * NormalDist().inv_cdf(1.0 - 0.1 * longer)) - tokens
        mean = max(1.0, first - tokens)
        square = max(mean * mean, second - 2.0 * tokens * first + tokens * tokens)
        return LengthForecast(mean, max(1.0, p90), square)

    @property
    def _sigma(self) -> float:
        """Standard deviation of the length's logarithm."""
        mean = max(self.mean_tokens, 1.0)
        if self.square_tokens > mean * mean:
            return max(LEAST_SIGMA, math.sqrt(math.log(self.square_tokens / mean**2)))
        # The root of p90 = mean * exp(Z90 * s - s * s / 2), where there is one.
        ratio = math.log(max(self.p90_tokens, mean) / mean)
        return max(LEAST_SIGMA, Z90 - math.sqrt(max(0.0, Z90**2 - 2.0 * ratio)))


NO_FORECAST = LengthForecast(mean_tokens=0.0, p90_tokens=0.0)


@dataclass(slots=True)
class Request:
    """One request as the dispatcher sees it.

    Attributes:
        request_id: unique while the request lives.
        model: the model asked for, aliases resolved.
        arrival_s: when it reached the gateway, on the caller's clock.
        prompt_tokens: prompt length; an estimate in the gateway, exact in the simulator.
        max_tokens: the client's own limit on output tokens, if it set one.
        slo_class: name of the service class ("interactive", "throughput", "bulk").
        tenant: who pays; empty when unknown.
        session: key of a multi-turn conversation; empty when unknown.
        prefix_hashes: chained hashes of the prompt's leading blocks, for prefix caches.
        prefix_block_tokens: tokens per entry of ``prefix_hashes``; 0 when there are none.
        forecast: set by the dispatcher before a policy sees the request.
        slo: targets of its own, where they differ from those of its class.
        fallbacks: models that may answer instead under overload, best first; empty if the
            client wants this one.
        explain: whether to keep an account of the decision.
        carried_tokens: tokens of its answer that an attempt gave before it broke, and that are
            part of the prompt since (mid-stream continuation).
        shown_first_s: when the client got the first of them; ``None`` while there are none.
        whole: whether one backend must serve all of it, prompt and answer.
    """

    request_id: str
    model: str
    arrival_s: float
    prompt_tokens: int
    max_tokens: int | None = None
    slo_class: str = "interactive"
    tenant: str = ""
    session: str = ""
    prefix_hashes: tuple[int, ...] = ()
    prefix_block_tokens: int = 0
    forecast: LengthForecast = field(default=NO_FORECAST)
    slo: Slo | None = None
    fallbacks: tuple[str, ...] = ()
    explain: bool = False
    carried_tokens: int = 0
    shown_first_s: float | None = None
    whole: bool = False

    def carry(self, tokens: int, first_s: float | None) -> None:
        """Its answer broke off after so many tokens: what is left is a longer prompt.

        Args:
            tokens: of the answer, beyond those that it carries already.
            first_s: when the first of them came.
        """
        self.carried_tokens += tokens
        self.prompt_tokens += tokens
        if self.max_tokens is not None:
            self.max_tokens = max(1, self.max_tokens - tokens)
        if self.shown_first_s is None:
            self.shown_first_s = first_s
        self.fallbacks = ()  # another model would go on with something else
        self.forecast = self.forecast.beyond(tokens)


def _above(z: float) -> float:
    """Share of a standard normal distribution above ``z``."""
    return 0.5 * math.erfc(z / math.sqrt(2.0))
