"""Percentiles over a sliding window, in bounded memory, each good to 2%.

Values go into buckets whose bounds grow by a constant factor, so a percentile is off by at most
half a bucket, relatively (the idea of DDSketch: Masson, Rim, Lee, VLDB 2019). Time is cut into
slots; the oldest falls out whole, so the window is between one slot less and the full length.
"""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

ACCURACY = 0.02
SMALLEST, LARGEST = 1e-5, 1e6
_log, _floor = math.log, math.floor
_GROWTH = math.log((1 + ACCURACY) / (1 - ACCURACY))


@dataclass(slots=True)
class _Slot:
    number: int
    buckets: dict[int, int] = field(default_factory=dict)
    count: int = 0
    total: float = 0.0
    logs: float = 0.0
    met: int = 0
    judged: int = 0


def _itself(value: float) -> float:
    return value


class SlidingWindow:
    """Positive values of the last ``window_s`` seconds, and how many of them met a target.

    Memory: at most ``slots`` times some 640 buckets, far fewer in practice, whatever the rate.
    """

    def __init__(self, window_s: float = 300.0, slots: int = 10) -> None:
        self._slot_s = window_s / slots
        self._slots: deque[_Slot] = deque(maxlen=slots)
        self._newest, self._newest_ends_s = _Slot(0), -math.inf
        self._keep = slots

    def add(self, value: float, now: float, met: bool | None = None) -> None:
        """Take one value, and whether it met its target if it had one.

        Not positive or not finite values are ignored, but not what they met.
        """
        # A clock that was set back stays in the newest slot.
        slot = self._newest if now < self._newest_ends_s else self._current(now)
        if met is not None:
            slot.judged += 1
            slot.met += met
        if not 0.0 < value < math.inf:
            return
        log = _log(SMALLEST if value < SMALLEST else LARGEST if value > LARGEST else value)
        key = _floor(log / _GROWTH)
        buckets = slot.buckets
        buckets[key] = buckets.get(key, 0) + 1
        slot.count += 1
        slot.total += value
        slot.logs += log

    def judge(self, met: bool, now: float) -> None:
        """Note whether something met its target."""
        self.add(0.0, now, met)

    def count(self, now: float) -> int:
        """Values in the window."""
        return sum(slot.count for slot in self._alive(now))

    def mean(self, now: float) -> float | None:
        """Their mean; ``None`` without any."""
        slots = self._alive(now)
        count = sum(slot.count for slot in slots)
        return sum(slot.total for slot in slots) / count if count else None

    def geometric_mean(self, now: float) -> float | None:
        """Their geometric mean; ``None`` without any."""
        slots = self._alive(now)
        count = sum(slot.count for slot in slots)
        return math.exp(sum(slot.logs for slot in slots) / count) if count else None

    def met(self, now: float) -> int:
        """How many of those judged met their target."""
        return sum(slot.met for slot in self._alive(now))

    def judged(self, now: float) -> int:
        """How many were judged."""
        return sum(slot.judged for slot in self._alive(now))

    def attainment(self, now: float) -> float | None:
        """Share of what was judged that met its target; ``None`` if nothing was."""
        slots = self._alive(now)
        judged = sum(slot.judged for slot in slots)
        return sum(slot.met for slot in slots) / judged if judged else None

    def quantile(self, share: float, now: float) -> float | None:
        """The value below which ``share`` of the window lies; ``None`` without any."""
        return self.quantiles((share,), now)[0]

    def quantiles(self, shares: Sequence[float], now: float) -> list[float | None]:
        """Several at once, for the price of one; ``shares`` ascending."""
        return self.quantiles_of(_itself, shares, now)

    def quantiles_of(
        self, what: Callable[[float], float], shares: Sequence[float], now: float
    ) -> list[float | None]:
        """Like ``quantiles``, of a function of the values; each bucket stands for its middle."""
        merged: dict[int, int] = {}
        for slot in self._alive(now):
            for key, count in slot.buckets.items():
                merged[key] = merged.get(key, 0) + count
        weighted = sorted((what(math.exp((k + 0.5) * _GROWTH)), n) for k, n in merged.items())
        last = sum(merged.values()) - 1
        found: list[float | None] = []
        seen = 0
        for value, count in weighted:
            seen += count
            while len(found) < len(shares) and seen > shares[len(found)] * last:
                found.append(value)
        return found + [None] * (len(shares) - len(found))

    def _current(self, now: float) -> _Slot:
        number = math.floor(now / self._slot_s)
        if self._slots and number <= self._slots[-1].number:
            return self._slots[-1]  # the same slot, or a clock that was set back
        self._newest, self._newest_ends_s = _Slot(number), (number + 1) * self._slot_s
        self._slots.append(self._newest)
        return self._newest

    def _alive(self, now: float) -> list[_Slot]:
        oldest = math.floor(now / self._slot_s) - self._keep
        return [slot for slot in self._slots if slot.number > oldest]
