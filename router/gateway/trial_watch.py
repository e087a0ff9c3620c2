"""Watches a policy on trial: what a shadow would have done, and whether a canary may stay.

A canary is taken back when significantly fewer of its requests kept their SLO than of the
others: the upper end of the one-sided 95 % interval of the difference of the two shares (Newcombe
1998, from Wilson's intervals, which hold near 0 and 1 where shares of kept SLOs live) lies below
``-margin``.
"""

from __future__ import annotations

import logging
import math
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass

from router.config.schema import CanarySection, PolicySection
from router.dispatcher import Dispatcher
from router.domain.outcome import Outcome
from router.domain.slo import Slo
from router.gateway.lull import Rest
from router.policies.trial import Comparison, Trial, is_canary
from telemetry import metric_table as table
from telemetry.metrics import GatewayMetrics, Sample
from telemetry.sliding import SlidingWindow

log = logging.getLogger("motley.policy")

LOOK_S = 1.0
SHADOW_WINDOW_S = 600.0
Z_95 = 1.645
"""One-sided 95 %."""

ARMS = ("main", "canary")


@dataclass(slots=True)
class Arm:
    """One side of a canary: how many requests were judged, and kept their SLO."""

    judged: int
    met: int

    @property
    def attainment(self) -> float | None:
        """Share that kept it; ``None`` without any."""
        return self.met / self.judged if self.judged else None


@dataclass(frozen=True, slots=True)
class ShadowFigures:
    """A shadow over the last minutes; times are predicted, by the same belief for both.

    Attributes:
        decisions: requests both were asked about.
        agreement: share of them on which both chose the same.
        regret_s: mean predicted E2E of the policy in force minus that of the shadow; positive:
            the shadow would have been faster, request by request.
        ttft_p99_s, shadow_ttft_p99_s, e2e_p99_s, shadow_e2e_p99_s: predicted.
    """

    decisions: int
    agreement: float | None
    regret_s: float | None
    ttft_p99_s: float | None
    shadow_ttft_p99_s: float | None
    e2e_p99_s: float | None
    shadow_e2e_p99_s: float | None


class ShadowWindow:
    """Comparisons of the last minutes, in bounded memory."""

    def __init__(self) -> None:
        names = ("ttft", "shadow_ttft", "e2e", "shadow_e2e", "agreed")
        self._windows = {name: SlidingWindow(SHADOW_WINDOW_S) for name in names}

    def add(self, one: Comparison) -> None:
        """Take one comparison."""
        windows, now = self._windows, one.now
        windows["agreed"].judge(one.backend == one.shadow_backend, now)
        if one.e2e_s is None or one.shadow_e2e_s is None:
            return  # who waits now is asked again, and compared then
        windows["e2e"].add(one.e2e_s, now)
        windows["shadow_e2e"].add(one.shadow_e2e_s, now)
        if one.ttft_s is not None and one.shadow_ttft_s is not None:
            windows["ttft"].add(one.ttft_s, now)
            windows["shadow_ttft"].add(one.shadow_ttft_s, now)

    def figures(self, now: float) -> ShadowFigures:
        """Sum it up."""
        windows = self._windows
        mine, other = windows["e2e"].mean(now), windows["shadow_e2e"].mean(now)
        return ShadowFigures(
            decisions=windows["e2e"].count(now),
            agreement=windows["agreed"].attainment(now),
            regret_s=None if mine is None or other is None else mine - other,
            ttft_p99_s=windows["ttft"].quantile(0.99, now),
            shadow_ttft_p99_s=windows["shadow_ttft"].quantile(0.99, now),
            e2e_p99_s=windows["e2e"].quantile(0.99, now),
            shadow_e2e_p99_s=windows["shadow_e2e"].quantile(0.99, now),
        )


class TrialWatch:
    """An ``Observer`` that judges a canary, and the ear of a shadow.

    Args:
        policy: the ``policy`` section in force; asked at every look, as a reload may change it.
        slos: targets by class, likewise.
        take_back: puts the policy without its canary in force.

    Attributes:
        rollbacks: canaries taken back, by name.
        verdict: why the last one was; empty if none was.
    """

    def __init__(
        self,
        policy: Callable[[], PolicySection],
        slos: Callable[[], Mapping[str, Slo]],
        take_back: Callable[[], None],
    ) -> None:
        self._policy, self._slos, self._take_back = policy, slos, take_back
        self._trial: Trial | None = None
        self.rollbacks: Counter[str] = Counter()
        self.verdict = ""
        self._renew(None)

    def observe(self, outcome: Outcome) -> None:
        """Judge one finished attempt, if a canary is out."""
        section = self._canary
        if section is None or outcome.status == "cancelled":
            return
        arm = self._arms["canary" if is_canary(outcome.request_id, section.share) else "main"]
        arm.judge(self._met(outcome), outcome.finished_s)

    def _met(self, outcome: Outcome) -> bool:
        if outcome.status != "completed":
            return False
        slo = outcome.targets(self._slos())
        first_s = outcome.e2e_s if outcome.ttft_s is None else outcome.ttft_s
        return slo is None or slo.met(
            ttft_s=first_s, tpot_s=outcome.tpot_s or 0.0, e2e_s=outcome.e2e_s
        )

    def look(self, dispatcher: Dispatcher, now: float) -> None:
        """Listen to the policy in force, and take its canary back if it costs too much."""
        policy = dispatcher.policy
        trial = policy if isinstance(policy, Trial) else None
        if trial is not self._trial:
            self._renew(trial)
        if self._canary is not None:
            why = costs_too_much(self._canary, self.arms(now))
            if why:
                self._roll_back(self._canary, why)

    async def keep_looking(
        self, dispatcher: Dispatcher, now: Callable[[], float], rest: Rest
    ) -> None:
        """The chore."""
        while True:
            self.look(dispatcher, now())
            await rest(LOOK_S)

    def arms(self, now: float) -> dict[str, Arm]:
        """Both sides of the canary."""
        return {name: Arm(w.judged(now), w.met(now)) for name, w in self._arms.items()}

    @property
    def canary(self) -> CanarySection | None:
        """The canary that is out."""
        return self._canary

    @property
    def shadow(self) -> str:
        """Name of the shadow; empty if there is none."""
        said = self._policy().shadow
        return said.name if said is not None and self._trial is not None else ""

    def _renew(self, trial: Trial | None) -> None:
        self._trial = trial
        self.shadows = ShadowWindow()
        self._canary = self._policy().canary if trial is not None and trial.canary else None
        window_s = self._canary.window_s if self._canary is not None else 1.0
        self._arms = {name: SlidingWindow(window_s) for name in ARMS}
        if trial is not None:
            trial.told = self.shadows.add

    def _roll_back(self, canary: CanarySection, why: str) -> None:
        log.error("the canary %s is taken back: %s", canary.name, why)
        self.rollbacks[canary.name] += 1
        self.verdict = f"the canary {canary.name} was taken back: {why}"
        self._canary = None
        self._take_back()


def costs_too_much(canary: CanarySection, arms: Mapping[str, Arm]) -> str:
    """Why a canary has to go; empty if it may stay."""
    mine, others = arms["canary"], arms["main"]
    if mine.judged < canary.min_requests or not others.judged:
        return ""
    best_case = upper_difference(mine, others)
    if best_case >= -canary.margin:
        return ""
    return (
        f"{mine.met} of its {mine.judged} requests kept their SLO, "
        f"{others.met} of the {others.judged} others did"
    )


def upper_difference(mine: Arm, others: Arm) -> float:
    """Upper end of the one-sided 95 % interval of ``mine`` minus ``others`` (Newcombe 1998)."""
    p, q = mine.met / mine.judged, others.met / others.judged
    up, low = _wilson(mine)[1], _wilson(others)[0]
    return p - q + math.hypot(up - p, q - low)


def _wilson(arm: Arm) -> tuple[float, float]:
    n, p, zz = arm.judged, arm.met / arm.judged, Z_95 * Z_95
    middle = (p + zz / (2 * n)) / (1 + zz / n)
    half = Z_95 / (1 + zz / n) * math.sqrt(p * (1 - p) / n + zz / (4 * n * n))
    return middle - half, middle + half


def ask_trial(metrics: GatewayMetrics, watch: TrialWatch, now: Callable[[], float]) -> None:
    """What ``/metrics`` says of shadow and canary."""

    def shadows() -> Iterator[Sample]:
        found = watch.shadows.figures(now())
        for who, figure, value in (
            ("main", "ttft", found.ttft_p99_s),
            ("shadow", "ttft", found.shadow_ttft_p99_s),
            ("main", "e2e", found.e2e_p99_s),
            ("shadow", "e2e", found.shadow_e2e_p99_s),
        ):
            if value is not None:
                yield (who, figure), value

    def one(value: float | None) -> list[Sample]:
        return [] if value is None else [((), value)]

    def arms() -> Iterator[Sample]:
        if watch.canary is not None:
            for name, arm in watch.arms(now()).items():
                if arm.attainment is not None:
                    yield (name,), arm.attainment

    metrics.ask(table.SHADOW_P99, shadows)
    metrics.ask(table.SHADOW_AGREEMENT, lambda: one(watch.shadows.figures(now()).agreement))
    metrics.ask(table.SHADOW_REGRET, lambda: one(watch.shadows.figures(now()).regret_s))
    metrics.ask(table.CANARY_ATTAINMENT, arms)
    metrics.ask(
        table.CANARY_ROLLBACKS,
        lambda: [((name,), float(n)) for name, n in watch.rollbacks.items()],
    )
