"""What one engine counts: cheap to update a token at a time, rendered only when scraped."""

from __future__ import annotations

from bisect import bisect_left
from dataclasses import dataclass, field

from simulator.engine_server.dialect import FinishReason


class Histogram:
    """Counts of values by upper bound; ``observe`` costs one bisection."""

    __slots__ = ("_bounds", "_counts", "total")

    def __init__(self, bounds: tuple[float, ...]) -> None:
        self._bounds = bounds
        self._counts = [0] * (len(bounds) + 1)
        self.total = 0.0

    def observe(self, value: float) -> None:
        """Count one value."""
        self._counts[bisect_left(self._bounds, value)] += 1
        self.total += value

    def buckets(self) -> list[tuple[str, float]]:
        """Cumulative counts by upper bound, as Prometheus wants them."""
        so_far, out = 0, []
        for bound, count in zip([*map(str, self._bounds), "+Inf"], self._counts, strict=True):
            so_far += count
            out.append((bound, float(so_far)))
        return out


@dataclass(frozen=True, slots=True)
class Bounds:
    """Upper bounds of an engine's histograms, in seconds."""

    ttft: tuple[float, ...]
    itl: tuple[float, ...]
    tpot: tuple[float, ...]
    e2e: tuple[float, ...]


class Traffic:
    """Requests of one kind, streamed or not, that reached a token.

    All durations are emulated seconds.
    """

    def __init__(self, bounds: Bounds) -> None:
        self.ttft_s = Histogram(bounds.ttft)
        self.tpot_s = Histogram(bounds.tpot)
        self.e2e_s = Histogram(bounds.e2e)
        self.prompt_tokens = 0
        self.generation_tokens = 0
        self.requests = 0


@dataclass(slots=True)
class EngineStats:
    """Lifetime counts of one engine.

    Attributes:
        bounds: of the histograms.
        traffic: by "was it streamed".
        itl_s: gaps between tokens.
        finished: answers by their finish reason.
        computed_tokens, cached_tokens: prompt tokens by where their KV came from.
        aborted: requests whose client left.
        rejected: requests refused by the engine's own queue limit.
    """

    bounds: Bounds
    traffic: dict[bool, Traffic] = field(init=False)
    itl_s: Histogram = field(init=False)
    finished: dict[FinishReason, int] = field(default_factory=lambda: {"stop": 0, "length": 0})
    computed_tokens: int = 0
    cached_tokens: int = 0
    aborted: int = 0
    rejected: int = 0

    def __post_init__(self) -> None:
        self.traffic = {False: Traffic(self.bounds), True: Traffic(self.bounds)}
        self.itl_s = Histogram(self.bounds.itl)

    @property
    def prompt_tokens(self) -> int:
        """Prompt tokens of every request that reached a token."""
        return sum(t.prompt_tokens for t in self.traffic.values())

    @property
    def generation_tokens(self) -> int:
        """Tokens generated."""
        return sum(t.generation_tokens for t in self.traffic.values())

    def first_token(self, *, stream: bool, ttft_s: float, prompt: int, cached: int) -> None:
        """A request got its first token."""
        traffic = self.traffic[stream]
        traffic.ttft_s.observe(ttft_s)
        traffic.prompt_tokens += prompt
        traffic.generation_tokens += 1
        self.cached_tokens += cached
        self.computed_tokens += prompt - cached

    def token(self, *, stream: bool, gap_s: float) -> None:
        """A request got another token."""
        self.traffic[stream].generation_tokens += 1
        self.itl_s.observe(gap_s)

    def finish(
        self, *, stream: bool, reason: FinishReason, e2e_s: float, decode_s: float, tokens: int
    ) -> None:
        """A request got its last token, ``decode_s`` after its first."""
        traffic = self.traffic[stream]
        traffic.requests += 1
        traffic.e2e_s.observe(e2e_s)
        if tokens > 1:
            traffic.tpot_s.observe(decode_s / (tokens - 1))
        self.finished[reason] += 1
