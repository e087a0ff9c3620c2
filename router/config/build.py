"""From settings to a dispatcher: the one place where the decision core is put together."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import asdict, replace
from typing import Any, TypeVar

from router.class_dispatcher import ClassDispatcher
from router.config.load import MotleyConfig
from router.decision_log import (
    LoggingClassDispatcher,
    LoggingDispatcher,
    Sink,
)
from router.dispatcher import Dispatcher
from router.domain.fleet import BackendSpec, Fleet
from router.domain.protocols import LengthPredictor, Observer
from router.domain.slo import slo_from_json
from router.domain.state import LinearCost
from router.fleet_state.capability import Capability
from router.fleet_state.fleet import CapabilityOf, FleetState
from router.health.breaker import BreakerConfig
from router.health.care import CareRules
from router.hedge import HedgeBudget, HedgeRules
from router.log_replay import recorded_capability
from router.pairing import Pairing, PairRules
from router.perf.hardware import Hardware
from router.perf.length import BucketLengthPredictor
from router.policies.registry import from_recipe
from router.queue.desk import ClassRules, Desk

Belief = Callable[[BackendSpec], LinearCost]
D = TypeVar("D", bound=Dispatcher)


def catalogue_belief(hardware: Hardware) -> Belief:
    """What the catalogue, or the user's own measurements, say of a backend's speed."""
    return lambda spec: hardware.iteration_model(spec).linear()


def capability(
    spec: BackendSpec, hardware: Hardware, belief: Belief, *, pairs: bool = False
) -> Capability:
    """What a backend can do, before any telemetry; ``pairs`` if its KV may have to move."""
    defaults = hardware.engine_defaults(spec)
    return Capability(
        cost=belief(spec),
        kv_capacity_tokens=hardware.kv_capacity_tokens(spec),
        max_context_tokens=hardware.context_limit_tokens(spec),
        chunk_tokens=defaults.max_num_batched_tokens,
        max_num_seqs=defaults.max_num_seqs,
        kv_bytes_per_token=hardware.kv_bytes_per_token(spec) if pairs else 0.0,
        prefix_caching=defaults.prefix_caching,
    )


def build_dispatcher(
    config: MotleyConfig,
    *,
    belief: Belief | None = None,
    predictor: LengthPredictor | None = None,
    observers: Sequence[Observer] = (),
    strict_context: bool = True,
    log: Sink | None = None,
) -> Dispatcher:
    """Put the decision core together.

    Args:
        config: the settings; ``config.policy.seed`` seeds the policy's randomness.
        belief: the policy's idea of each backend's speed, the catalogue's by default; the
            simulator passes a wrong one.
        predictor: of output lengths; learns from traffic by default.
        observers: told of every finished attempt.
        strict_context: see ``Dispatcher``.
        log: where to write the decision log, if anywhere.
    """
    believed = belief or catalogue_belief(config.hardware)
    capabilities: dict[str, Capability] = {}

    def remembered(spec: BackendSpec) -> Capability:
        known = capabilities[spec.name] = capability(
            spec, config.hardware, believed, pairs=config.disaggregation.enabled
        )
        return known

    header = _header(config, strict_context=strict_context)
    arguments: dict[str, Any] = {
        "predictor": BucketLengthPredictor() if predictor is None else predictor,
        "observers": observers,
        "capability_of": remembered,
    }
    if log is None:
        plain = ClassDispatcher if "admission" in header else Dispatcher
        return _assemble(plain, header, config.fleet, **arguments)
    dispatcher = _assemble(_logging(header), header, config.fleet, **arguments)
    known = {name: asdict(recorded) for name, recorded in capabilities.items()}
    fleet = [asdict(spec) for spec in config.fleet.backends]
    return dispatcher.log_to(log, {**header, "capabilities": known, "fleet": fleet})


def rebuild_dispatcher(header: Mapping[str, Any], log: Sink) -> LoggingDispatcher:
    """Build, from a decision log's first line, the dispatcher that can replay it.

    Forecasts and capabilities are in the log, so it does not matter which predictor and which
    catalogue made them.
    """
    recorded = {name: recorded_capability(c) for name, c in header["capabilities"].items()}
    fleet = Fleet(tuple(BackendSpec(**spec) for spec in header["fleet"]))
    dispatcher = _assemble(
        _logging(header),
        header,
        fleet,
        predictor=BucketLengthPredictor(),
        # Predictions at dispatch are made only for observers, and change no decision.
        observers=(),
        capability_of=lambda spec: recorded[spec.name],
    )
    return dispatcher.log_to(log, {k: v for k, v in header.items() if k != "call"})


def _header(config: MotleyConfig, *, strict_context: bool) -> dict[str, Any]:
    header = {
        "policy": config.policy.model_dump(),
        "slos": {name: asdict(slo) for name, slo in config.slos.items()},
        "breaker": config.reliability.breaker.model_dump(),
        "queue_size": config.reliability.queue_size,
        "queue_timeout_s": config.reliability.queue_timeout_s,
        "strict_context": strict_context,
    }
    care = CareRules(
        **config.reliability.outlier.model_dump(exclude={"enabled"}),
        slow_start_s=config.reliability.slow_start_s,
        panic_threshold=config.reliability.panic_threshold,
    )
    if not config.reliability.outlier.enabled:
        care = replace(care, failure_ratio=1.0)
    if care.failure_ratio < 1.0 or care.slow_start_s or care.panic_threshold:
        header["care"] = asdict(care)
    if config.admission.enabled:
        header["admission"] = config.admission.model_dump(exclude={"enabled"})
    if config.hedging.enabled:
        header["hedging"] = config.hedging.model_dump(exclude={"enabled"})
    if config.disaggregation.enabled:
        header["disaggregation"] = config.disaggregation.model_dump(exclude={"enabled"})
    return header


def _assemble(
    kind: type[D],
    header: Mapping[str, Any],
    fleet: Fleet,
    *,
    predictor: LengthPredictor,
    observers: Sequence[Observer],
    capability_of: CapabilityOf,
) -> D:
    dispatcher = kind(
        FleetState(fleet, capability_of, BreakerConfig(**header["breaker"])),
        from_recipe({**header["policy"], "slos": header["slos"]}),
        predictor,
        observers=observers,
        queue_size=header["queue_size"],
        queue_timeout_s=header["queue_timeout_s"],
        strict_context=header["strict_context"],
    )
    if "care" in header:
        dispatcher.state.care = CareRules(**header["care"])
    if "hedging" in header:
        dispatcher.hedging = HedgeBudget(HedgeRules(**header["hedging"]))
    if "disaggregation" in header:
        dispatcher.pairing = Pairing(PairRules(**header["disaggregation"]))
    if isinstance(dispatcher, ClassDispatcher):
        slos = {name: slo_from_json(slo) for name, slo in header["slos"].items()}
        rules = ClassRules(**header["admission"])
        dispatcher.serving(Desk(slos, rules, header["queue_size"]))
    return dispatcher


def _logging(header: Mapping[str, Any]) -> type[LoggingDispatcher]:
    return LoggingClassDispatcher if "admission" in header else LoggingDispatcher
