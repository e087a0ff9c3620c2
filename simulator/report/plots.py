"""Plots as inline SVG: the same input gives the same bytes (I5).

Matplotlib's object interface only, so that nothing global is left behind.
"""

from __future__ import annotations

import io
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import numpy as np

from simulator.compare import Difference
from simulator.results import Floats, RunResult, latencies
from simulator.summary import share_by_gpu

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

_COLOURS = (
    *("#2563eb", "#dc2626", "#059669", "#d97706", "#7c3aed", "#0891b2"),
    *("#be185d", "#4d7c0f", "#475569", "#a16207", "#4338ca", "#0f766e"),
)
_GPU_COLOURS = (
    *("#1e40af", "#60a5fa", "#f59e0b", "#b45309", "#10b981", "#065f46"),
    *("#a78bfa", "#6d28d9", "#f472b6", "#9d174d", "#64748b", "#334155"),
)
_INK, _GRID, _NOISE, _FAINT = "#1e293b", "#e2e8f0", "#94a3b8", "#cbd5e1"
_STYLE: dict[Any, Any] = {
    "svg.fonttype": "none",
    "svg.hashsalt": "motley",
    "font.family": "sans-serif",
    "font.size": 10,
    "axes.edgecolor": "#94a3b8",
    "axes.labelcolor": _INK,
    "axes.titlesize": 11,
    "axes.titleweight": "bold",
    "axes.titlelocation": "left",
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.grid": True,
    "grid.color": _GRID,
    "grid.linewidth": 0.8,
    "xtick.color": _INK,
    "ytick.color": _INK,
    "legend.frameon": False,
}
_CDF_POINTS = 400
_LEVELS = (0.0, 0.5, 0.9, 0.99, 0.999)


def colours(names: Sequence[str], palette: Sequence[str] = _COLOURS) -> dict[str, str]:
    """A colour for every name, the same on every plot; grey beyond what eyes tell apart."""
    return {name: palette[k] if k < len(palette) else _FAINT for k, name in enumerate(names)}


def shares_plot(runs: Mapping[str, Sequence[RunResult]]) -> str:
    """Which kind of GPU served how much, per policy."""
    kinds = list(dict.fromkeys(spec.gpu for spec in next(iter(runs.values()))[0].backends))
    paint = colours(kinds, _GPU_COLOURS)
    with styled_figure(11.5, 1.4 + 0.3 * len(runs)) as figure:
        axis = figure.subplots()
        for row, results in enumerate(runs.values()):
            left = 0.0
            for kind in kinds:
                share = float(np.mean([share_by_gpu(result)[kind] for result in results]))
                label = kind if row == 0 else None
                axis.barh(row, share, left=left, color=paint[kind], height=0.66, label=label)
                if share > 0.04:
                    text = f"{100 * share:.0f} %"
                    axis.text(left + share / 2, row, text, ha="center", va="center", color="white")
                left += share
        axis.set_yticks(range(len(runs)), list(runs))
        axis.invert_yaxis()
        axis.set_xlim(0, 1)
        axis.set_xticks([])
        axis.grid(visible=False)
        axis.spines["bottom"].set_visible(False)
        figure.legend(loc="outside lower center", ncols=min(8, len(kinds)))
        return _svg(figure)


def cdf_plot(runs: Mapping[str, Sequence[RunResult]]) -> str:
    """Distribution of TTFT, TPOT and E2E per policy, P99 marked with a dot.

    Args:
        runs: by policy; those of several seeds are pooled.
    """
    paint = colours(list(runs))
    with styled_figure(11.5, 4.4) as figure:
        axes = figure.subplots(1, 3, sharey=True)
        for axis, (key, title) in zip(axes, _LATENCIES, strict=True):
            for policy, results in reversed(list(runs.items())):
                values = _pooled(results, key)
                if len(values):
                    _cdf(axis, values, policy, paint[policy])
            _log_seconds(axis)
            axis.set_title(title)
        axes[0].set_ylabel("share of requests at most this slow")
        axes[0].set_yticks([_nines(p) for p in _LEVELS], [f"{100 * p:g} %" for p in _LEVELS])
        axes[0].set_ylim(0, _nines(_LEVELS[-1]))
        _legend(figure, axes[0], 6)
        return _svg(figure)


def ranges_plot(runs: Mapping[str, Sequence[RunResult]]) -> str:
    """Median, P90 and P99 of each latency per policy, as one line from dot to dot."""
    paint = colours(list(runs))
    with styled_figure(11.5, 1.1 + 0.33 * len(runs)) as figure:
        axes = figure.subplots(1, 3, sharey=True)
        for axis, (key, title) in zip(axes, _LATENCIES, strict=True):
            for row, (policy, results) in enumerate(runs.items()):
                values = _pooled(results, key)
                if len(values):
                    low, middle, high = np.percentile(values, [50, 90, 99]).tolist()
                    axis.plot([low, high], [row, row], color=paint[policy], lw=2, alpha=0.35)
                    axis.plot(
                        [low, middle], [row, row], "o", color=paint[policy], ms=5, mfc="white"
                    )
                    axis.plot([high], [row], "o", color=paint[policy], ms=8)
            _log_seconds(axis)
            axis.set_title(title)
        axes[0].set_yticks(range(len(runs)), list(runs))
        axes[0].invert_yaxis()
        return _svg(figure)


def differences_plot(differences: Sequence[Difference], title: str) -> str:
    """Difference of each policy to the best, with its 95 % interval; noise is grey."""
    names = [difference.policy for difference in differences]
    with styled_figure(11.5, 1.2 + 0.33 * len(names)) as figure:
        axis = figure.subplots()
        for row, difference in enumerate(differences):
            bad = "#dc2626" if difference.verdict == "worse" else "#059669"
            colour = _NOISE if difference.is_noise else bad
            axis.plot([difference.low, difference.high], [row, row], color=colour, lw=2.5)
            axis.plot([difference.mean], [row], "o", color=colour, ms=7)
        axis.axvline(0, color=_INK, lw=1)
        axis.set_yticks(range(len(names)), names)
        axis.invert_yaxis()
        axis.set_title(title)
        axis.set_xlabel("seconds more than the best (grey: noise)")
        return _svg(figure)


def timeline_plot(result: RunResult) -> str:
    """Busy engines, queue and KV use over time, one line per kind of GPU."""
    kinds = list(dict.fromkeys(spec.gpu for spec in result.backends))
    paint = colours(kinds, _GPU_COLOURS)
    at_s = np.array(result.timeline.at_s)
    running = np.array(result.timeline.running, dtype=np.float64)
    waiting = np.array(result.timeline.waiting, dtype=np.float64)
    usage = np.array(result.timeline.kv_usage, dtype=np.float64)
    panels = (
        ("Engines at work", _smooth((running > 0).astype(np.float64)), "share"),
        ("Requests queued in engines", waiting, "per engine"),
        ("KV cache in use", usage, "share"),
    )
    with styled_figure(11.5, 3.0) as figure:
        axes = figure.subplots(1, 3)
        for axis, (title, values, unit) in zip(axes, panels, strict=True):
            for kind in kinds:
                mine = [k for k, spec in enumerate(result.backends) if spec.gpu == kind]
                axis.plot(at_s, values[:, mine].mean(axis=1), color=paint[kind], lw=1.4, label=kind)
            axis.set_title(title)
            axis.set_ylabel(unit)
            axis.set_xlabel("seconds")
            if unit == "share":
                axis.set_ylim(0, 1.03)
            else:
                axis.set_ylim(bottom=0)
        _legend(figure, axes[0], 8)
        return _svg(figure)


def goodput_plot(curves: Mapping[str, Sequence[tuple[float, float, float]]], target: float) -> str:
    """Goodput and SLO attainment against the offered load.

    Args:
        curves: by policy, points of (offered per second, goodput per second, attainment).
        target: attainment that counts as holding the SLO.
    """
    paint = colours(list(curves))
    with styled_figure(11.5, 4.2) as figure:
        goodput, attainment = figure.subplots(1, 2)
        for policy, points in curves.items():
            offered, good, met = zip(*sorted(points), strict=True)
            style = {"color": paint[policy], "marker": "o", "ms": 4, "lw": 1.8}
            goodput.plot(offered, good, label=policy, **style)
            attainment.plot(offered, met, **style)
        for axis in (goodput, attainment):
            axis.set_xlim(left=0)
        goodput.set_ylim(bottom=0)
        most = max((x for points in curves.values() for x, _, _ in points), default=1.0)
        goodput.plot([0, most], [0, most], color=_NOISE, ls=":", lw=1)
        attainment.axhline(target, color=_INK, ls="--", lw=1)
        attainment.set_ylim(0, 1.03)
        for axis, title in ((goodput, "Goodput"), (attainment, "SLO attainment")):
            axis.set_title(title)
            axis.set_xlabel("offered requests per second")
        goodput.set_ylabel("requests per second within their SLO")
        _legend(figure, goodput, 6)
        return _svg(figure)


_LATENCIES = (
    ("ttft_s", "Time to first token"),
    ("tpot_s", "Time per output token"),
    ("e2e_s", "End to end"),
)


def _pooled(results: Sequence[RunResult], key: str) -> Floats:
    values = np.concatenate([np.asarray(getattr(latencies(r), key)) for r in results])
    return np.asarray(values[~np.isnan(values)], dtype=np.float64)


def _cdf(axis: Axes, values: Floats, label: str, colour: str) -> None:
    """A curve through a few hundred quantiles, evenly spaced on the axis of nines."""
    shares = 1.0 - 10.0 ** -np.linspace(0.0, _nines(_LEVELS[-1]), _CDF_POINTS)
    at = np.maximum(np.quantile(values, shares), 1e-4)
    shown = label if colour != _FAINT else None
    axis.plot(at, _nines(shares), color=colour, lw=1.7, label=shown)
    p99 = max(float(np.quantile(values, 0.99)), 1e-4)
    axis.plot([p99], [_nines(0.99)], "o", color=colour, ms=6, zorder=5)


def _nines(share: Any) -> Any:
    """Where a share stands on an axis on which every nine is as long as the one before."""
    return -np.log10(1.0 - share)


def _log_seconds(axis: Axes) -> None:
    """A logarithmic axis of seconds with plain numbers at 1, 2 and 5."""
    from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter  # noqa: PLC0415

    axis.set_xlabel("seconds")
    if not axis.has_data():  # nothing finished
        axis.set_xticks([])
        return
    axis.set_xscale("log")
    low, high = axis.get_xlim()
    fine = high / low < 300
    axis.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5) if fine else (1,)))
    axis.xaxis.set_major_formatter(FuncFormatter(lambda value, _: f"{value:g}"))
    axis.xaxis.set_minor_formatter(NullFormatter())


def _legend(figure: Figure, axis: Axes, columns: int) -> None:
    """One legend below all panels, in the order of the policies."""
    handles, labels = axis.get_legend_handles_labels()
    if handles:
        order = reversed(range(len(handles))) if axis.get_xscale() == "log" else range(len(handles))
        places = list(order)
        figure.legend(
            [handles[k] for k in places],
            [labels[k] for k in places],
            loc="outside lower center",
            ncols=min(columns, len(handles)),
        )


def _smooth(values: Floats, width: int = 9) -> Floats:
    """Moving average over time; the samples are points, and a share is wanted."""
    if len(values) < width:
        return values
    kernel = np.ones(width) / width
    columns = [
        np.convolve(np.pad(column, width // 2, "edge"), kernel, "valid") for column in values.T
    ]
    return np.stack(columns, axis=1)


@contextmanager
def styled_figure(width: float, height: float) -> Iterator[Figure]:
    """A figure in Motley's style; the style is put back on leaving."""
    from matplotlib import rc_context  # noqa: PLC0415 - an extra, not a dependency
    from matplotlib.figure import Figure  # noqa: PLC0415

    with rc_context(_STYLE):
        yield Figure(figsize=(width, height), layout="constrained")


def _svg(figure: Figure) -> str:
    """The figure as an ``<svg>`` element that scales with the page."""
    buffer = io.StringIO()
    figure.savefig(buffer, format="svg", metadata={"Date": None, "Creator": None}, transparent=True)
    text = buffer.getvalue()
    return text[text.index("<svg") :]
