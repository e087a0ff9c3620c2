"""What one backend's own traffic teaches of its speed, and how far that is to be believed."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field

from router.domain.outcome import Begun, Outcome
from router.domain.state import LinearCost
from telemetry.calibration import SMALLEST_S
from telemetry.drift import DriftPhase, Level
from telemetry.kin import Member
from telemetry.log_filter import FilterState, LogFilter, Step
from telemetry.sightings import EngineShape, Sighting, Sightings
from telemetry.speeds import Speed

OVERHEAD, PREFILL, DECODE = 0, 1, 2
PRIOR_OVERHEAD_S = 0.005
SPREAD = (1.5, 0.5, 0.4)
"""Prior standard deviations in log units: front ends differ by 1 to 50 ms, engines by up to 1.6
per phase against the fitted GPU constants (``router/perf/gpus.toml``)."""

WANDER_PER_S = (0.005, 0.01, 0.01)
"""About 8% a minute: what a card may drift by without being sick."""

LIMIT = 2.5
"""Multipliers stay within exp(-2.5) = 0.08 and exp(2.5) = 12."""

FIRST_NOISE = 0.2
EAGER_OUTCOMES = 100
"""The first outcomes of a backend are all learned from; later ones one per pause ..."""

SURPRISING, LOOKS = 2.0, 5
"""... and the next few at once where one was off by so many standard deviations ..."""

MOST_LOOKS = 64
"""... but no more than this in one pause: where everything surprises, more of it teaches little."""

EXPERIENCED = 30
"""Durations after which a backend speaks for itself ..."""

FORGET_AFTER_S, FORGET_PER_S = 60.0, 0.05
"""... unless it has had no traffic for this long; then what it taught loses certainty at this
standard deviation per square root of a second. After five minutes its equals and the prior speak
for it, it is tried again, and has recovered or shows at once that it has not."""

MOST_BEGUN = 16
"""Of the answers that are coming the first tokens of so many are kept in mind, the latest."""

CLEAR_SHARE, SETTLED = 0.5, 0.12
"""A duration says something about a phase if at least this share of it is that phase's, and what is
not known of the other phase blurs it by no more than that. (Nobody learns prefill from short
prompts, nor needs it then.)"""

LEAST_TAUGHT = 0.1
"""Precisions below this are rounding: nothing was taught."""


@dataclass(frozen=True, slots=True)
class Estimate:
    """What is believed of one backend.

    Attributes:
        prefill, decode: multipliers on the prior cost.
        prefill_deviation, decode_deviation: their relative standard deviations.
        overhead_s: seconds before the first token that are no engine iteration.
        learned: durations learned from.
        unusable, unclear: outcomes whose times or counts made no sense; answers that came while
            too much was going on to tell what they say.
        before: durations learned from before a restart.
    """

    prefill: float
    decode: float
    prefill_deviation: float
    decode_deviation: float
    overhead_s: float
    learned: int
    unusable: int
    unclear: int
    before: int = 0


@dataclass(slots=True)
class Learner:
    """Two multipliers on a backend's prior cost, and a nuisance before the first token.

    Attributes:
        prior: believed cost before anything was seen.
        group: of identical backends; empty for none.
        sightings, filter: turn outcomes into durations, and those into multipliers.
        card: what must be the same for it to be the backend that it was.
        before: durations learned from before a restart.
        outcomes, learned: heard of; durations learned from.
        told: the multipliers that were told last.
        changed_s: when its speed last changed, by the drift test.
        pending: outcomes that wait to be learned from.
        begun: what the first tokens of answers that are not over tell, by request.
    """

    prior: LinearCost
    group: str
    sightings: Sightings
    filter: LogFilter
    card: str = ""
    before: int = 0
    known_at_s: float = -math.inf
    outcomes: int = 0
    learned: int = 0
    looks: int = 0
    looked: int = 0
    looking_since_s: float = -math.inf
    learned_at_s: float = -math.inf
    told: tuple[float, float] = (1.0, 1.0)
    changed_s: float = -math.inf
    heard_s: float = -math.inf
    pending: list[Outcome] = field(default_factory=list)
    begun: dict[str, Sighting] = field(default_factory=dict)
    begun_at_s: float = -math.inf

    def began(self, request_id: str, attempt: Begun) -> bool:
        """The first token of an attempt came; whether that is worth keeping in mind.

        Only while little is known: whoever has heard of many answers loses nothing by waiting for
        the ends of these, when the engine tells what it found in its cache.
        """
        sighting = self.sightings.first(attempt) if self.learned < EXPERIENCED else None
        if sighting is None:
            return False
        if len(self.begun) >= MOST_BEGUN:
            del self.begun[next(iter(self.begun))]
        self.begun[request_id] = sighting
        self.begun_at_s = sighting.at_s
        return True

    def foresight(self) -> LogFilter:
        """The filter as if the answers that have begun had told of their prefill already.

        A copy, so nothing is learned twice: each is learned from once, when it is over.
        """
        if not self.begun:
            return self.filter
        ahead = self.filter.copy()
        for sighting in self.begun.values():
            ahead.learn(self.parts(sighting), sighting.duration_s, sighting.phase, sighting.at_s)
        return ahead

    def heard(self, outcome: Outcome) -> None:
        """An attempt ended, at a finite time."""
        if outcome.finished_s < self.heard_s - 1.0:
            self.changed_s = -math.inf  # the clock was set back
        self.heard_s = outcome.finished_s
        self.outcomes += 1

    def worth_learning(self, now: float, pause_s: float) -> bool:
        """Whether to learn from the outcome that ended now, or only to remember it."""
        if not 0.0 <= now - self.looking_since_s < pause_s:
            self.looking_since_s, self.looked = now, 0
        if not (
            self.outcomes <= EAGER_OUTCOMES
            or (self.looks > 0 and self.looked < MOST_LOOKS)
            or not 0.0 <= now - self.learned_at_s < pause_s
        ):
            return False
        self.learned_at_s = now
        self.looked += 1
        self.looks -= self.looks > 0
        return True

    def parts(self, sighting: Sighting) -> tuple[float, float, float]:
        """Seconds of overhead, prefill and decode that the prior expects."""
        prior = self.prior
        return (
            PRIOR_OVERHEAD_S * sighting.requests,
            prior.prefill_s * sighting.prefill_tokens + prior.pair_s * sighting.prefill_pairs,
            prior.step_s * sighting.steps
            + prior.seq_s * sighting.seq_steps
            + prior.context_s * sighting.context_steps,
        )

    def learn(self, sighting: Sighting, parts: tuple[float, float, float]) -> Step | None:
        """Learn from one duration and its ``parts``; ``None`` if it made no sense."""
        step = self.filter.learn(parts, sighting.duration_s, sighting.phase, sighting.at_s)
        if step is None:
            return None
        self.learned += 1
        self.known_at_s = sighting.at_s
        if abs(step.error) > SURPRISING * step.scale:
            self.looks = LOOKS
        return step

    def clear_phase(
        self, sighting: Sighting, parts: Sequence[float], step: Step
    ) -> tuple[DriftPhase, float] | None:
        """Of which phase a duration speaks, and how many times what the prior expects that took.

        Args:
            sighting, parts: what was learned from.
            step: what came of that.

        Returns:
            ``None`` where the other phase blurs it; else the rest is taken as known.
        """
        phase: DriftPhase = "prefill" if sighting.phase == "prefill" else "decode"
        part, other = (PREFILL, DECODE) if phase == "prefill" else (DECODE, PREFILL)
        share = step.shares[part]
        if share < CLEAR_SHARE:
            return None
        if self.filter.deviation(other) * step.shares[other] >= SETTLED * share:
            return None
        own_s = sighting.duration_s - step.expected * (1.0 - share)
        return phase, max(own_s, 0.05 * sighting.duration_s) / parts[part]

    def speaks_for_itself(self, latest_s: float) -> bool:
        """Whether its own traffic is all that counts; ``latest_s``: the last end anywhere."""
        return self.learned >= EXPERIENCED and self._forgotten_s(latest_s) == 0.0

    def _forgotten_s(self, latest_s: float) -> float:
        """For how long it has been forgotten by the traffic."""
        heard_s = max(self.learned_at_s, self.begun_at_s)
        return max(0.0, latest_s - heard_s - FORGET_AFTER_S)

    def member(self, name: str, part: int, latest_s: float, known: LogFilter) -> Member:
        """What its own traffic taught: the prior's share of the estimate taken out."""
        after = 1.0 / known.deviation(part) ** 2
        taught = after - 1.0 / SPREAD[part] ** 2
        precision = multiplier = 0.0
        if taught > LEAST_TAUGHT:
            multiplier = known.phi[part] * after / taught
            precision = 1.0 / (1.0 / taught + FORGET_PER_S**2 * self._forgotten_s(latest_s))
        cost = self.prior.prefill_s if part == PREFILL else self.prior.step_s
        prior_cost = math.log(max(cost, SMALLEST_S))
        return Member(name, self.group, multiplier, precision, prior_cost)

    def estimate(self) -> Estimate:
        """What is believed of it."""
        overhead, prefill, decode = self.filter.factors()
        return Estimate(
            prefill=prefill,
            decode=decode,
            prefill_deviation=self.filter.deviation(PREFILL),
            decode_deviation=self.filter.deviation(DECODE),
            overhead_s=overhead * PRIOR_OVERHEAD_S,
            learned=self.learned,
            unusable=self.sightings.unusable,
            unclear=self.sightings.unclear,
            before=self.before,
        )

    def speed(
        self,
        name: str,
        now: float,
        coefficients: FilterState | None,
        levels: dict[DriftPhase, Level],
    ) -> Speed:
        """What was learned, to be kept; with what calibration and drift test know of it."""
        return Speed(
            name,
            self.group,
            self.card,
            self.prior,
            max(0.0, now - self.known_at_s),
            self.before + self.learned,
            self.filter.state(),
            coefficients,
            levels,
        )

    def resume(self, speed: Speed, now: float) -> None:
        """Know again what was learned; its own traffic is all that counts once there is some."""
        self.filter.restore(speed.factors, speed.age_s)
        self.before = speed.durations
        self.learned_at_s = self.known_at_s = now


def learner(prior: LinearCost, shape: EngineShape, group: str, card: str) -> Learner:
    """One that knows nothing but its prior."""
    filter_ = LogFilter(SPREAD, WANDER_PER_S, LIMIT, FIRST_NOISE)
    return Learner(prior, group, Sightings(shape), filter_, card)
