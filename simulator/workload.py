"""From what a user typed to the trace that is replayed: source, window, load, labels, limits."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from difflib import get_close_matches
from pathlib import Path

import numpy as np

from router.domain.errors import TraceError
from simulator.arrivals import parse_process, retime
from simulator.synthetic import builtin_names, builtin_trace, is_builtin
from simulator.traces.columns import Trace
from simulator.traces.read import Window, check_window, cut, load_trace
from simulator.traces.transform import (
    apply_max_tokens,
    assign,
    jitter,
    mix,
    scale_rate,
    upsample,
)

_BUILTIN_S = 3600.0
_LONGEST_BUILTIN_S = 7 * 86_400.0
"""They are drawn whole: at 5.5 requests a second a week is 3.3 million."""


@dataclass(frozen=True, slots=True)
class TraceSpec:
    """A trace and how it is bent, in the order of the attributes.

    Attributes:
        source: a file, or the name of a built-in workload.
        format_name: forced format of the file; ``None`` means detected.
        strict: stop at a malformed line.
        mixed_with: further sources, merged by arrival.
        arrivals: an arrival process that replaces the trace's own times ("poisson", ...).
        rate_per_s: of that process.
        start_s, duration_s: the window, in seconds of the trace.
        upsample: copies of each request on average, on the same time axis.
        jitter_s: random delay of each arrival, at most.
        rate_scale: all times divided by it.
        model: replaces every request's model.
        models, classes: shares to draw missing models and service classes from.
        max_tokens: rule for the limits that traces do not tell (``transform.apply_max_tokens``).
    """

    source: str
    format_name: str | None = None
    strict: bool = False
    mixed_with: tuple[str, ...] = ()
    arrivals: str | None = None
    rate_per_s: float | None = None
    start_s: float = 0.0
    duration_s: float | None = None
    upsample: float = 1.0
    jitter_s: float = 0.0
    rate_scale: float = 1.0
    model: str | None = None
    models: Mapping[str, float] = field(default_factory=dict, hash=False)
    classes: Mapping[str, float] = field(default_factory=dict, hash=False)
    max_tokens: str = "ceiling"


def build_trace(spec: TraceSpec, seed: int) -> tuple[Trace, list[str]]:
    """Load or generate the trace and bend it.

    Args:
        spec: what and how.
        seed: of everything drawn: built-in workloads, arrivals, jitter, copies, labels (I5).

    Returns:
        The trace, and sentences on what was left out of it.

    Raises:
        TraceError: nothing usable, a number that makes no sense, or one that says nothing.
        UnknownNameError: no such format or arrival process.
    """
    if seed < 0:
        raise TraceError(f"a seed must be 0 or more, not {seed}")
    if spec.rate_per_s is not None and spec.arrivals is None:
        raise TraceError(
            f"--rate {spec.rate_per_s:g} says nothing without --arrivals, as in --arrivals "
            "poisson; --rate-scale 2 doubles a trace's own load"
        )
    sources = (spec.source, *spec.mixed_with)
    if spec.format_name is not None and all(map(is_builtin, sources)):
        raise TraceError(f"--format {spec.format_name} goes with files; {spec.source} is built in")
    rng = np.random.default_rng([seed, 0x7ACE])
    window = check_window(spec.start_s, spec.duration_s)
    loaded = [_source(name, spec, window, seed) for name in sources]
    notes = [note for _, note in loaded if note]
    traces = [trace for trace, _ in loaded]
    if spec.arrivals is not None:
        traces = [_arrive(trace, spec, window, rng) for trace in traces]
    trace = traces[0] if len(traces) == 1 else mix(traces)
    if spec.upsample != 1.0:
        trace = upsample(trace, spec.upsample, rng)
    trace = scale_rate(jitter(trace, spec.jitter_s, rng), spec.rate_scale)
    return apply_max_tokens(_label(trace, spec, rng), spec.max_tokens, rng), notes


def _source(name: str, spec: TraceSpec, window: Window, seed: int) -> tuple[Trace, str]:
    if is_builtin(name):
        end_s = window.end_s if window.duration_s is not None else window.start_s + _BUILTIN_S
        if end_s > _LONGEST_BUILTIN_S:
            raise TraceError(
                f"{name} is drawn for {_LONGEST_BUILTIN_S:,.0f} s (a week) at most, and --start "
                f"and --duration end at {end_s:g} s; --rate-scale and --upsample give more load"
            )
        whole = builtin_trace(name, duration_s=end_s, seed=seed)
        trace = Trace(name).extend(cut(whole.records(), window))
        if not len(trace):
            raise TraceError(f"no request arrives in this window of {name}; lengthen --duration")
        return trace, ""
    if not Path(name).exists():
        near = get_close_matches(name, builtin_names(), n=1)
        hint = f" Did you mean {near[0]!r}?" if near else ""
        raise TraceError(
            f"no such file, and no built-in workload: {', '.join(builtin_names())}.{hint}",
            path=name,
        )
    # Arrivals of one's own come before the window.
    part = Window() if spec.arrivals is not None else window
    trace, report = load_trace(
        Path(name), format_name=spec.format_name, strict=spec.strict, window=part
    )
    return trace, report.summary()


def _arrive(trace: Trace, spec: TraceSpec, window: Window, rng: np.random.Generator) -> Trace:
    if spec.rate_per_s is None:
        raise TraceError(f"--arrivals {spec.arrivals} needs --rate, in requests per second")
    assert spec.arrivals is not None
    timed = retime(trace, parse_process(spec.arrivals, spec.rate_per_s, rng))
    if window == Window():
        return timed
    kept = Trace(trace.name).extend(cut(timed.records(), window))
    if not len(kept):
        raise TraceError("no request arrives in this window; lengthen --duration")
    return kept


def _label(trace: Trace, spec: TraceSpec, rng: np.random.Generator) -> Trace:
    if spec.model is not None:
        renamed = Trace(trace.name)
        renamed.timed = trace.timed
        trace = renamed.extend(replace(r, model=spec.model or "") for r in trace.records())
    if spec.models:
        trace = assign(trace, "model", spec.models, rng)
    if spec.classes:
        trace = assign(trace, "slo_class", spec.classes, rng)
    return trace


def parse_shares(text: str, what: str, form: str = "name=share, as in a=3,b=1") -> dict[str, float]:
    """Read ``a=3,b=1``; ``form`` says in an error how it should look.

    Raises:
        TraceError: it is written otherwise.
    """
    shares: dict[str, float] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, _, share = part.partition("=")
        try:
            shares[name.strip()] = float(share)
        except ValueError:
            raise TraceError(f"{what}: {part!r} should look like {form}") from None
    return shares
