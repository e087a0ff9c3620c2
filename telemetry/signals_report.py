"""Which signals each backend really gives: what ``/debug/signals`` shows.

A backend may be configured as one engine and be another, run a version without a KV gauge, or
start without ``--enable-metrics``. The operator should read that here, not guess it from routing.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field

from telemetry.engine_metrics import SIGNALS, Reading
from telemetry.exposition import Problems


@dataclass(slots=True)
class BackendReport:
    """Everything learned about one backend's own telemetry.

    Attributes:
        endpoint: path that is scraped.
        engine: as configured.
        found_engine: as the engine's own metric names tell; empty before the first answer.
        model, accelerator: as the engine tells, where it does.
        known: signals of the last good scrape.
        scrapes, failures: attempts, and those that gave nothing, by kind.
        consecutive_failures: since the last good scrape.
        last_ok_s, last_error: on the caller's clock; the latest failure in words.
        restarts, identity_changes: the engine started anew; another engine, model or KV size
            answered at the same address.
        problems: unusable values and lines, by kind.
        waiting_by_reason: why requests wait inside the engine, where it tells.
    """

    endpoint: str
    engine: str
    found_engine: str = ""
    model: str = ""
    accelerator: str = ""
    known: tuple[str, ...] = ()
    scrapes: int = 0
    failures: Counter[str] = field(default_factory=Counter)
    consecutive_failures: int = 0
    last_ok_s: float | None = None
    last_error: str = ""
    restarts: int = 0
    identity_changes: int = 0
    problems: Problems = field(default_factory=Problems)
    waiting_by_reason: Mapping[str, int] = field(default_factory=dict)

    @property
    def missing(self) -> tuple[str, ...]:
        """Signals that the last good scrape did not give: unknown, not zero."""
        return tuple(name for name in SIGNALS if name not in self.known)

    def age_s(self, now: float) -> float | None:
        """Seconds since the last good scrape; ``None`` before the first."""
        return None if self.last_ok_s is None else max(0.0, now - self.last_ok_s)

    def failed(self, kind: str, message: str) -> None:
        """Note a scrape that gave nothing."""
        self.scrapes += 1
        self.failures[kind] += 1
        self.consecutive_failures += 1
        self.last_error = message

    def succeeded(self, reading: Reading, now: float) -> bool:
        """Note a good scrape; returns whether it is still the same engine that answers."""
        self.scrapes += 1
        self.consecutive_failures = 0
        same = self.last_ok_s is None or not self._changed(reading)
        self.identity_changes += not same
        self.last_ok_s = now
        self.found_engine, self.model = reading.engine, reading.model or self.model
        self.accelerator = reading.accelerator or self.accelerator
        self.known, self.waiting_by_reason = reading.known, reading.waiting_by_reason
        return same

    def _changed(self, reading: Reading) -> bool:
        other_model = bool(self.model and reading.model and reading.model != self.model)
        return other_model or reading.engine != self.found_engine

    def notes(self) -> tuple[str, ...]:
        """What an operator should look at, in words."""
        said: list[str] = []
        if self.found_engine and self.found_engine != self.engine:
            said.append(f"configured as {self.engine}, but speaks {self.found_engine}")
        if self.last_ok_s is None and self.failures:
            said.append(f"no scrape has succeeded yet: {self.last_error}")
        if self.last_ok_s is not None and self.missing:
            said.append(f"does not tell {', '.join(self.missing)}")
        if self.identity_changes:
            said.append(f"answered as another engine or model {self.identity_changes} times")
        return tuple(said)

    def summary(self) -> str:
        """What this backend gives, in a line."""
        if self.last_ok_s is None:
            return f"none yet ({self.last_error or 'not answered'}); own counts only"
        said = f"{', '.join(self.known)} from {self.found_engine or self.engine} {self.endpoint}"
        return said + (f"; not {', '.join(self.missing)}" if self.missing else "")

    def as_dict(self, now: float) -> dict[str, object]:
        """Plain values, for JSON."""
        plain = asdict(self)
        plain["problems"] = dict(self.problems.counts)
        plain["failures"] = dict(self.failures)
        plain |= {
            "missing": self.missing,
            "age_s": self.age_s(now),
            "notes": self.notes(),
        }
        return plain
