"""Arrival processes: when requests come, given how many per second on average.

Each is an endless iterator of seconds from 0, ascending, drawn from the generator it is given.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from itertools import islice

import numpy as np

from router.domain.errors import TraceError, UnknownNameError
from simulator.traces.columns import Trace

_BATCH = 4096


def constant(rate_per_s: float) -> Iterator[float]:
    """Evenly spaced."""
    step, n = 1.0 / rate_per_s, 0
    while True:
        yield n * step
        n += 1


def poisson(rate_per_s: float, rng: np.random.Generator) -> Iterator[float]:
    """Independent arrivals: the least bursty that independent users are."""
    return gamma(rate_per_s, 1.0, rng)


def gamma(rate_per_s: float, cv: float, rng: np.random.Generator) -> Iterator[float]:
    """Gamma gaps with coefficient of variation ``cv``: above 1 bursty, below 1 regular."""
    shape = 1.0 / (cv * cv)
    now = 0.0
    while True:
        for gap in rng.gamma(shape, 1.0 / (rate_per_s * shape), _BATCH).tolist():
            now += gap
            yield now


def on_off(
    rate_per_s: float, on_s: float, off_s: float, rng: np.random.Generator
) -> Iterator[float]:
    """Poisson bursts of mean length ``on_s`` between silences of mean length ``off_s``.

    Both lengths are exponential; the rate inside a burst is such that the mean is
    ``rate_per_s``.
    """
    burst_rate = rate_per_s * (on_s + off_s) / on_s
    now = 0.0
    while True:
        now += float(rng.exponential(off_s)) if off_s > 0 else 0.0
        end = now + float(rng.exponential(on_s))
        while True:
            now += float(rng.exponential(1.0 / burst_rate))
            if now >= end:
                now = end
                break
            yield now


def diurnal(
    rate_per_s: float, amplitude: float, period_s: float, rng: np.random.Generator
) -> Iterator[float]:
    """Poisson with rate ``rate * (1 - amplitude * cos(2 pi t / period))``: starts at night.

    By thinning (Lewis and Shedler, 1979).
    """
    peak = rate_per_s * (1.0 + amplitude)
    turn = 2.0 * math.pi / period_s
    for now in poisson(peak, rng):
        if rng.random() * (1.0 + amplitude) <= 1.0 - amplitude * math.cos(turn * now):
            yield now


def parse_process(text: str, rate_per_s: float, rng: np.random.Generator) -> Iterator[float]:
    """Build a process from its text form.

    ``poisson``, ``constant``, ``gamma:CV``, ``on-off:ON_S:OFF_S``, ``diurnal:AMPLITUDE:PERIOD_S``.

    Raises:
        UnknownNameError: no such process.
        TraceError: a parameter is missing or makes no sense.
    """
    name, *words = text.split(":")
    makers: dict[str, tuple[int, Callable[..., Iterator[float]]]] = {
        "constant": (0, lambda: constant(rate_per_s)),
        "poisson": (0, lambda: poisson(rate_per_s, rng)),
        "gamma": (1, lambda cv: gamma(rate_per_s, cv, rng)),
        "on-off": (2, lambda on_s, off_s: on_off(rate_per_s, on_s, off_s, rng)),
        "diurnal": (2, lambda amplitude, period_s: diurnal(rate_per_s, amplitude, period_s, rng)),
    }
    if name not in makers:
        raise UnknownNameError("arrival process", name, makers)
    if not (rate_per_s > 0 and math.isfinite(rate_per_s)):
        raise TraceError(f"the arrival rate must be more than 0 per second, not {rate_per_s:g}")
    count, make = makers[name]
    return make(*_parameters(name, words, count))


def _parameters(name: str, words: list[str], count: int) -> list[float]:
    try:
        values = [float(word) for word in words]
    except ValueError:
        values = []
    if len(values) != count or any(not (0 <= v < math.inf) for v in values):
        raise TraceError(
            f"arrival process {name!r} takes {count} numbers after ':', as in {_EXAMPLE[name]}"
        )
    if (name in ("gamma", "on-off") and values[0] <= 0) or (
        name == "diurnal" and not (values[0] <= 1 and values[1] > 0)
    ):
        raise TraceError(
            f"arrival process {name!r} makes no sense with {words}; try {_EXAMPLE[name]}"
        )
    return values


_EXAMPLE = {
    "constant": "constant",
    "poisson": "poisson",
    "gamma": "gamma:3",
    "on-off": "on-off:10:30",
    "diurnal": "diurnal:0.8:86400",
}


def retime(trace: Trace, process: Iterator[float]) -> Trace:
    """Give the requests of a trace, in their order, the arrivals of a process."""
    timed = Trace(trace.name)
    for i, now in enumerate(islice(process, len(trace))):
        record = trace.record(i)
        record.arrival_s = now
        timed.append(record)
    return timed
