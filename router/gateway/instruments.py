"""Everything that watches: metrics, learned speeds, SLO attainment, accuracy of predictions."""

from __future__ import annotations

import logging
from dataclasses import asdict, dataclass
from functools import partial
from importlib.metadata import PackageNotFoundError, version
from typing import Any

from router.config.build import catalogue_belief
from router.config.load import MotleyConfig
from router.domain.errors import UnknownNameError
from router.domain.protocols import Clock, Observer
from router.fleet_state.backend import BackendState
from router.gateway.engine import Engine
from telemetry.accuracy import Accuracy
from telemetry.drift import Drift
from telemetry.feedback import Feedback
from telemetry.learning import make_feedback, shape_of
from telemetry.metric_sources import (
    ask_accuracy,
    ask_feedback,
    ask_recorder,
    ask_scraper,
    ask_slos,
    count_drift,
)
from telemetry.metrics import GatewayMetrics
from telemetry.recorder import Recorder
from telemetry.router_sources import ask_dispatcher
from telemetry.scraper import Scraper, Target
from telemetry.slo_window import SloWindow
from telemetry.speeds import card_of

log = logging.getLogger("motley.telemetry")

CORRECT_EVERY_S = 1.0


@dataclass(frozen=True, slots=True)
class Instruments:
    """The observers of one gateway.

    Attributes:
        config: of the gateway.
        metrics, accuracy, slos: see ``telemetry``.
        feedback: learns each backend's speed; ``None`` where the configuration forbids it.
        recorder: the traffic record, if one is kept.
    """

    config: MotleyConfig
    metrics: GatewayMetrics
    accuracy: Accuracy
    slos: SloWindow
    feedback: Feedback | None
    recorder: Recorder | None = None

    @property
    def observers(self) -> tuple[Observer, ...]:
        """For the dispatcher."""
        learning = (self.feedback,) if self.feedback is not None else ()
        return (self.metrics, self.accuracy, self.slos, *learning)

    def expose(self, engine: Engine, scraper: Scraper | None, clock: Clock) -> None:
        """Let ``/metrics`` ask everybody who knows something."""
        engine.missed = self.slos.missed
        ask_dispatcher(self.metrics, engine.dispatcher)
        if self.feedback is not None:
            self.feedback.cached_share_of = partial(_hit_ratio, engine)
        ask_accuracy(self.metrics, self.accuracy, clock)
        self.slos.began_s = clock.now()
        ask_slos(self.metrics, self.slos, clock)
        if self.feedback is not None:
            ask_feedback(self.metrics, self.feedback)
        if scraper is not None:
            ask_scraper(self.metrics, scraper, clock)
        if self.recorder is not None:
            ask_recorder(self.metrics, self.recorder)

    def joined(self, backend: BackendState, scraper: Scraper | None) -> None:
        """A backend joined: learn it from its prior on."""
        spec = backend.spec
        self.relearn(backend)
        if scraper is not None and spec.url:
            scraper.add(Target(spec.name, spec.url, spec.engine))

    def relearn(self, backend: BackendState) -> None:
        """Learn a backend from its prior on: it is new, or another one than it was."""
        spec = backend.spec
        if self.feedback is not None:
            shape = shape_of(self.config.hardware.engine_defaults(spec))
            self.feedback.add(spec.name, backend.prior, shape, spec.group, card_of(spec))

    def left(self, name: str, scraper: Scraper | None) -> None:
        """A backend left: forget what was learned of it."""
        self.metrics.forget(name)
        self.accuracy.forget(name)
        if self.feedback is not None:
            self.feedback.remove(name)
        if scraper is not None:
            scraper.remove(name)

    def beliefs(self, now: float) -> dict[str, dict[str, Any]]:
        """What is believed of each backend, how surely, and how right it has been."""
        feedback = self.feedback
        if feedback is None:
            return {}
        corrections, right = feedback.corrections(), self.accuracy.report(now)
        known = feedback.calibration.estimates() if feedback.calibration is not None else {}
        told: dict[str, dict[str, Any]] = {}
        for name, estimate in feedback.estimates().items():
            prefill, decode = corrections[name]
            told[name] = {
                "correction": {"prefill": prefill, "decode": decode},
                "learned": asdict(estimate),
                "iteration": asdict(known[name]) if name in known else None,
                "predictions": {k: asdict(v) for k, v in right.get(name, {}).items()},
            }
        return told

    async def keep_correcting(self, engine: Engine) -> None:
        """Bring what was learned into the policy's belief, every second."""
        while self.feedback is not None:
            await engine.lull.rest(CORRECT_EVERY_S)
            self.correct(engine, self.feedback)

    def correct(self, engine: Engine, feedback: Feedback) -> None:
        """Apply the corrections that have moved."""
        now = engine.now()
        for name, (prefill, decode) in feedback.changes().items():
            engine.dispatcher.correct(name, prefill=prefill, decode=decode, now=now)
        engine.poke()


def build_instruments(config: MotleyConfig, recorder: Recorder | None = None) -> Instruments:
    """What the configuration asks for."""
    metrics = GatewayMetrics(
        policy=config.policy.name,
        version=version_of_motley(),
        models=sorted(config.fleet.models),
        slo_classes=sorted(config.slos),
    )

    def on_drift(drift: Drift) -> None:
        count_drift(metrics, drift)
        log.warning(
            "backend %s: %s takes %.2f times as long as before",
            drift.backend,
            drift.phase,
            drift.factor,
        )

    feedback = None
    if config.telemetry.feedback:
        feedback = make_feedback(
            config.fleet.backends,
            catalogue_belief(config.hardware),
            config.hardware.engine_defaults,
            on_drift=on_drift,
        )
    return Instruments(config, metrics, Accuracy(), SloWindow(config.slos), feedback, recorder)


def _hit_ratio(engine: Engine, name: str) -> float | None:
    """Share of prompt tokens that this backend finds in its prefix cache, as scraped."""
    try:
        signals = engine.dispatcher.state.get(name).signals
    except UnknownNameError:  # it has left, and its last answers come in
        return None
    return None if signals is None else signals.prefix_hit_ratio


def version_of_motley() -> str:
    """Of the installed distribution."""
    try:
        return version("motley-router")
    except PackageNotFoundError:
        return "0+source"
