"""How far the iteration model is from measurements: fitted on, held back, and never fitted.

Three questions, three kinds of rows:

- *fitted*: can the formula describe an engine at all? Constants fitted to all rows of a table.
- *held back*: does it generalize? Fitted to every other row and tried on the rest (rows); fitted
  to one model and tried on the other (model).
- *priors*: what does a user get before any calibration? The constants as shipped, tried on
  engines of 2023 to 2026. Where such points informed a constant, the row says so.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np

from router.domain.fleet import BackendSpec
from router.perf import profiles
from router.perf.build import kv_capacity_tokens
from router.perf.catalog import Catalog, default_catalog
from router.perf.fit import fit_priors
from router.perf.measurements import Measurement, Setup, Vector, relative_errors
from router.perf.priors import Priors, priors_for
from router.perf.specs import ModelSpec

FITTED = "fitted"
ALTERNATE = "held back (rows)"
OTHER_MODEL = "held back (model)"
PRIORS = "priors, never fitted"
INFORMED = "priors, informed by these"

_POOLED = 0


@dataclass(frozen=True, slots=True)
class AccuracyRow:
    """Errors of one group of measurements.

    Attributes:
        engine: software, as the source words it.
        gpu, tensor_parallel: hardware; 0 cards means several counts pooled.
        phase: "all", "prefill", "decode", or "KV tokens" for the derived KV capacity.
        split: how the constants relate to these measurements.
        points: measurements in the group.
        median_ape, p95_ape: absolute percentage error, in percent.
        bias: median signed error in percent; negative means predicted too fast.
    """

    engine: str
    gpu: str
    tensor_parallel: int
    phase: str
    split: str
    points: int
    median_ape: float
    p95_ape: float
    bias: float


@dataclass(frozen=True, slots=True)
class AccuracyReport:
    """All rows, and where the data is too thin to say anything."""

    rows: tuple[AccuracyRow, ...]
    thin: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Table:
    """One measured table and how the model is fitted to it."""

    read: Callable[[Path], list[Measurement]]
    free: tuple[str, ...]
    fixed: dict[str, float]
    pool_cards: bool = False


_BARE = {"step_us": 0.0, "seq_us": 0.0, "allreduce_us": 0.0}
_TABLES = (
    _Table(profiles.helix, ("mfu", "mbu", "mbu_kv", "layer_us"), {**_BARE, "link_gb_per_s": 10.0}),
    _Table(profiles.splitwise, ("mfu", "step_us", "seq_us"), {"mbu": 0.8, "mbu_kv": 0.7}),
    _Table(
        profiles.vidur,
        ("mfu", "mbu", "layer_us", "exponent"),
        {**_BARE, "link_gb_per_s": 1e9},  # the kernels were timed without communication
        pool_cards=True,
    ),
)

_INFORMED = {
    ("l4", "vLLM 0.8.5"),
    ("l4", "vLLM 0.8.5 AWQ"),
    ("a100-40", "vLLM 0.20.1 AWQ"),
    ("v100-16", "vLLM 0.18.1"),
    ("t4", "TGIS 2023"),
}
"""Points that a shipped constant was chosen by; see the sources in the catalogue."""

_KNOWN_WEAKNESSES = (
    "Helix decode: context length is inferred (870 tokens) and times are rounded to 0.1 or 1 ms "
    "per layer; most of its P95 is that rounding and GEMM tile steps.",
    "Held back by model: llama-2-70b shares KV heads, so a fit to it alone cannot tell how fast "
    "KV is read, and predicts the decode of llama-30b (4.9 times the KV per token) badly.",
    "V100 prefill on current vLLM (Triton attention) rests on one published TTFT.",
    "TGIS of 2023 spends 0.7 to 1.9 ms per sequence outside the GPU; no current engine does, so "
    "its rows show what an unknown engine may do to the priors, not how fast these cards are.",
    "SGLang on an A100 was 1.3 times slower than vLLM in one 2026 run and level on an L4 in 2025: "
    "no engine factor ships, telemetry learns it.",
)


def accuracy_report(folder: Path) -> AccuracyReport:
    """Errors on all measured tables in ``folder``.

    Raises:
        ConfigError: a table that cannot be read.
    """
    known = default_catalog()
    rows: list[AccuracyRow] = []
    for table in _TABLES:
        for group in _groups(table.read(folder), pool_cards=table.pool_cards):
            rows.extend(_fitted_rows(table, group, known))
    unfitted = _unfitted(folder)
    for group in _groups(unfitted, pool_cards=False):
        rows.extend(_prior_rows(group, known))
    rows.extend(_kv_rows(folder, known))
    return AccuracyReport(tuple(rows), (*_thin_gpus(unfitted, known), *_KNOWN_WEAKNESSES))


def _fit_group(
    measurements: Sequence[Measurement],
    free: Sequence[str],
    fixed: dict[str, float],
    known: Catalog,
) -> Priors:
    """Constants of one GPU and card count, fitted to its rows of one table."""
    start = replace(_shipped(measurements[0].setup, known), **fixed)
    if start.link_gb_per_s < 60.0 and measurements[0].setup.tensor_parallel > 1:
        free = (*free, "link_gb_per_s")
    return fit_priors(measurements, start, free, known).priors


def _fitted_rows(
    table: _Table, group: Sequence[Measurement], known: Catalog
) -> Iterator[AccuracyRow]:
    def fit(training: Sequence[Measurement]) -> Priors:
        return _fit_group(training, table.free, table.fixed, known)

    cards = _POOLED if table.pool_cards else group[0].setup.tensor_parallel
    yield from _rows(group, relative_errors(group, fit(group), known), FITTED, cards)
    ordered = sorted(group, key=lambda m: (m.setup.model, m.setup.tensor_parallel, m.phase))
    held = ordered[1::2]
    yield from _rows(held, relative_errors(held, fit(ordered[::2]), known), ALTERNATE, cards)
    models = tuple(dict.fromkeys(m.setup.model for m in group))
    if len(models) < 2:
        return
    folds = [
        (
            [m for m in group if m.setup.model == model],
            [m for m in group if m.setup.model != model],
        )
        for model in models
    ]
    errors = [relative_errors(held, fit(training), known) for held, training in folds]
    pooled = [m for held, _ in folds for m in held]
    yield from _rows(pooled, np.concatenate(errors), OTHER_MODEL, cards)


def _prior_rows(group: Sequence[Measurement], known: Catalog) -> Iterator[AccuracyRow]:
    setup = group[0].setup
    errors = relative_errors(group, _shipped(setup, known), known)
    split = INFORMED if (setup.gpu, setup.engine) in _INFORMED else PRIORS
    yield from _rows(group, errors, split, setup.tensor_parallel, whole=False)


def _rows(
    measurements: Sequence[Measurement],
    errors: Vector,
    split: str,
    cards: int,
    *,
    whole: bool = True,
) -> Iterator[AccuracyRow]:
    """One row for all phases (where asked) and one per phase."""
    phases = np.array([m.phase for m in measurements])
    present = [p for p in ("prefill", "decode") if (phases == p).any()]
    if whole and len(present) > 1:
        yield _row(measurements[0].setup, "all", split, cards, errors)
    for phase in present:
        yield _row(measurements[0].setup, phase, split, cards, errors[phases == phase])


def _row(setup: Setup, phase: str, split: str, cards: int, errors: Vector) -> AccuracyRow:
    percent = 100.0 * errors
    return AccuracyRow(
        engine=setup.engine,
        gpu=setup.gpu,
        tensor_parallel=cards,
        phase=phase,
        split=split,
        points=len(errors),
        median_ape=float(np.median(np.abs(percent))),
        p95_ape=float(np.percentile(np.abs(percent), 95)),
        bias=float(np.median(percent)),
    )


def _kv_rows(folder: Path, known: Catalog) -> Iterator[AccuracyRow]:
    """Derived against resolved KV capacity, per GPU and card count."""
    errors: dict[tuple[str, int], list[float]] = {}
    for spec, layers, measured in profiles.helix_kv(folder):
        held = known.extended(models=[_some_layers(known.model(spec.model), layers)])
        derived = kv_capacity_tokens(spec, catalog=held)
        errors.setdefault((spec.gpu, spec.tensor_parallel), []).append(derived / measured - 1.0)
    for (gpu, cards), values in errors.items():
        setup = Setup(gpu, "", "Helix (KV blocks of vLLM 0.4)", cards)
        yield _row(setup, "KV tokens", PRIORS, cards, np.array(values))


def _some_layers(model: ModelSpec, layers: int) -> ModelSpec:
    """The part of a model that one pipeline node holds, embeddings included."""
    blocks = model.block_parameters * layers // model.layers
    rest = model.parameters - model.block_parameters
    return replace(model, layers=layers, parameters=blocks + rest)


def _groups(
    measurements: Iterable[Measurement], *, pool_cards: bool
) -> Iterator[list[Measurement]]:
    groups: dict[tuple[str, str, int], list[Measurement]] = {}
    for measurement in measurements:
        setup = measurement.setup
        cards = _POOLED if pool_cards else setup.tensor_parallel
        groups.setdefault((setup.engine, setup.gpu, cards), []).append(measurement)
    yield from groups.values()


def _unfitted(folder: Path) -> list[Measurement]:
    readers = (profiles.inference_bench, profiles.web_points, profiles.tgis)
    return [measurement for read in readers for measurement in read(folder)]


def _shipped(setup: Setup, known: Catalog) -> Priors:
    spec = BackendSpec("", setup.gpu, "vllm", setup.model, setup.tensor_parallel)
    return priors_for(spec, known.gpu(setup.gpu))


def _thin_gpus(unfitted: Sequence[Measurement], known: Catalog) -> Iterator[str]:
    """GPUs on which no current engine was measured, by phase."""
    current = [m for m in unfitted if not m.setup.engine.startswith("TGIS")]
    for gpu in known.gpus.values():
        counts = {
            phase: sum(m.phase == phase and m.setup.gpu == gpu.name for m in current)
            for phase in ("prefill", "decode")
        }
        few = [f"{n} {phase}" for phase, n in counts.items() if n < 3]
        if few:
            points = " and ".join(few)
            yield (
                f"{gpu.name}: {points} points on vLLM 0.8+ or SGLang; "
                f"confidence of its constants: {gpu.confidence}"
            )
