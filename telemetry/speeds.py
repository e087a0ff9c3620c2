"""What was learned of each backend's speed, as it is kept over a restart.

A backend goes on from what is told of its name if it is the same card still: kind, engine, model,
settings and address (``card_of``), and the same prior, as what was learned are multipliers on that.
Whatever else is told speaks for its equals for a while, as a backend does that has no more traffic
(``kin.py``): engines whose names and addresses change with every deployment are no strangers.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import astuple, dataclass, field, replace
from hashlib import blake2b

import msgspec

from router.domain.fleet import BackendSpec
from router.domain.state import LinearCost
from telemetry.calibration import SPREAD as COEFFICIENT_SPREAD
from telemetry.drift import DriftPhase, Level
from telemetry.log_filter import FilterState, is_covariance

OLDEST_S = 14 * 86_400.0
"""Of speeds that nobody has claimed; by then nothing of their certainty is left."""
SAME = 1e-6
"""Priors that differ by no more than rounding are the same."""
MOST_SPEEDS = 10_000
MOST_LEFT = 1_000
"""Backends that left; every rollout of a deployment brings new names."""
MOST_PHI, MOST_VARIANCE = 5.0, 10.0
PARTS = 3
_NOT_THE_CARD = frozenset(
    ("name", "weight", "labels", "served_model", "bootstrap_port", "kv_events", "kv_replay")
)


@dataclass(frozen=True, slots=True)
class Speed:
    """What was learned of one backend.

    Attributes:
        name, group: its own.
        card: what must be the same for it to be the same backend; see ``card_of``.
        prior: that the factors are on.
        age_s: since it was last learned from, when this was written.
        durations: learned from, in all its lives.
        factors: on overhead, prefill and decode.
        coefficients: of the cost, where they are learned too.
        levels: that the drift test holds each phase against.
    """

    name: str
    group: str
    card: str
    prior: LinearCost
    age_s: float
    durations: int
    factors: FilterState
    coefficients: FilterState | None = None
    levels: dict[DriftPhase, Level] = field(default_factory=dict)

    def flaw(self) -> str | None:
        """What makes no sense in it."""
        if not (self.age_s >= 0.0 and self.durations >= 0):
            return "an age or a count below zero"
        if not all(0.0 <= cost < 1e3 for cost in astuple(self.prior)):
            return "a prior that is no cost"
        if not _sane(self.factors, PARTS):
            return "factors without a covariance"
        if self.coefficients is not None and not _sane(self.coefficients, len(COEFFICIENT_SPREAD)):
            return "coefficients without a covariance"
        if not all(level.sane for level in self.levels.values()):
            return "a level that is none"
        return None


def card_of(spec: BackendSpec) -> str:
    """A digest of everything that makes a backend another one; its name is no part of it."""
    facts = {
        name: getattr(spec, name)
        for name in BackendSpec.__dataclass_fields__
        if name not in _NOT_THE_CARD
    }
    return blake2b(msgspec.json.encode(facts, order="sorted"), digest_size=8).hexdigest()


class Before:
    """Speeds that nobody has claimed yet.

    Args:
        speeds: as they were kept.
        away_s: how long ago.
        now: the time, on the clock of whoever learns.
    """

    def __init__(self, speeds: Iterable[Speed] = (), away_s: float = 0.0, now: float = 0.0) -> None:
        self._now = now
        self._speeds = {
            speed.name: aged for speed in speeds if (aged := _older(speed, away_s)) is not None
        }

    def __iter__(self) -> Iterator[Speed]:
        """As they were when they were told, in the order of their names' first telling."""
        return iter(self._speeds.values())

    def keep(self, speed: Speed, now: float) -> None:
        """A backend left; of many that did, the last ones are kept."""
        self._speeds.pop(speed.name, None)
        self._speeds[speed.name] = replace(speed, age_s=speed.age_s - (now - self._now))
        if len(self._speeds) > MOST_LEFT:
            del self._speeds[next(iter(self._speeds))]

    def claim(self, name: str, card: str, prior: LinearCost, now: float) -> Speed | None:
        """What was learned of this backend before, once; ``None`` if that was another one."""
        known = self._speeds.get(name)
        if known is None or known.card != card or not _alike(known.prior, prior):
            return None
        return _older(self._speeds.pop(name), max(0.0, now - self._now))

    def left(self, taken: Mapping[str, object], now: float) -> list[Speed]:
        """Those that are still to be kept: but for names that somebody else has."""
        elapsed_s = max(0.0, now - self._now)
        older = (_older(speed, elapsed_s) for speed in self if speed.name not in taken)
        return [speed for speed in older if speed is not None]


def _older(speed: Speed, by_s: float) -> Speed | None:
    age_s = speed.age_s + by_s
    return replace(speed, age_s=age_s) if age_s <= OLDEST_S else None


def _alike(one: LinearCost, other: LinearCost) -> bool:
    pairs = zip(astuple(one), astuple(other), strict=True)
    return all(math.isclose(a, b, rel_tol=SAME, abs_tol=1e-15) for a, b in pairs)


def _sane(state: FilterState, parts: int) -> bool:
    """Nothing that a filter would not have come to."""
    return (
        len(state.phi) == len(state.cov) == parts
        and all(abs(phi) <= MOST_PHI for phi in state.phi)
        and is_covariance(state.cov)
        and all(abs(value) <= MOST_VARIANCE for row in state.cov for value in row)
        and len(state.noise) <= parts
        and all(0.0 < noise < MOST_PHI for noise in state.noise.values())
    )
