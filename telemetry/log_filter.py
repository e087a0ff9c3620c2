"""A small Kalman filter on the logarithms of positive multipliers, robust against bad data.

The world: a duration is a sum of parts, each part a known base times an unknown factor,
``duration = sum_k base_k * exp(phi_k)``. Seen in logs, one observation tells
``log(duration) = log(sum) + noise``, whose derivative by ``phi_k`` is the share of part k in the
sum: an extended Kalman filter with one scalar observation, some microseconds for three parts.

Logs, because factors are positive and errors are relative: half as fast and twice as fast are
the same distance from right. Robust, because the error of one observation counts at most
``CLIP`` standard deviations, and less beyond that, and the noise is learned from clipped errors.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from operator import mul

CLIP = 2.5
"""Errors count in full up to this many standard deviations."""

NOISE_FLOOR, NOISE_CEILING = 0.08, 1.0
"""The model is not exact and neighbouring requests err alike: better is never believed."""

NOISE_MEMORY = 50.0
"""Observations over which the noise level is learned."""

ABSOLUTE_TO_SIGMA = math.sqrt(math.pi / 2.0)
"""Mean absolute value of a normal variable to its standard deviation."""

LEAST_VARIANCE = 1e-8
"""Of one ``phi``, so that rounding never makes it negative."""

SURPRISES = 5
"""So many errors beyond the clip in a row, all in one direction, are no bad data but a change."""

MOST_IDLE_S = 120.0
"""Uncertainty stops growing after this long without an observation (also guards clock jumps)."""

AWAY_PER_S = 5e-4
"""Nor is anything known of what happened while nobody looked: standard deviation per square root
of a second of that. A day makes 15 % of it, a week the prior's."""


@dataclass(slots=True)
class Step:
    """What one observation did. Not frozen, for speed only: nobody writes to one.

    Attributes:
        expected: predicted duration, in seconds, before learning from it.
        error: log(actual / predicted), likewise.
        scale: standard deviation that was expected of it.
        shares: share of each part in the prediction.
    """

    expected: float
    error: float
    scale: float
    shares: list[float]


@dataclass(frozen=True, slots=True)
class FilterState:
    """What a filter knows, as it is kept over a restart.

    Attributes:
        phi: logarithms of the factors.
        cov: their covariance, row by row.
        noise: learned standard deviation of one observation, by kind.
    """

    phi: list[float]
    cov: list[list[float]]
    noise: dict[str, float]


def soft_clip(error: float, limit: float) -> float:
    """The error up to ``limit``; beyond it, the less the further off it is.

    At four times the limit it counts half of the limit, so that a request stuck for a minute
    moves next to nothing, while a card that halves its speed is still seen to.
    """
    if abs(error) <= limit:
        return error
    return math.copysign(limit * math.sqrt(limit / abs(error)), error)


class LogFilter:
    """Learns ``phi`` from durations.

    Args:
        spread: prior standard deviation of each ``phi`` (0.4: within 50% with probability 2/3).
        wander_per_s: how much each ``phi`` may drift, as standard deviation per square root of a
            second; 0 means that it is a constant.
        limit: ``phi`` stays within plus and minus this.
        noise: first guess of the standard deviation of one observation, in log units.
    """

    def __init__(
        self,
        spread: Sequence[float],
        wander_per_s: Sequence[float],
        limit: float,
        noise: float,
    ) -> None:
        self.phi = [0.0] * len(spread)
        self._factors = [1.0] * len(spread)
        self._spread = tuple(spread)
        self._widest = tuple(s * s for s in spread)
        self._cov = [
            [s * s if i == j else 0.0 for j in range(len(spread))] for i, s in enumerate(spread)
        ]
        self._wander = tuple(w * w for w in wander_per_s)
        self._limit = limit
        self._first_noise = noise
        self._noise: dict[str, float] = {}
        self._surprises = 0
        self._seen_s: float | None = None

    def factors(self) -> tuple[float, ...]:
        """Current multipliers."""
        return tuple(self._factors)

    def deviation(self, part: int) -> float:
        """Standard deviation of ``phi[part]``: about the relative uncertainty of the factor."""
        return math.sqrt(self._cov[part][part])

    def noise(self, channel: str) -> float:
        """Learned standard deviation of one observation of this kind."""
        return self._noise.get(channel, self._first_noise)

    def predict(self, base: Sequence[float]) -> float:
        """Duration expected now for these base parts."""
        return math.fsum(map(mul, base, self._factors))

    def copy(self) -> LogFilter:
        """Another one that knows the same."""
        other = LogFilter(self._spread, (), self._limit, self._first_noise)
        other.phi, other._factors = [*self.phi], [*self._factors]
        other._cov = [[*row] for row in self._cov]
        other._wander, other._noise = self._wander, {**self._noise}
        other._surprises, other._seen_s = self._surprises, self._seen_s
        return other

    def state(self) -> FilterState:
        """What is known, without when it was seen."""
        return FilterState([*self.phi], [[*row] for row in self._cov], {**self._noise})

    def restore(self, state: FilterState, away_s: float) -> None:
        """Go on from what another filter knew.

        Args:
            state: of a filter of the same parts.
            away_s: for how long nobody has looked since; the longer, the nearer to the prior.

        Raises:
            ValueError: not so many parts, or no covariance.
        """
        size = len(self._spread)
        if not (len(state.phi) == len(state.cov) == size and is_covariance(state.cov)):
            raise ValueError(f"not the state of a filter of {size} parts")
        self._cov = [[*row] for row in state.cov]
        self._noise = {
            channel: max(NOISE_FLOOR, min(NOISE_CEILING, noise))
            for channel, noise in state.noise.items()
        }
        for part, phi in enumerate(state.phi):
            self.phi[part] = 0.0
            self.shift(part, phi)
            if away_s > 0.0:
                self._fade(part, away_s)
        self._surprises, self._seen_s = 0, None

    def _fade(self, part: int, away_s: float) -> None:
        """What was taught of one part counts less, and the prior more.

        Taught is what the estimate knows beyond the prior, as precisions add up; correlations stay.
        """
        prior = 1.0 / self._widest[part]
        before = self._cov[part][part]
        taught = 1.0 / before - prior
        if taught <= 0.0:
            return
        grown = self._wander[part] * min(away_s, MOST_IDLE_S) + AWAY_PER_S**2 * away_s
        left = 1.0 / (1.0 / taught + grown)
        after = 1.0 / (left + prior)
        self.shift(part, self.phi[part] * (after * left / (before * taught) - 1.0))
        times = math.sqrt(after / before)
        for k, row in enumerate(self._cov):
            row[part] *= times
            self._cov[part][k] *= times

    def learn(
        self, base: Sequence[float], duration: float, channel: str, at_s: float
    ) -> Step | None:
        """Learn from one observation; ``None`` if it is unusable.

        Args:
            base: the parts before multiplication, in seconds, none negative.
            duration: what was observed, in seconds.
            channel: observations of one kind share a noise level.
            at_s: when, on the caller's clock; it may jump.
        """
        parts = [*map(mul, base, self._factors)]
        expected = sum(parts)
        if not (0.0 < expected < math.inf and 0.0 < duration < math.inf):
            return None
        self._age(at_s)
        shares = [part / expected for part in parts]
        error = math.log(duration / expected)
        noise = self.noise(channel)
        scale = self._correct(shares, error, noise)
        self._learn_noise(channel, error, scale, noise)
        if abs(error) > CLIP * scale:
            self._be_surprised(error, shares)
        else:
            self._surprises = 0
        return Step(expected, error, scale, shares)

    def loosen(self, part: int, deviation: float) -> None:
        """Grow the uncertainty of one part: something has changed."""
        now = self._cov[part][part]
        most = max(self._spread[part], deviation) ** 2
        self._cov[part][part] = max(now, min(now + deviation * deviation, most))

    def shift(self, part: int, change: float) -> None:
        """Move one ``phi`` by a change that is known from elsewhere."""
        limit, moved = self._limit, self.phi[part] + change
        if not -limit <= moved <= limit:
            moved = math.copysign(limit, moved)
        self.phi[part] = moved
        self._factors[part] = math.exp(moved)

    def _age(self, at_s: float) -> None:
        elapsed_s = 0.0 if self._seen_s is None else at_s - self._seen_s
        self._seen_s = at_s
        if elapsed_s > 0.0:
            grown_s = min(elapsed_s, MOST_IDLE_S)
            for k, row in enumerate(self._cov):
                if row[k] < self._widest[k]:
                    row[k] += self._wander[k] * grown_s

    def _correct(self, shares: Sequence[float], error: float, noise: float) -> float:
        """One Kalman update; returns the standard deviation expected of the error."""
        size = range(len(shares))
        seen = [sum(map(mul, row, shares)) for row in self._cov]
        variance = sum(map(mul, shares, seen)) + noise * noise
        scale = math.sqrt(variance)
        clipped = soft_clip(error, CLIP * scale)
        for i in size:
            gain = seen[i] / variance
            self.shift(i, gain * clipped)
            row = self._cov[i]
            for j in size:
                row[j] -= gain * seen[j]
            row[i] = max(row[i], LEAST_VARIANCE)
        return scale

    def _be_surprised(self, error: float, shares: Sequence[float]) -> None:
        """Look again at what was taken for certain, once too many errors point one way.

        A card that throttles to a tenth is beyond every clip, each time; at its new speed only
        a few requests come to tell.
        """
        direction = 1 if error > 0.0 else -1
        same = self._surprises * direction > 0
        self._surprises = self._surprises + direction if same else direction
        if abs(self._surprises) >= SURPRISES:
            self._surprises = 0
            for k, share in enumerate(shares):
                self.loosen(k, min(abs(error) * share, self._limit / 2.0))

    def _learn_noise(self, channel: str, error: float, scale: float, noise: float) -> None:
        magnitude = min(abs(error), CLIP * scale) * ABSOLUTE_TO_SIGMA
        # What the uncertain factors explain of the error is not noise.
        own = magnitude * noise / scale
        moved = noise + (own - noise) / NOISE_MEMORY
        self._noise[channel] = max(NOISE_FLOOR, min(NOISE_CEILING, moved))


def is_covariance(rows: Sequence[Sequence[float]]) -> bool:
    """Whether this is a square matrix, symmetric but for rounding, and positive definite.

    By Cholesky's factors, which exist for no other.
    """
    size = range(len(rows))
    if any(len(row) != len(rows) for row in rows):
        return False
    if any(abs(rows[i][j] - rows[j][i]) > 1e-6 for i in size for j in range(i)):
        return False
    factor = [[0.0] * len(rows) for _ in size]
    for i in size:
        for j in range(i + 1):
            left = rows[i][j] - sum(factor[i][k] * factor[j][k] for k in range(j))
            if i == j and not 0.0 < left < math.inf:
                return False
            factor[i][j] = math.sqrt(left) if i == j else left / factor[j][j]
    return True
