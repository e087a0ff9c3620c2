"""Notices that a backend has changed its speed: which one, in which phase, by how much.

Page's two-sided CUSUM (Page 1954) on the log of each observed multiplier, against a reference
level learned while the backend was new. The sum ignores deviations up to half of the change that
matters and rings when what is left adds up to ``THRESHOLD`` standard deviations; the size of the
change is the median of what made it ring. Then the new level becomes the reference, so each
change rings once, and recovery is a change too.

A card that was slow from its first day does not change: it is told from its equals by their
corrections (the alert ``MotleyStraggler``).
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Mapping
from dataclasses import dataclass, field
from statistics import median
from typing import Literal

DriftPhase = Literal["prefill", "decode"]

WARM_UP, SETTLE = 30, 15
"""Observations that make the reference level; that refine it after a change."""

FEWEST, RECENT = 5, 32
"""Observations from which the size of a change is told, at least and at most."""

DISTURBED = 0.5
"""Prefill is not judged while the decode test stands at this share of its threshold: a first
token waits for decodes too, and would be blamed for them."""

SMALLEST_CHANGE = math.log(1.15)
"""Changes below 15% are left to the slow adaptation of ``Feedback``."""

THRESHOLD = 10.0
"""In standard deviations. With the slack of half a deviation, Siegmund's formula gives some
70,000 observations between false alarms for independent normal residuals; those of overlapping
requests are correlated, hence not the textbook's 5."""

MOST_LEVEL = 10.0
CLIP = 4.0
NOISE_FLOOR = 0.1
NOISE_MEMORY = 50.0


@dataclass(frozen=True, slots=True)
class Drift:
    """One change of speed.

    Attributes:
        backend, phase: what changed.
        factor: new duration over old; 2.0 is half as fast.
        since_s, detected_s: when it began, as far as can be told, and when it was noticed.
        degradation: duration now over that when the backend was new.
    """

    backend: str
    phase: DriftPhase
    factor: float
    since_s: float
    detected_s: float
    degradation: float

    @property
    def log_factor(self) -> float:
        """Natural logarithm of ``factor``."""
        return math.log(self.factor)


@dataclass(frozen=True, slots=True)
class Level:
    """What a test holds a backend against, as it is kept over a restart.

    Attributes:
        reference, first_reference: log level now, and when the backend was new.
        noise: standard deviation of what is observed.
    """

    reference: float
    first_reference: float
    noise: float

    @property
    def sane(self) -> bool:
        """Whether a test may have come to it."""
        levels = (self.reference, self.first_reference)
        return all(abs(level) < MOST_LEVEL for level in levels) and 0.0 < self.noise < MOST_LEVEL


@dataclass(slots=True)
class _Side:
    """One direction of the test."""

    total: float = 0.0
    since_s: float = 0.0
    recent: deque[float] = field(default_factory=lambda: deque(maxlen=RECENT))

    def add(self, excess: float, deviation: float, at_s: float) -> None:
        """Add one deviation from the reference; ``excess`` is what counts of it."""
        if self.total == 0.0:
            self.recent.clear()
            self.since_s = at_s
        self.total = max(0.0, self.total + excess)
        self.recent.append(deviation)

    def change(self) -> float:
        """Size so far: the median of the later half, as the sum may have begun by chance."""
        return median(list(self.recent)[len(self.recent) // 2 :])


@dataclass(slots=True)
class Cusum:
    """The test of one series of log levels."""

    reference: float = 0.0
    first_reference: float = 0.0
    seen: int = 0
    noise: float = 0.15
    settling: int = 0
    up: _Side = field(default_factory=_Side)
    down: _Side = field(default_factory=_Side)

    def observe(self, level: float, at_s: float) -> tuple[float, float] | None:
        """Take one level; (change of level, since when) if it has changed."""
        deviation = level - self.reference
        clipped = max(-CLIP * self.noise, min(CLIP * self.noise, deviation))
        self.seen += 1
        if self.seen <= WARM_UP:
            self._warm_up(deviation, clipped)
            return None
        if self.settling:
            self.settling -= 1
            self.reference += clipped / (SETTLE - self.settling + 1)
            return None
        self._learn_noise(clipped)
        slack = max(0.5 * self.noise, SMALLEST_CHANGE / 2.0)
        self.up.add(clipped - slack, deviation, at_s)
        self.down.add(-clipped - slack, deviation, at_s)
        for side in (self.up, self.down):
            if side.total > THRESHOLD * self.noise and len(side.recent) >= FEWEST:
                return self._ring(side)
        return None

    @property
    def disturbed(self) -> bool:
        """Whether something may be going on."""
        return max(self.up.total, self.down.total) > DISTURBED * THRESHOLD * self.noise

    def _warm_up(self, deviation: float, clipped: float) -> None:
        # The first ones count in full: the prior may be off by anything.
        own = deviation if self.seen <= WARM_UP // 3 else clipped
        self.reference += own / min(self.seen, WARM_UP // 2)
        self.first_reference = self.reference
        if self.seen > WARM_UP // 3:
            self._learn_noise(clipped)

    def _learn_noise(self, clipped: float) -> None:
        own = abs(clipped) * math.sqrt(math.pi / 2.0)
        self.noise = max(NOISE_FLOOR, self.noise + (own - self.noise) / NOISE_MEMORY)

    def _ring(self, side: _Side) -> tuple[float, float]:
        change, since_s = side.change(), side.since_s
        self.reference += change
        self.up, self.down, self.settling = _Side(), _Side(), SETTLE
        return change, since_s


@dataclass(slots=True)
class DriftDetector:
    """One test per backend and phase."""

    found: int = 0
    _tests: dict[tuple[str, DriftPhase], Cusum] = field(default_factory=dict)

    def observe(
        self, backend: str, phase: DriftPhase, multiplier: float, at_s: float
    ) -> Drift | None:
        """Take one observed multiplier on the prior duration; the change, if there is one.

        Not a positive finite number: ignored.
        """
        if not 0.0 < multiplier < math.inf:
            return None
        test = self._tests.setdefault((backend, phase), Cusum())
        decode = self._tests.get((backend, "decode"))
        if phase == "prefill" and decode is not None and (decode.disturbed or decode.settling):
            return None
        rang = test.observe(math.log(multiplier), at_s)
        if rang is None:
            return None
        self.found += 1
        change, since_s = rang
        return Drift(
            backend=backend,
            phase=phase,
            factor=math.exp(change),
            since_s=since_s,
            detected_s=at_s,
            degradation=math.exp(test.reference - test.first_reference),
        )

    def degradations(self) -> dict[tuple[str, DriftPhase], float]:
        """Duration now over that when the backend was new, for all that are past warm-up."""
        return {
            key: math.exp(test.reference - test.first_reference)
            for key, test in self._tests.items()
            if test.seen > WARM_UP
        }

    def levels(self, backend: str) -> dict[DriftPhase, Level]:
        """What a backend is held against, in the phases that are past warm-up."""
        return {
            phase: Level(test.reference, test.first_reference, test.noise)
            for (name, phase), test in self._tests.items()
            if name == backend and test.seen > WARM_UP
        }

    def restore(self, backend: str, levels: Mapping[DriftPhase, Level]) -> None:
        """Hold a backend against this: one that changed while nobody looked is noticed, too."""
        for phase, level in levels.items():
            noise = max(NOISE_FLOOR, level.noise)
            self._tests[backend, phase] = Cusum(
                level.reference, level.first_reference, WARM_UP + 1, noise
            )

    def forget(self, backend: str) -> None:
        """Start a backend anew."""
        for key in [key for key in self._tests if key[0] == backend]:
            del self._tests[key]
