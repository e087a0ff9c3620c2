"""A circuit breaker per backend.

Closed: requests flow. After ``failure_threshold`` failures in a row it opens for ``open_s``,
twice as long after each failed probe, up to ``max_open_s``. Then it is half open: one probe
request at a time; its first token closes it, on trial: until an answer is complete, one more
failure opens it again. (An engine that dies in mid-answer every time gives first tokens, too.)
Back-pressure (429, 503) and client errors (4xx) are not failures: peers whose breakers counted them
took whole fleets out (sglang#25811, sglang#39464).

Once it is not closed, only the probe of the day is heard: requests sent before it opened go on
ending for minutes, and what they say is of another time.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Literal

BreakerState = Literal["closed", "open", "half_open"]
NO_PROBE = 0


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
    """Consecutive-failure breaker with exponential re-opening.

    ``sent`` numbers the probes, and whoever reports on a request passes its number back.
    """

    __slots__ = (
        "_config",
        "_failures",
        "_open_s",
        "_probe",
        "_probes",
        "_reopens_s",
        "_trial",
        "state",
    )

    def __init__(self, config: BreakerConfig) -> None:
        self._config = config
        self._failures = 0
        self._open_s = config.open_s
        self._reopens_s = math.inf
        self._probes = 0
        self._probe = NO_PROBE
        self._trial = False
        self.state: BreakerState = "closed"

    @property
    def half_opens_s(self) -> float:
        """When an open breaker may be probed; infinity while it is not open."""
        return self._reopens_s if self.state == "open" else math.inf

    def tick(self, now: float) -> None:
        """Let time pass: an open breaker becomes half open."""
        if self.state == "open" and now >= self._reopens_s:
            self.state = "half_open"

    def allows(self) -> bool:
        """Whether one more request may be sent."""
        return self.state == "closed" or (self.state == "half_open" and self._probe == NO_PROBE)

    def sent(self) -> int:
        """A request was sent; returns its number if it is the probe, else ``NO_PROBE``."""
        if self.state != "half_open":
            return NO_PROBE
        self._probes += 1
        self._probe = self._probes
        return self._probe

    def abandoned(self, probe: int) -> None:
        """A request ended without telling anything of the backend's health."""
        if probe == self._probe:
            self._probe = NO_PROBE

    def began(self, probe: int) -> None:
        """The first token of a request came."""
        if self._is_awaited(probe):
            self._failures = self._config.failure_threshold - 1
            self._probe = NO_PROBE
            self._trial = True
            self.state = "closed"

    def succeeded(self, probe: int = NO_PROBE) -> None:
        """A request was served, to the last token."""
        if self.state != "closed" and not self._is_awaited(probe):
            return
        self._failures = 0
        self._probe = NO_PROBE
        self._trial = False
        self._open_s = self._config.open_s
        self.state = "closed"

    def failed(self, now: float, probe: int = NO_PROBE) -> None:
        """A request failed for a reason that is the backend's own."""
        if self.state == "closed":
            self._failures += 1
            if self._failures >= self._config.failure_threshold:
                self._open(now, again=self._trial)
        elif self._is_awaited(probe):
            self._open(now, again=True)

    def eject(self, now: float) -> None:
        """It fails too often, if not in a row: open."""
        if self.state == "closed":
            self._open(now, again=self._trial)

    def _is_awaited(self, probe: int) -> bool:
        return probe != NO_PROBE and probe == self._probe

    def _open(self, now: float, *, again: bool) -> None:
        if again:
            self._open_s = min(self._open_s * 2, self._config.max_open_s)
        self.state = "open"
        self._probe = NO_PROBE
        self._reopens_s = now + self._open_s
