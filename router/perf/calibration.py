"""From a user's own measurements to overrides of the priors."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np

from router.perf.catalog import Catalog, default_catalog
from router.perf.fit import fit_priors
from router.perf.measured_csv import MeasuredBackend, read_measurements
from router.perf.measurements import Measurement, Vector, relative_errors
from router.perf.priors import Override, priors_for

PRIOR_STRENGTH = 1.0
"""Doubling a constant is as bad as one measurement 5 % off: what few points do not speak of
stays where it is, what many agree on moves."""

LONG_PROMPT_TOKENS = 4_096
"""Prompts from which the attention share shows in a prefill time."""


@dataclass(frozen=True, slots=True)
class Calibration:
    """One backend's constants, fitted.

    Attributes:
        override: what to write.
        points: measurements used.
        ignored: TTFT points above concurrency 1.
        before, after: median absolute percentage error with the priors and with the fit.
        at_bound: constants that ended on a physical bound; the data do not determine them.
    """

    override: Override
    points: int
    ignored: int
    before: float
    after: float
    at_bound: tuple[str, ...]


def calibrate_csv(path: Path, defaults: Mapping[str, str]) -> tuple[Calibration, ...]:
    """Fit each backend of a CSV file (see ``measured_csv``).

    Raises:
        ConfigError, TraceError: as ``read_measurements``.
    """
    known = default_catalog()
    return tuple(calibrate(backend, known) for backend in read_measurements(path, defaults, known))


def calibrate(backend: MeasuredBackend, catalog: Catalog) -> Calibration:
    """Fit one backend's constants, starting from its priors."""
    spec, measurements = backend.spec, backend.measurements
    start = priors_for(spec, catalog.gpu(spec.gpu))
    free = free_constants(measurements)
    fit = fit_priors(measurements, start, free, catalog, prior_strength=PRIOR_STRENGTH)
    values = {name: getattr(fit.priors, name) for name in free}
    return Calibration(
        override=Override(values, spec.gpu, spec.engine, spec.model, spec.tensor_parallel),
        points=len(measurements),
        ignored=backend.ignored,
        before=_median_ape(relative_errors(measurements, start, catalog)),
        after=_median_ape(relative_errors(measurements, fit.priors, catalog)),
        at_bound=fit.at_bound,
    )


def free_constants(measurements: Iterable[Measurement]) -> tuple[str, ...]:
    """The constants that these measurements say something about."""
    terms = [term for m in measurements for term in m.terms]
    free = ["mbu", "step_us"]
    if any(term.prefill_tokens >= 64 for term in terms):
        free.append("mfu")
    if any(term.prefill_pairs >= LONG_PROMPT_TOKENS**2 / 2 for term in terms):
        free.append("mfu_attn")
    if len({term.decode_seqs for term in terms if term.decode_seqs}) > 1:
        free += ["seq_us", "mbu_kv"]
    return tuple(free)


def _median_ape(errors: Vector) -> float:
    return float(100.0 * np.median(np.abs(errors)))
