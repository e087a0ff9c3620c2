"""What arrives: one request, as far as anybody may know it before it is served (I6)."""

from __future__ import annotations

from dataclasses import dataclass, field

from router.domain.slo import Slo


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
        expected = self.forecast
        self.forecast = LengthForecast(
            max(1.0, expected.mean_tokens - tokens), max(1.0, expected.p90_tokens - tokens)
        )
