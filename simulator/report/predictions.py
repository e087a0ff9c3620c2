"""Predicted against actual, from a traffic record: is the belief right, backend by backend?

``bias`` is the geometric mean of actual over predicted; the errors are percentiles of
``|actual / predicted - 1|``; ``coverage`` says whether the past told the future: the second half of
a backend's requests is held against the 5th to 95th percentile of the first half, so 0.9 is right.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import msgspec
import numpy as np
import numpy.typing as npt

from router.domain.errors import BadInputError, TraceError
from simulator.report.plots import colours, styled_figure
from simulator.traces.directory import files_in

if TYPE_CHECKING:
    from matplotlib.axes import Axes

Floats = npt.NDArray[np.float64]
FIGURES = ("TTFT", "TPOT", "E2E")
FEWEST = 20
"""Requests below which a backend's percentiles say nothing."""

_LEVELS = np.linspace(0.02, 0.98, 25)
_COLUMNS = (
    *("backend", "status", "arrival_s", "first_token_s", "finished_s", "output_tokens"),
    *("predicted_ttft_s", "predicted_tpot_s", "predicted_output_tokens"),
)


class _Row(msgspec.Struct):
    backend: str = ""
    status: str = ""
    arrival_s: float | None = None
    first_token_s: float | None = None
    finished_s: float | None = None
    output_tokens: int | None = None
    predicted_ttft_s: float | None = None
    predicted_tpot_s: float | None = None
    predicted_output_tokens: float | None = None


@dataclass(frozen=True, slots=True)
class Predictions:
    """Pairs of one figure, in order of arrival.

    Attributes:
        predicted_s, actual_s: seconds, positive and finite.
        backend: name of each pair's backend.
    """

    predicted_s: Floats
    actual_s: Floats
    backend: npt.NDArray[np.str_]

    def of(self, backend: str) -> tuple[Floats, Floats]:
        """(predicted, actual) of one backend."""
        mine = self.backend == backend
        return self.predicted_s[mine], self.actual_s[mine]


@dataclass(frozen=True, slots=True)
class Report:
    """One figure of one backend; see the top of this module."""

    backend: str
    figure: str
    requests: int
    bias: float
    p50_error: float
    p95_error: float
    coverage: float | None


def read_predictions(source: Path) -> dict[str, Predictions]:
    """Read a record's file or directory; by figure.

    Raises:
        TraceError: it cannot be read, or holds no completed request with predictions.
        BadInputError: Parquet without pyarrow.
    """
    if not source.exists():
        raise TraceError("there is no such file or directory", path=str(source))
    files = files_in(source) if source.is_dir() else [source]
    rows = [row for file in files for row in _rows(file) if row.status == "completed"]
    rows.sort(key=lambda row: row.arrival_s or 0.0)
    found = {figure: _pairs(rows, figure) for figure in FIGURES}
    if not len(found["E2E"].actual_s):
        raise TraceError(
            "holds no completed request with predictions; give a traffic record as "
            "'motley serve --record DIR' writes it",
            path=str(source),
        )
    return found


def _rows(file: Path) -> Iterator[_Row]:
    if file.name.endswith(".jsonl"):
        decoder = msgspec.json.Decoder(_Row)
        with file.open("rb") as lines:
            for line in lines:
                try:
                    yield decoder.decode(line)
                except msgspec.DecodeError:
                    continue  # a torn last line
        return
    try:
        import pyarrow as pa  # noqa: PLC0415 - an extra, not a dependency
        import pyarrow.parquet as pq  # noqa: PLC0415
    except ImportError:
        raise BadInputError(
            f"{file}: reading Parquet needs pyarrow: pip install 'motley-router[report]'"
        ) from None
    try:
        with pq.ParquetFile(file) as table:
            names = [name for name in _COLUMNS if name in table.schema_arrow.names]
            for batch in table.iter_batches(columns=names):
                for row in batch.to_pylist():
                    yield msgspec.convert(row, _Row)
    except (OSError, pa.ArrowException, msgspec.ValidationError) as error:
        raise TraceError(f"no traffic record: {error}", path=str(file)) from None


def _pairs(rows: Sequence[_Row], figure: str) -> Predictions:
    pairs = [(*_pair(row, figure), row.backend) for row in rows]
    usable = [p for p in pairs if 0.0 < p[0] < np.inf and 0.0 < p[1] < np.inf]
    predicted = np.array([p[0] for p in usable], dtype=np.float64)
    actual = np.array([p[1] for p in usable], dtype=np.float64)
    return Predictions(predicted, actual, np.array([p[2] for p in usable], dtype=np.str_))


def _pair(row: _Row, figure: str) -> tuple[float, float]:
    """(predicted, actual) seconds; NaN for what was not seen or predicted."""
    nan = float("nan")
    arrival, first, end = row.arrival_s, row.first_token_s, row.finished_s
    ttft, tpot = row.predicted_ttft_s or nan, row.predicted_tpot_s or nan
    if arrival is None or first is None or end is None:
        return nan, nan
    if figure == "TTFT":
        return ttft, first - arrival
    if figure == "TPOT":
        more = (row.output_tokens or 0) - 1
        return tpot, (end - first) / more if more > 0 else nan
    expected = max(0.0, (row.predicted_output_tokens or nan) - 1.0)
    return ttft + expected * tpot, end - arrival


def reports(predictions: dict[str, Predictions]) -> list[Report]:
    """Every figure of every backend, and of all of them together (``all``)."""
    found = []
    for figure, pairs in predictions.items():
        for backend in ["all", *np.unique(pairs.backend).tolist()]:
            predicted, actual = (
                (pairs.predicted_s, pairs.actual_s) if backend == "all" else pairs.of(backend)
            )
            if len(actual):
                found.append(_report(backend, figure, actual / predicted))
    return found


def _report(backend: str, figure: str, ratios: Floats) -> Report:
    errors = np.abs(ratios - 1.0)
    half = len(ratios) // 2
    coverage = None
    if half >= FEWEST:
        low, high = np.quantile(ratios[:half], [0.05, 0.95])
        coverage = float(np.mean((ratios[half:] >= low) & (ratios[half:] <= high)))
    return Report(
        backend=backend,
        figure=figure,
        requests=len(ratios),
        bias=float(np.exp(np.mean(np.log(ratios)))),
        p50_error=float(np.quantile(errors, 0.5)),
        p95_error=float(np.quantile(errors, 0.95)),
        coverage=coverage,
    )


def plot_predictions(predictions: dict[str, Predictions], path: Path) -> None:
    """Draw predicted against actual, and how well quantiles hold, as PNG or SVG.

    Raises:
        BadInputError: matplotlib is missing, or the ending is neither .png nor .svg.
    """
    if path.suffix not in (".png", ".svg"):
        raise BadInputError(f"{path}: end the name of the plot with .png or .svg")
    try:
        import matplotlib  # noqa: F401, PLC0415 - an extra, not a dependency
    except ImportError:
        raise BadInputError("plots need matplotlib: pip install 'motley-router[report]'") from None
    names = sorted({name for pairs in predictions.values() for name in pairs.backend.tolist()})
    paint = colours(names)
    with styled_figure(13.5, 8.2) as figure:
        axes = figure.subplots(2, 3)
        for column, (title, pairs) in enumerate(predictions.items()):
            _scatter(axes[0][column], title, pairs, paint)
            _reliability(axes[1][column], title, pairs, paint)
        handles, labels = axes[0][-1].get_legend_handles_labels()
        figure.legend(handles, labels, loc="outside right upper", markerscale=3.0)
        figure.savefig(path, dpi=110)


def _scatter(axis: Axes, title: str, pairs: Predictions, paint: dict[str, str]) -> None:
    for name, colour in paint.items():
        predicted, actual = pairs.of(name)
        axis.scatter(predicted, actual, s=5, alpha=0.45, color=colour, label=name, linewidths=0)
    both: Any = np.concatenate([pairs.predicted_s, pairs.actual_s])
    # A stray millisecond would otherwise squeeze everything else into a corner.
    low, high = np.quantile(both, [0.002, 0.998]) * [0.7, 1.4] if len(both) else (0.1, 1.0)
    line = np.array([low, high])
    axis.plot(line, line, color="#1e293b", linewidth=1.0)
    axis.fill_between(line, line / 1.25, line * 1.25, color="#94a3b8", alpha=0.25, linewidth=0)
    axis.set(xscale="log", yscale="log", xlim=(low, high), ylim=(low, high))
    axis.set(xlabel="predicted, s", ylabel="actual, s", title=f"{title}: band is 25 %")


def _reliability(axis: Axes, title: str, pairs: Predictions, paint: dict[str, str]) -> None:
    """Quantiles of the first half's ratios against their share in the second half."""
    for name, colour in paint.items():
        predicted, actual = pairs.of(name)
        half = len(actual) // 2
        if half < FEWEST:
            continue
        ratios = actual / predicted
        bounds = np.quantile(ratios[:half], _LEVELS)
        observed = [float(np.mean(ratios[half:] <= bound)) for bound in bounds]
        axis.plot(_LEVELS, observed, color=colour, linewidth=1.4)
    axis.plot([0, 1], [0, 1], color="#1e293b", linewidth=1.0)
    axis.set(xlim=(0, 1), ylim=(0, 1), xlabel="quantile of the first half")
    axis.set(ylabel="share of the second half below", title=f"{title}: do quantiles hold?")
