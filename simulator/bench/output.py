"""Load tests on disk: one row a run, appended, so that configurations can be compared."""

from __future__ import annotations

import csv
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from router.domain.errors import BadInputError
from simulator.bench.answer import Sample
from simulator.bench.figures import Figures

_SPREADS = ("ttft_s", "tpot_s", "itl_s", "e2e_s", "tokens_per_s")


def row(label: str, settings: Mapping[str, Any], found: Figures) -> dict[str, Any]:
    """One run as flat columns."""
    flat: dict[str, Any] = {"label": label, **settings}
    for name, value in found.document().items():
        if name in _SPREADS:
            flat |= {f"{name}_{part}": v for part, v in value.items()}
        elif not isinstance(value, dict):
            flat[name] = value
    return flat


def append_csv(path: Path, columns: Mapping[str, Any]) -> None:
    """Add one row; the header comes with the first.

    Raises:
        BadInputError: the file has other columns, or cannot be written.
    """
    names = list(columns)
    try:
        known = _header(path)
        if known and known != names:
            raise BadInputError(f"{path} has other columns: give --csv a new file")
        with path.open("a", newline="") as file:
            writer = csv.writer(file)
            if not known:
                writer.writerow(names)
            writer.writerow(columns.values())
    except OSError as error:
        raise BadInputError(f"cannot write {path}: {error.strerror}") from error


def append_json(path: Path, document: Mapping[str, Any]) -> None:
    """Add one line of JSON.

    Raises:
        BadInputError: it cannot be written.
    """
    try:
        with path.open("a") as file:
            file.write(json.dumps(document) + "\n")
    except OSError as error:
        raise BadInputError(f"cannot write {path}: {error.strerror}") from error


def _header(path: Path) -> list[str]:
    if not path.exists():
        return []
    with path.open(newline="") as file:
        return next(csv.reader(file), [])


def plot(path: Path, samples: Sequence[Sample], title: str) -> None:
    """TTFT, TPOT and E2E as cumulative distributions, P99 marked, and requests over time.

    Raises:
        BadInputError: matplotlib is missing, or the file cannot be written.
    """
    try:
        from matplotlib.figure import Figure  # noqa: PLC0415 - an extra, and slow to import
    except ImportError as error:
        raise BadInputError(
            "--plot needs matplotlib: pip install 'motley-router[report]'"
        ) from error
    figure = Figure(figsize=(12, 7), layout="constrained")
    figure.suptitle(title)
    grid = figure.add_gridspec(2, 3)
    done = [sample for sample in samples if sample.ok]
    panels: dict[str, list[float | None]] = {
        "TTFT, s": [s.ttft_s for s in done],
        "TPOT, ms": [s.tpot_s * 1000 for s in done if s.tpot_s is not None],
        "E2E, s": [s.e2e_s for s in done],
    }
    for place, (name, values) in enumerate(panels.items()):
        axes = figure.add_subplot(grid[0, place])
        _distribution(axes, sorted(v for v in values if v is not None))
        axes.set_xlabel(name)
    axes = figure.add_subplot(grid[1, :])
    begin_s = min((s.sent_s for s in samples), default=0.0)
    for what, color, ok in (("completed", "tab:blue", True), ("failed", "tab:red", False)):
        chosen = [s for s in samples if s.ok == ok]
        sent = [s.sent_s - begin_s for s in chosen]
        took = [s.e2e_s or 0.0 for s in chosen]
        axes.scatter(sent, took, s=12, color=color, label=f"{what} ({len(chosen)})")
    axes.set(xlabel="sent at, s", ylabel="E2E, s", ylim=(0, None))
    axes.legend()
    try:
        figure.savefig(path)
    except (OSError, ValueError) as error:
        raise BadInputError(f"cannot write the plot {path}: {error}") from error


def _distribution(axes: Any, values: Sequence[float]) -> None:
    if not values:
        axes.text(0.5, 0.5, "no data", ha="center", transform=axes.transAxes)
        return
    axes.step(values, [(i + 1) / len(values) for i in range(len(values))], where="post")
    p99 = values[min(len(values) - 1, int(0.99 * len(values)))]
    axes.axvline(p99, color="tab:red", linewidth=1)
    axes.set(ylim=(0, 1), ylabel="share of requests", title=f"P99 {p99:.3g}")
