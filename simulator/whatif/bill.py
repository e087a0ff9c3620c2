"""What a world costs, and how much of its traffic met the SLOs for that."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np

from router.config.load import MotleyConfig
from simulator.compare import Metric, interval_of, redraw
from simulator.results import Floats, RunResult, latencies
from simulator.traces.columns import Trace

Unit = Literal["s", "share", "per_s", "usd"]

_MEAN = Metric("mean", "slo_met", None)


@dataclass(frozen=True, slots=True)
class Line:
    """One metric in both worlds.

    Attributes:
        name: such as "TTFT P99".
        now, then: mean over the seeds, in ``unit``; ``None`` where nothing finished.
        change, low, high: then minus now, and its 95 % interval.
        verdict: "better", "worse" or "noise".
        unit: seconds, a share of 1, per second, or US dollars.
    """

    name: str
    now: float | None
    then: float | None
    change: float | None
    low: float | None
    high: float | None
    verdict: str
    unit: Unit = "s"


@dataclass(frozen=True, slots=True)
class Bill:
    """What a world costs, at the prices of the catalogue or the user's own.

    Attributes:
        usd_per_hour: of all cards.
        usd_per_million_tokens: at this traffic; ``None`` where nothing was generated.
        goodput_per_s: requests per second that met their SLO.
        lost: requests rejected, failed or cut off.
    """

    usd_per_hour: float
    usd_per_million_tokens: float | None
    goodput_per_s: float
    lost: int


@dataclass(frozen=True, slots=True)
class Runs:
    """One world: what it is, its traffic, and its replays in the order of the seeds."""

    config: MotleyConfig
    trace: Trace
    results: Sequence[RunResult]

    @property
    def span_s(self) -> float:
        """Seconds of traffic, never 0."""
        return max(self.trace.span_s, 1e-9)

    @property
    def requests_per_s(self) -> float:
        """Mean rate of arrivals."""
        return len(self.trace) / self.span_s

    @property
    def usd_per_request(self) -> float:
        """What the cards cost between two arrivals."""
        return usd_per_hour(self.config) / 3600.0 / self.requests_per_s

    def goodput(self, share: Floats) -> Floats:
        """Requests per second within their SLO, from the share that was."""
        return share * self.requests_per_s

    def cost(self, tokens: Floats) -> Floats:
        """US dollars per million tokens out, from the mean tokens of an answer; NaN at none."""
        usd = np.full_like(tokens, self.usd_per_request * 1e6)
        return np.divide(usd, tokens, out=np.full_like(tokens, math.nan), where=tokens > 0)


def met(result: RunResult) -> Floats:
    """1 for each request that met its SLO, 0 for each other, lost ones too."""
    return np.nan_to_num(np.asarray(latencies(result).slo_met, dtype=np.float64))


def tokens_out(result: RunResult) -> Floats:
    """Tokens of each answer."""
    return np.asarray(result.records.output_tokens, dtype=np.float64)


def bill_of(runs: Runs) -> Bill:
    """The means over the replays of one world."""
    lost = [int(np.isnan(latencies(result).e2e_s).sum()) for result in runs.results]
    goodput = np.mean(runs.goodput(_means(runs, met)))
    cost = np.mean(runs.cost(_means(runs, tokens_out)))
    return Bill(
        usd_per_hour(runs.config),
        known(float(cost)),
        float(goodput),
        round(float(np.mean(lost))),
    )


def rate_lines(now: Runs, then: Runs) -> Iterator[Line]:
    """Goodput and the price of tokens in both worlds, with intervals."""
    yield _line("goodput", "per_s", (now, now.goodput), (then, then.goodput), met, sign=1)
    yield _line(
        "$ per M tokens out", "usd", (now, now.cost), (then, then.cost), tokens_out, sign=-1
    )


_World = tuple[Runs, Callable[[Floats], Floats]]
_Column = Callable[[RunResult], Floats]


def _line(name: str, unit: Unit, now: _World, then: _World, column: _Column, *, sign: int) -> Line:
    """``sign`` is 1 where more is better, -1 where less is."""
    mine, theirs = (figure(_means(runs, column)) for runs, figure in (now, then))
    paired = (theirs - mine).tolist()

    def redrawn() -> Iterator[Floats]:
        for a, b in zip(now[0].results, then[0].results, strict=True):
            yield then[1](redraw(_MEAN, column(b))) - now[1](redraw(_MEAN, column(a)))

    low, high, _ = interval_of(paired, redrawn)
    change = float(np.mean(paired))
    verdict = "noise"
    if low > 0 or high < 0:
        verdict = "better" if change * sign > 0 else "worse"
    before, after = known(float(np.mean(mine))), known(float(np.mean(theirs)))
    return Line(name, before, after, known(change), known(low), known(high), verdict, unit)


def _means(runs: Runs, column: _Column) -> Floats:
    """Of one column, one a replay."""
    return np.array([column(result).mean() for result in runs.results])


def usd_per_hour(config: MotleyConfig) -> float:
    """Price of all cards of a fleet: the user's own prices, else the catalogue's."""
    own, catalog = config.planner.usd_per_hour, config.hardware.catalog
    return sum(
        own.get(spec.gpu, catalog.gpu(spec.gpu).price_usd_per_hour) * spec.tensor_parallel
        for spec in config.fleet.backends
    )


def known(value: float) -> float | None:
    """``None`` for what is no number, as JSON has it."""
    return value if math.isfinite(value) else None
