"""What was measured, in the forms that fleet files take."""

from __future__ import annotations

from dataclasses import asdict
from pathlib import Path

from router.domain.errors import ConfigError
from router.perf.calibration import Calibration, calibrate
from router.perf.catalog import default_catalog
from router.perf.feasible import quantization_of
from router.perf.measured import REQUIRED, MeasuredCost
from router.perf.measured_csv import MeasuredBackend
from router.perf.measurements import Measurement, Setup
from router.perf.overrides import load_overrides
from router.perf.priors import Override, measured_for
from simulator.live.session import Measured
from simulator.live.setup import CPU, EngineSetup


def override_of(measured: Measured) -> Override:
    """The measured iteration, for exactly this card, engine, model and number of cards."""
    spec = measured.setup.spec
    values = {name: value for name, value in asdict(measured.fit.cost).items() if value}
    required = dict.fromkeys(REQUIRED, 0.0)
    return Override(required | values, spec.gpu, spec.engine, spec.model, spec.tensor_parallel)


def constants_of(measured: Measured) -> Calibration:
    """The card's constants that explain the same observations.

    Raises:
        ConfigError: a card or model that is not in the catalogue has no constants.
    """
    spec, catalog = measured.setup.spec, default_catalog()
    if spec.gpu == CPU or spec.model not in catalog.models:
        raise ConfigError(
            f"constants are shares of a catalogue card's peaks for a catalogue model, not of "
            f"{spec.gpu} with {spec.model}; leave out --form constants"
        )
    setup = Setup(
        spec.gpu,
        spec.model,
        spec.engine,
        spec.tensor_parallel,
        quantization_of(spec, catalog).name,
    )
    api_s = measured.fit.cost.api_s
    backend = MeasuredBackend(spec)
    for o in measured.probe.observations:
        if not o.held_back and o.time_s > o.requests * api_s:
            extra_s = o.requests * api_s
            backend.measurements.append(Measurement(setup, o.kind, o.terms, o.time_s, extra_s))
    return calibrate(backend, catalog)


def cost_from(path: Path, setup: EngineSetup) -> MeasuredCost:
    """The measured iteration of an engine in a file of overrides.

    Raises:
        ConfigError: the file cannot be read, or holds none for this engine.
    """
    cost = measured_for(setup.spec, load_overrides(path))
    if cost is None:
        spec = setup.spec
        raise ConfigError(
            f"{path} holds no measured iteration for gpu: {spec.gpu}, engine: {spec.engine}, "
            f"model: {spec.model}, tensor_parallel: {spec.tensor_parallel}; write it with motley "
            "calibrate --url"
        )
    return cost
