"""What users of each service class have got in the last minutes: percentiles and attainment."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.domain.outcome import Outcome
from router.domain.qoe import qoe_under
from router.domain.slo import Slo
from telemetry.label_cap import LabelCap
from telemetry.sliding import SMALLEST, SlidingWindow

MOST_CLASSES = 32
SHORTEST_S = 1.0
"""A rate over less says nothing."""


@dataclass(frozen=True, slots=True)
class Latency:
    """Percentiles of one latency in seconds; ``None`` without data."""

    p50: float | None
    p90: float | None
    p99: float | None


@dataclass(frozen=True, slots=True)
class SloReport:
    """One class over the window.

    Attributes:
        finished: completed requests.
        attainment: share of completed and missed requests that kept all targets.
        goodput_per_s: requests per second that did.
        ttft, tpot, e2e: of the completed ones.
        qoe: mean Andes QoE, lost requests counting 0; ``None`` where the class has no TTFT target.
    """

    finished: int
    attainment: float | None
    goodput_per_s: float
    ttft: Latency
    tpot: Latency
    e2e: Latency
    qoe: float | None = None


@dataclass(slots=True)
class _Class:
    ttft: SlidingWindow
    tpot: SlidingWindow
    e2e: SlidingWindow
    qoe: SlidingWindow


@dataclass
class SloWindow:
    """An ``Observer`` over completed requests; memory does not grow with traffic.

    Args:
        slos: targets by class name; a class without targets is met by finishing.
        window_s: how far back it looks.
        began_s: when it began to; a rate is over the time since, where that is shorter. ``None``
            means long ago.
    """

    slos: Mapping[str, Slo]
    window_s: float = 300.0
    began_s: float | None = None
    _classes: dict[str, _Class] = field(default_factory=dict, init=False)
    _cap: LabelCap = field(default_factory=lambda: LabelCap(MOST_CLASSES), init=False)

    def __post_init__(self) -> None:
        for name in self.slos:
            self._cap.admit(name)

    def observe(self, outcome: Outcome) -> None:
        """Take note of one finished attempt.

        A failed attempt may yet be retried and a cancelled one is the client's own choice, so
        neither is judged here; a request that is lost for good is reported by ``missed``.
        """
        if outcome.status != "completed":
            return
        now, ttft_s, tpot_s = outcome.finished_s, outcome.ttft_s, outcome.tpot_s
        kept = self._class(outcome.slo_class)
        if ttft_s is not None:
            kept.ttft.add(ttft_s, now)
        if tpot_s is not None:
            kept.tpot.add(tpot_s, now)
        slo = outcome.targets(self.slos)
        e2e_s = outcome.e2e_s
        # Without a first token of its own the answer was read when it was complete.
        first_s = e2e_s if ttft_s is None else ttft_s
        met = slo is None or slo.met(ttft_s=first_s, tpot_s=tpot_s or 0.0, e2e_s=e2e_s)
        kept.e2e.add(e2e_s, now, met)
        if slo is not None:
            score = qoe_under(
                slo, ttft_s=first_s, tpot_s=tpot_s, output_tokens=outcome.answer_tokens
            )
            if score is not None:
                kept.qoe.add(max(score, SMALLEST), now)

    def missed(self, slo_class: str, now: float) -> None:
        """A request of this class was rejected or lost."""
        kept = self._class(slo_class)
        kept.e2e.judge(False, now)
        slo = self.slos.get(slo_class)
        if slo is not None and slo.ttft_s is not None:
            kept.qoe.add(SMALLEST, now)

    def report(self, now: float) -> dict[str, SloReport]:
        """Every class seen so far."""
        return {name: self._report(kept, now) for name, kept in self._classes.items()}

    def _report(self, kept: _Class, now: float) -> SloReport:
        attainment, met = kept.e2e.attainment(now), kept.e2e.met(now)
        since_s = self.window_s if self.began_s is None else now - self.began_s
        return SloReport(
            finished=kept.e2e.count(now),
            attainment=attainment,
            goodput_per_s=met / min(self.window_s, max(SHORTEST_S, since_s)),
            ttft=_latency(kept.ttft, now),
            tpot=_latency(kept.tpot, now),
            e2e=_latency(kept.e2e, now),
            qoe=kept.qoe.mean(now),
        )

    def _class(self, name: str) -> _Class:
        label = self._cap(name)
        if label not in self._classes:
            self._classes[label] = _Class(*(SlidingWindow(self.window_s) for _ in range(4)))
        return self._classes[label]


def _latency(window: SlidingWindow, now: float) -> Latency:
    return Latency(*window.quantiles((0.5, 0.9, 0.99), now))
