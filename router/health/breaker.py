"""A circuit breaker per backend.

Closed: requests flow. After ``failure_threshold`` failures in a row it opens for ``open_s``,
twice as long after each failed probe, up to ``max_open_s``. Then it is half open: one probe
request at a time; a success closes it. Back-pressure (429, 503) and client errors (4xx) are not
failures: peers whose breakers counted them took whole fleets out (sglang#25811, sglang#39464).
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

BreakerState = Literal["closed", "open", "half_open"]


@dataclass(frozen=True, slots=True)
class BreakerConfig:
    """Limits of the breaker.

    Attributes:
        failure_threshold: failures in a row that open it.
        open_s: how long it stays open the first time.
        max_open_s: ceiling of the doubling.
    """

    failure_threshold: int = 3
    open_s: float = 2.0
    max_open_s: float = 30.0


class CircuitBreaker:
    """Consecutive-failure breaker with exponential re-opening."""

    __slots__ = ("_config", "_failures", "_open_s", "_probing", "_reopens_s", "state")

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._failures = 0
        self._open_s = config.open_s
        self._reopens_s = math.inf
        self._probing = 0
        self.state: BreakerState = "closed"

    @property
    def half_opens_s(self) -> float:
        """When an open breaker may be probed; infinity while it is not open."""
        return self._reopens_s if self.state == "open" else math.inf

    def tick(self, now: float) -> None:
        """Let time pass: an open breaker becomes half open."""
        if self.state == "open" and now >= self._reopens_s:
            self.state = "half_open"
            self._probing = 0

    def allows(self) -> bool:
        """Whether one more request may be sent."""
        return self.state == "closed" or (self.state == "half_open" and self._probing == 0)

    def sent(self) -> None:
        """A request was sent."""
        if self.state == "half_open":
            self._probing += 1

    def abandoned(self) -> None:
        """A request ended without telling anything of the backend's health."""
        self._probing = max(0, self._probing - 1)

    def succeeded(self) -> None:
        """A request was served."""
        self._failures = 0
        self._probing = 0
        self._open_s = self._config.open_s
        self.state = "closed"

    def failed(self, now: float) -> None:
        """A request failed for a reason that is the backend's own."""
        self._failures += 1
        if self.state == "half_open":
            self._open_s = min(self._open_s * 2, self._config.max_open_s)
            self._open(now)
        elif self.state == "closed" and self._failures >= self._config.failure_threshold:
            self._open(now)

    def _open(self, now: float) -> None:
        self.state = "open"
        self._probing = 0
        self._reopens_s = now + self._open_s
