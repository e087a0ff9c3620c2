"""Ways to bend a trace: load, jitter, mixes, a stated ``max_tokens`` rule.

All return a new trace and draw only from the generator they are given (I5).
"""

from __future__ import annotations

import heapq
import math
from collections.abc import Iterator, Mapping, Sequence
from copy import deepcopy

import numpy as np

from router.domain.errors import TraceError
from simulator.traces.columns import Trace
from simulator.traces.record import TraceRecord


def scale_rate(trace: Trace, factor: float) -> Trace:
    """Multiply the load by dividing every arrival by ``factor``; keeps the bunching.

    Raises:
        TraceError: the factor is not positive.
    """
    if not (factor > 0 and math.isfinite(factor)):
        raise TraceError(f"the rate can only be scaled by a number above 0, not {factor:g}")
    if factor == 1.0:
        return trace
    scaled = deepcopy(trace)
    for i, arrival in enumerate(trace.arrival_s):
        scaled.arrival_s[i] = arrival / factor
    return scaled


def jitter(trace: Trace, width_s: float, rng: np.random.Generator) -> Trace:
    """Delay every arrival by up to ``width_s``: undoes coarse ticks (Mooncake's 3 s).

    Raises:
        TraceError: the width is negative.
    """
    if not (width_s >= 0 and math.isfinite(width_s)):
        raise TraceError(f"jitter must be 0 or more seconds, not {width_s:g}")
    if width_s == 0:
        return trace
    moved = deepcopy(trace)
    for i, delay in enumerate(rng.uniform(0.0, width_s, len(trace)).tolist()):
        moved.arrival_s[i] += delay
    return moved.in_order()


def upsample(trace: Trace, factor: float, rng: np.random.Generator) -> Trace:
    """Multiply the load by copying requests, keeping the time axis and its bursts.

    Every request appears ``factor`` times on average, its copies up to ``_SPREAD_S`` later, so
    counts over windows longer than that scale with the factor and keep their shape (dividing
    timestamps would also shorten every burst). Copies get the lengths of a random near
    neighbour, and sessions and prefixes of their own, so that they share no cache entry with
    the original.

    Raises:
        TraceError: the factor is not positive, or makes more than ``_MOST_REQUESTS``.
    """
    if not (factor > 0 and math.isfinite(factor)):
        raise TraceError(f"a trace can only be upsampled by a number above 0, not {factor:g}")
    if len(trace) * factor > _MOST_REQUESTS:
        raise TraceError(
            f"upsampling by {factor:g} makes {len(trace) * factor:,.0f} requests of "
            f"{len(trace):,}; more than {_MOST_REQUESTS:,} are too many"
        )
    copies = np.floor(factor + rng.random(len(trace))).astype(np.int64).tolist()
    more = Trace(trace.name)
    for i, count in enumerate(copies):
        for copy in range(count):
            more.append(trace.record(i) if copy == 0 else _copy(trace, i, copy, rng))
    if not len(more):
        raise TraceError(f"upsampling by {factor:g} leaves no request")
    return more.in_order()


_NEIGHBOURS, _SPREAD_S = 50, 1.0
_MOST_REQUESTS = 20_000_000
"""What a machine with a few GB still holds."""


def _copy(trace: Trace, i: int, copy: int, rng: np.random.Generator) -> TraceRecord:
    """Copy number ``copy`` of request ``i``."""
    if trace.has_prefixes:
        record = trace.record(i)  # lengths belong to the prefix
        record.prefix_hashes = tuple((h ^ (copy << 48)) for h in record.prefix_hashes)
    else:
        near = int(rng.integers(max(0, i - _NEIGHBOURS), min(len(trace), i + _NEIGHBOURS + 1)))
        record = trace.record(near)
    record.arrival_s = trace.arrival_s[i] + float(rng.uniform(0.0, _SPREAD_S))
    record.session = f"{trace.session[i]}#{copy}" if trace.session[i] else ""
    return record


def mix(traces: Sequence[Trace], name: str = "") -> Trace:
    """Merge traces by arrival, as when several services share a fleet."""
    streams = [_tagged(n, trace) for n, trace in enumerate(traces)]
    merged = Trace(name or "+".join(trace.name for trace in traces))
    merged.extend(record for _, _, record in heapq.merge(*streams, key=lambda item: item[:2]))
    return merged


def _tagged(n: int, trace: Trace) -> Iterator[tuple[float, int, TraceRecord]]:
    for record in trace.records():
        if record.session:
            record.session = f"{n}/{record.session}"
        record.prefix_hashes = tuple(h ^ (n << 56) for h in record.prefix_hashes)
        yield record.arrival_s, n, record


def assign(
    trace: Trace, field: str, shares: Mapping[str, float], rng: np.random.Generator
) -> Trace:
    """Draw the ``model`` or ``slo_class`` of every request that has none.

    Requests of one session get the same answer, because a conversation does not change model.

    Raises:
        TraceError: shares are negative or sum to nothing.
    """
    names, weights = list(shares), np.array(list(shares.values()), dtype=np.float64)
    if not names or bool(np.any(weights < 0)) or not weights.sum() > 0:
        raise TraceError(f"shares of {field} must be positive numbers, as in a=3,b=1")
    draws = rng.choice(len(names), size=len(trace), p=weights / weights.sum()).tolist()
    drawn, by_session = Trace(trace.name), dict[str, str]()
    for record, draw in zip(trace.records(), draws, strict=True):
        if not getattr(record, field):
            name = names[draw]
            if record.session:
                name = by_session.setdefault(record.session, name)
            setattr(record, field, name)
        drawn.append(record)
    drawn.timed = trace.timed
    return drawn


MAX_TOKENS_RULES = ("ceiling", "none", "mixed")
_USUAL_LIMITS = (256, 512, 1024, 2048, 4096)


def apply_max_tokens(trace: Trace, rule: str, rng: np.random.Generator) -> Trace:
    """Give a ``max_tokens`` to every request whose trace does not say what the client asked.

    SGLang's admission reserves by it, so it matters. ``ceiling`` (the default everywhere): the
    clients of one service share one setting, the smallest power of two no answer of the trace
    exceeds; tells nothing about any single answer. ``none``: clients set no limit. ``mixed``:
    each client picks one of 256 to 4096 at random among those its answer fits; mildly
    informative, as in life. A number: that limit for all; answers longer than it are cut,
    as an engine would.

    Raises:
        TraceError: no such rule.
    """
    if rule == "none":
        return trace
    limited = deepcopy(trace)
    ceiling = 1 << max(0, (max(trace.output_tokens, default=1) - 1).bit_length())
    for i, output in enumerate(trace.output_tokens):
        if trace.max_tokens[i]:
            continue
        if rule == "ceiling":
            limit = ceiling
        elif rule == "mixed":
            fitting = [limit for limit in _USUAL_LIMITS if limit >= output] or [ceiling]
            limit = fitting[int(rng.integers(len(fitting)))]
        else:
            limit = _fixed_limit(rule)
            limited.output_tokens[i] = min(output, limit)
        limited.max_tokens[i] = limit
    return limited


def _fixed_limit(rule: str) -> int:
    if not rule.isdigit() or int(rule) < 1:
        raise TraceError(
            f"unknown max_tokens rule {rule!r}; known: {', '.join(MAX_TOKENS_RULES)}, or a number"
        )
    return int(rule)
