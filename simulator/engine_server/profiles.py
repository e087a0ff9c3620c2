"""Shapes of the load that keeps a demo busy: when requests come, and how long they are."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from random import Random

from router.domain.errors import BadInputError, UnknownNameError

RATES: Mapping[str, float] = {"light": 2.0, "steady": 6.0, "burst": 4.0}
"""Requests per second of a profile, in the mean of its calm."""

BURST_EVERY_S, BURST_S, BURST_TIMES = 30.0, 6.0, 5.0
"""A burst begins this often, lasts this long, and has this many times the rate."""

TRACE, TRACE_WORKLOAD = "trace", "azure-conv-like"
PROFILES = (*RATES, TRACE)
_MEDIAN_PROMPT_TOKENS, _SIGMA, _MAX_PROMPT_TOKENS = 600, 1.0, 4_000


@dataclass(frozen=True, slots=True)
class Arrival:
    """One request.

    Attributes:
        at_s: after the start.
        prompt_tokens: of its prompt.
        output_tokens: of its answer; ``None`` leaves it to the engine.
    """

    at_s: float
    prompt_tokens: int
    output_tokens: int | None = None


def parse(text: str) -> tuple[str, float]:
    """Read ``--load``: a profile, or requests per second.

    Returns:
        Profile and rate; a rate of 0 is no load.

    Raises:
        UnknownNameError: no such profile.
        BadInputError: a number that is no rate.
    """
    if text in PROFILES:
        return text, RATES.get(text, 1.0)
    try:
        rate_per_s = float(text)
    except ValueError:
        raise UnknownNameError("load profile", text, PROFILES) from None
    if not 0.0 <= rate_per_s < math.inf:
        raise BadInputError(f"--load must be 0 or more requests per second, not {text}")
    return "steady", rate_per_s


def arrivals(profile: str, rate_per_s: float, seed: int) -> Iterator[Arrival]:
    """Requests without end, in order of time; Poisson, but for the trace."""
    if profile == TRACE:
        yield from _of_trace(seed)
        return
    rng, at_s = Random(seed), 0.0
    most = rate_per_s * (BURST_TIMES if profile == "burst" else 1.0)
    while True:
        at_s += rng.expovariate(most)
        calm = profile != "burst" or at_s % BURST_EVERY_S < BURST_EVERY_S - BURST_S
        if most > rate_per_s and calm and rng.random() * BURST_TIMES > 1.0:
            continue  # thinning: of the burst's arrivals only so many are the calm's
        tokens = math.exp(rng.gauss(math.log(_MEDIAN_PROMPT_TOKENS), _SIGMA))
        yield Arrival(at_s, min(_MAX_PROMPT_TOKENS, max(1, round(tokens))))


def _of_trace(seed: int) -> Iterator[Arrival]:
    """The built-in conversations, over and over."""
    from simulator.synthetic import builtin_trace  # noqa: PLC0415 - NumPy, and few want it

    hour_s, begin_s = 3600.0, 0.0
    while True:
        trace = builtin_trace(TRACE_WORKLOAD, seed=seed, duration_s=hour_s)
        for one in trace.records():
            yield Arrival(begin_s + one.arrival_s, one.input_tokens, one.output_tokens)
        begin_s += hour_s
        seed += 1
