"""Learns from finished requests how fast each backend really is, per phase.

Datasheets and catalogues are wrong by 20 to 60% per engine version, and a card throttles when
it likes. Per backend this keeps two multipliers on the *prior* cost, one for prefill and one for
decode (1.0: as the catalogue says), and a nuisance, the seconds an engine's front end and the
network add to each first token.

The ratio is taken against the prior cost, worked out anew from what the backend was doing
(``sightings.py``), never against the prediction in the outcome: that one already contains the
correction in force when the request was sent. The loop is therefore open: what is learned does
not enter what it is learned from, so corrections cannot chase themselves, whatever the delay
between learning and applying.

Identical backends share what they learn (``kin.py``): one that is wrongly believed to be slow
gets no traffic to show it by.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

from router.domain.outcome import Begun, Outcome
from router.domain.state import LinearCost
from telemetry.calibration import Calibration
from telemetry.drift import Drift, DriftDetector
from telemetry.halves import halves
from telemetry.kin import blend
from telemetry.learner import DECODE, LOOKS, PREFILL, SPREAD, Estimate, Learner, learner
from telemetry.log_filter import LogFilter, Step
from telemetry.sightings import VLLM_LIKE, EngineShape, Sighting
from telemetry.speeds import Before, Speed

SETTLING = 100
"""Drift is judged after this many durations."""

MOST_PENDING = 64
"""Outcomes that wait to be learned from, at most."""


@dataclass
class Feedback:
    """An ``Observer`` that learns one multiplier per backend and phase.

    What it observes it puts down, and learns from it backend by backend when it is asked
    something, or when enough has come together: off the path of the request, and at half the
    price. What is learned does not depend on when. Of a backend that is hardly known the first
    tokens count at once, until their answers are over and are learned from.

    Args:
        priors: believed cost of each backend before anything was seen.
        shapes: how each engine schedules; the default is vLLM's.
        groups: names of groups of identical backends; those in none share nothing.
        cards: what must be the same for a backend to be the one it was (``speeds.card_of``).
        calibration: learns the cost's coefficients from the same sightings, if given.
        drift: judges whether a backend has changed, if given.
        on_drift: called with each change found.
        cached_share_of: prefix-cache hit ratio of a backend as scraped, for engines that do not
            tell the cached tokens of each request.
        pause_s: time between two outcomes of one backend that are learned from while nothing
            surprises, and in which ``MOST_LOOKS`` are where much does; that bounds the price at
            any request rate.
    """

    priors: Mapping[str, LinearCost]
    shapes: Mapping[str, EngineShape] = field(default_factory=dict)
    groups: Mapping[str, str] = field(default_factory=dict)
    cards: Mapping[str, str] = field(default_factory=dict)
    calibration: Calibration | None = None
    drift: DriftDetector | None = None
    on_drift: Callable[[Drift], None] | None = None
    cached_share_of: Callable[[str], float | None] | None = None
    pause_s: float = 2.0
    unknown: int = 0
    _backends: dict[str, Learner] = field(default_factory=dict, init=False)
    _latest_s: float = field(default=0.0, init=False)
    _told_s: float = field(default=-math.inf, init=False)
    _pending: int = field(default=0, init=False)
    _before: Before = field(default_factory=Before, init=False)
    _ghosts: dict[str, Learner] = field(default_factory=dict, init=False)

    def __post_init__(self) -> None:
        for name, prior in self.priors.items():
            shape, group = self.shapes.get(name, VLLM_LIKE), self.groups.get(name, "")
            self.add(name, prior, shape, group, self.cards.get(name, ""))

    def add(
        self,
        name: str,
        prior: LinearCost,
        shape: EngineShape = VLLM_LIKE,
        group: str = "",
        card: str = "",
    ) -> None:
        """Start to learn a backend anew: it joined, or another one took its name.

        If it is one that was known before a restart, or before it left, what was learned then is
        known again.
        """
        self._backends[name] = learner(prior, shape, group, card)
        if self.calibration is not None:
            self.calibration.add(name, prior)
        if self.drift is not None:
            self.drift.forget(name)
        self._claim(name, self._backends[name], self._latest_s)

    def remove(self, name: str) -> None:
        """Put a backend aside that left: names flap, and engines come back."""
        self._catch_up()
        backend = self._backends.pop(name, None)
        if backend is not None and (backend.learned or backend.before):
            self._before.keep(self._speed(name, backend, self._latest_s), self._latest_s)
        if self.calibration is not None:
            self.calibration.remove(name)
        if self.drift is not None:
            self.drift.forget(name)

    def speeds(self, now: float) -> list[Speed]:
        """What was learned of every backend, and what was before of others, to be kept."""
        self._catch_up()
        own = {
            name: self._speed(name, backend, now)
            for name, backend in self._backends.items()
            if backend.learned or backend.before
        }
        return [*self._before.left(own, now), *own.values()]

    def restore(self, speeds: Iterable[Speed], away_s: float, now: float) -> int:
        """Know again what was learned before a restart, of backends here and of those to come.

        Args:
            speeds: as ``speeds`` gave them.
            away_s: how long ago.
            now: the time.

        Returns:
            How many of the backends here were recognized.
        """
        self._latest_s = max(self._latest_s, now)
        self._before = Before(speeds, away_s, now)
        names = [name for name, backend in self._backends.items() if not backend.learned]
        claimed = sum(self._claim(name, self._backends[name], now) for name in names)
        self._ghosts = {}
        for speed in self._before:
            ghost = self._ghosts[speed.name] = learner(
                speed.prior, VLLM_LIKE, speed.group, speed.card
            )
            ghost.resume(speed, now)
        return claimed

    def _claim(self, name: str, backend: Learner, now: float) -> bool:
        speed = self._before.claim(name, backend.card, backend.prior, now)
        if speed is None:
            return False
        self._ghosts.pop(name, None)
        backend.resume(speed, now)
        if self.calibration is not None and speed.coefficients is not None:
            self.calibration.restore(name, speed.coefficients, speed.age_s)
        if self.drift is not None:
            self.drift.restore(name, speed.levels)
        self._told_s = -math.inf  # there is something to tell
        return True

    def _speed(self, name: str, backend: Learner, now: float) -> Speed:
        coefficients = self.calibration.state(name) if self.calibration is not None else None
        levels = self.drift.levels(name) if self.drift is not None else {}
        return backend.speed(name, now, coefficients, levels)

    def observe(self, outcome: Outcome) -> None:
        """Put down one finished attempt, to be learned from."""
        if outcome.prefill is not None:
            for half in halves(outcome, outcome.prefill):
                self._put_down(half)
        else:
            self._put_down(outcome)

    def began(self, request_id: str, backend: str, attempt: Begun) -> None:
        """The first token of an attempt came."""
        learner = self._backends.get(backend)
        if learner is not None and learner.began(request_id, attempt):
            self._latest_s = attempt.first_token_s or self._latest_s

    def _put_down(self, outcome: Outcome) -> None:
        backend = self._backends.get(outcome.backend)
        if backend is None:
            self.unknown += 1
            return
        backend.begun.pop(outcome.request_id, None)
        backend.pending.append(outcome)
        if outcome.finished_s < math.inf:  # nor NaN
            self._latest_s = outcome.finished_s
        self._pending += 1
        if self._pending >= MOST_PENDING:
            self._catch_up()

    def _catch_up(self) -> None:
        """Learn from what was put down."""
        if not self._pending:
            return
        self._pending = 0
        for name, backend in self._backends.items():
            if backend.pending:
                outcomes, backend.pending = backend.pending, []
                for outcome in outcomes:
                    self._take(name, backend, outcome)

    def _take(self, name: str, backend: Learner, outcome: Outcome) -> None:
        """Learn from one outcome; nonsense is counted and left out."""
        if not math.isfinite(outcome.finished_s):
            backend.sightings.unusable += 1
            return
        backend.heard(outcome)
        learn = backend.worth_learning(outcome.finished_s, self.pause_s)
        for sighting in backend.sightings.note(outcome, learn, self._cached_share(outcome)):
            self._learn(name, backend, sighting)

    def _cached_share(self, outcome: Outcome) -> float:
        if outcome.cached_tokens is not None or self.cached_share_of is None:
            return 0.0
        return self.cached_share_of(outcome.backend) or 0.0

    def corrections(self) -> dict[str, tuple[float, float]]:
        """(prefill, decode) multipliers on the prior cost, by backend; 1.0 is the prior."""
        self._catch_up()
        seen = {name: backend.foresight() for name, backend in self._backends.items()}
        prefill, decode = self._multipliers(PREFILL, seen), self._multipliers(DECODE, seen)
        return {name: (prefill[name], decode[name]) for name in prefill}

    def _multipliers(self, part: int, seen: Mapping[str, LogFilter]) -> dict[str, float]:
        backends = self._backends
        told = {name: known.factors()[part] for name, known in seen.items()}
        unsure = [
            name
            for name, backend in backends.items()
            if not backend.speaks_for_itself(self._latest_s)
        ]
        if unsure:
            # Who was here before has no name here: somebody else may have it by now.
            known = [(name, one, seen[name]) for name, one in backends.items()]
            known += [("", ghost, ghost.filter) for ghost in self._ghosts.values()]
            members = (one.member(name, part, self._latest_s, of) for name, one, of in known)
            blended = blend(members, SPREAD[part], unsure)
            told |= {name: math.exp(log) for name, log in blended.items()}
        return told

    def changes(self, least: float = 0.02) -> dict[str, tuple[float, float]]:
        """The corrections that moved by more than ``least`` since they were last returned here.

        For ``Dispatcher.correct``: each call there makes cached figures stale.
        """
        moved: dict[str, tuple[float, float]] = {}
        if self._latest_s == self._told_s:
            return moved
        self._told_s = self._latest_s
        for name, (prefill, decode) in self.corrections().items():
            backend = self._backends[name]
            told = backend.told
            if abs(prefill / told[0] - 1.0) > least or abs(decode / told[1] - 1.0) > least:
                backend.told = moved[name] = (prefill, decode)
        return moved

    def estimates(self) -> dict[str, Estimate]:
        """Corrections with their uncertainty, by backend."""
        self._catch_up()
        return {name: backend.estimate() for name, backend in self._backends.items()}

    def _learn(self, name: str, backend: Learner, sighting: Sighting) -> None:
        if sighting.at_s - sighting.duration_s < backend.changed_s:
            backend.looks = LOOKS  # it began before the last change, and would take it back
            return
        base = backend.parts(sighting)
        step = backend.learn(sighting, base)
        if step is None:
            return
        if self.calibration is not None:
            self.calibration.learn(name, sighting)
        if self.drift is not None and backend.learned >= SETTLING:
            self._watch(name, backend, sighting, base, step)

    def _watch(
        self, name: str, backend: Learner, sighting: Sighting, base: Sequence[float], step: Step
    ) -> None:
        """Hand the drift test what this duration says about its phase, and heed what it finds."""
        assert self.drift is not None
        clear = backend.clear_phase(sighting, base, step)
        if clear is None:
            return
        found = self.drift.observe(name, *clear, sighting.at_s)
        if found is not None:
            backend.changed_s = found.since_s
            # Both: a throttled clock slows both, and the first to ring takes the other's blame.
            for either in (PREFILL, DECODE):
                backend.filter.loosen(either, abs(found.log_factor) / 2.0)
            if self.calibration is not None:
                self.calibration.shift(name, found.phase, found.log_factor)
            if self.on_drift is not None:
                self.on_drift(found)
