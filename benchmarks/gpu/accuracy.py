"""What the measurements under ``data`` say of the engine model.

``python -m benchmarks.gpu.accuracy`` needs no GPU. Fits the model to one half of the grid's points
and predicts the other (each half in turn), as ``motley calibrate --csv`` fits; predicts the
iterations of served traffic, to which nothing is fitted; and compares with the catalogue, which
knew nothing of this card but its datasheet.
"""

from __future__ import annotations

import argparse
import csv
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from router.domain.fleet import BackendSpec
from router.perf.calibration import PRIOR_STRENGTH, free_constants
from router.perf.catalog import default_catalog
from router.perf.fit import Fit, fit_priors
from router.perf.measurements import Measurement, Phase, Setup, Term, relative_errors
from router.perf.priors import Priors, iteration_model_from, priors_for
from router.perf.roofline import IterationModel

DATA = Path(__file__).parent / "data"
GPU = "h200"
MODELS = ("llama-3.1-8b", "llama-3.2-1b")
ENGINE = "plain PyTorch"
PHASES: tuple[Phase, ...] = ("decode", "prefill", "mixed")

Errors = NDArray[np.float64]


def about(model: str) -> dict[str, Any]:
    """The machine and the command of a measurement."""
    found: dict[str, Any] = json.loads((DATA / GPU / f"{model}_machine.json").read_text())
    return found


def grid(model: str) -> list[Measurement]:
    """The points of the grid; the mean of the passes' medians."""
    passes: dict[Term, list[float]] = {}
    for row in _rows(f"{model}_grid.csv"):
        passes.setdefault(_term(row), []).append(float(row["time_s"]))
    return [_measurement(model, term, float(np.mean(times))) for term, times in passes.items()]


def noise(model: str) -> Errors:
    """How far two passes over the same point are apart."""
    passes: dict[Term, list[float]] = {}
    for row in _rows(f"{model}_grid.csv"):
        passes.setdefault(_term(row), []).append(float(row["time_s"]))
    return np.array([abs(one / other - 1.0) for one, other in passes.values()])


def traffic(model: str, part: int) -> list[Measurement]:
    """Iterations of served traffic, every fifth (8B) or tenth of them."""
    rows = _rows(f"{model}_traffic{part}_iterations.csv")
    return [_measurement(model, _term(row), float(row["time_s"])) for row in rows]


def requests(model: str, part: int) -> list[dict[str, float]]:
    """Requests of served traffic: lengths and times from the start."""
    rows = _rows(f"{model}_traffic{part}_requests.csv")
    return [{name: float(value) for name, value in row.items()} for row in rows]


def shipped(model: str) -> Priors:
    """The catalogue's constants of this card."""
    return priors_for(BackendSpec("b", GPU, "vllm", model), default_catalog().gpu(GPU))


def fitted(measurements: Sequence[Measurement]) -> Fit:
    """Fit as ``motley calibrate --csv`` does."""
    start = shipped(measurements[0].setup.model)
    return fit_priors(
        measurements,
        start,
        free_constants(measurements),
        default_catalog(),
        prior_strength=PRIOR_STRENGTH,
    )


def held_back(measurements: Sequence[Measurement]) -> Errors:
    """Relative error of each point by the fit to the half that it is not in."""
    half = np.random.default_rng(0).permutation(len(measurements)) % 2
    errors = np.empty(len(measurements))
    for k in (0, 1):
        fit = fitted([m for m, h in zip(measurements, half, strict=True) if h != k])
        errors[half == k] = errors_of(
            [m for m, h in zip(measurements, half, strict=True) if h == k], fit.priors
        )
    return errors


def errors_of(measurements: Sequence[Measurement], priors: Priors) -> Errors:
    """(predicted - measured) / measured of each."""
    return relative_errors(measurements, priors, default_catalog())


def iteration_model(model: str, priors: Priors) -> IterationModel:
    """The iteration model of these constants."""
    known = default_catalog()
    fp16 = known.quantization("bf16")
    return iteration_model_from(priors, known.gpu(GPU), known.model(model), fp16)


def _rows(name: str) -> list[dict[str, str]]:
    with (DATA / GPU / name).open(newline="") as stream:
        return list(csv.DictReader(stream))


def _term(row: dict[str, str]) -> Term:
    names = ("prefill_tokens", "decode_seqs", "context_tokens", "prefill_pairs")
    return Term(*(float(row[name]) for name in names))


def _measurement(model: str, term: Term, time_s: float) -> Measurement:
    mixed: Phase = "mixed" if term.decode_seqs else "prefill"
    phase: Phase = mixed if term.prefill_tokens else "decode"
    return Measurement(Setup(GPU, model, ENGINE, quantization="bf16"), phase, (term,), time_s)


def table(*, only_grid: bool = False) -> str:
    """Median / P90 of the absolute error, in percent, by phase."""
    lines = [
        "| model, what | decode | prefill | mixed | all | bias |",
        "|---|--:|--:|--:|--:|--:|",
    ]
    for model in MODELS:
        points = grid(model)
        ours = fitted(points).priors
        lines += [
            _line(f"{model}: grid, catalogue", points, errors_of(points, shipped(model))),
            _line(f"{model}: grid, held back", points, held_back(points)),
        ]
        for part, rate in enumerate([] if only_grid else rates(model)):
            seen = traffic(model, part)
            where = f"{model}: traffic, {rate:g} requests/s"
            lines += [
                _line(f"{where}, catalogue", seen, errors_of(seen, shipped(model))),
                _line(f"{where}, fitted to the grid", seen, errors_of(seen, ours)),
            ]
    for model, other in () if only_grid else (MODELS, MODELS[::-1]):
        points = grid(model)
        errors = errors_of(points, fitted(grid(other)).priors)
        lines.append(_line(f"{model}: grid, fitted to {other}", points, errors))
    return "\n".join(lines)


def rates(model: str) -> list[float]:
    """Requests per second of each part of the traffic."""
    plan = about(model)["command"].split("--traffic ")[1].split()[0]
    return [float(part.split("x")[0]) for part in plan.split(",")]


def _line(what: str, points: Sequence[Measurement], errors: Errors) -> str:
    cells = []
    for phase in (*PHASES, None):
        mine = [e for e, m in zip(errors, points, strict=True) if phase in {None, m.phase}]
        size = 100.0 * np.abs(mine)
        few = len(mine) < 5
        cells.append("-" if few else f"{np.median(size):.1f} / {np.percentile(size, 90):.0f}")
    return f"| {what} | {' | '.join(cells)} | {100.0 * np.median(errors):+.1f} |"


def constants() -> str:
    """What was fitted, beside the catalogue."""
    names = ("mfu", "mfu_attn", "mbu", "mbu_kv", "step_us", "seq_us")
    lines = [f"| constants | {' | '.join(names)} |", "|---|" + "--:|" * len(names)]
    told = {f"catalogue, {GPU}": shipped(MODELS[0])}
    told |= {f"fitted, {model}": fitted(grid(model)).priors for model in MODELS}
    for what, priors in told.items():
        cells = " | ".join(f"{getattr(priors, name):.3g}" for name in names)
        lines.append(f"| {what} | {cells} |")
    return "\n".join(lines)


def source() -> str:
    """Which machine, when, and what it reaches."""
    told = about(MODELS[0])
    driver = told["nvidia_smi"].splitlines()[-1].split(",")[0]
    return (
        f"{told['gpu']}, driver {driver}, PyTorch {told['torch']}, {told['date'][:10]}; "
        f"copies at {told['copy_bytes_per_s'] / 1e12:.2f} TB/s, multiplies at "
        f"{told['bf16_flop_per_s'] / 1e12:.0f} TFLOP/s (bf16, 8192 x 8192)."
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--grid", action="store_true", help="only the errors on the grid")
    if parser.parse_args().grid:
        print(table(only_grid=True))
        return
    print(source(), table(), constants(), sep="\n\n")
    for model in MODELS:
        apart = 100.0 * noise(model)
        print(
            f"\n{model}: two passes over the grid are {np.median(apart):.1f} % apart in the "
            f"median, {np.percentile(apart, 90):.0f} % at P90."
        )


if __name__ == "__main__":
    main()
