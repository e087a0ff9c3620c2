"""Where the page's plan and bills come from."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from dataclasses import asdict
from typing import TYPE_CHECKING

from router.gateway.dashboard.board import Sources
from router.gateway.dashboard.tiles import Spend
from router.gateway.dashboard.views import (
    CanaryView,
    PlanShare,
    PlanView,
    ShadowView,
    TrialView,
)
from router.gateway.engine import Engine
from router.gateway.instruments import Instruments, version_of_motley
from router.gateway.metering import Metering
from router.gateway.trial_watch import TrialWatch

if TYPE_CHECKING:
    from router.gateway.planning import Planning

LEAST_SHARE = 0.0005


def sources_of(
    engine: Engine,
    instruments: Instruments,
    metering: Metering,
    planning: Callable[[], Planning | None],
    trial: TrialWatch,
) -> Sources:
    """Whom the board of this gateway asks."""
    return Sources(
        engine=engine,
        accuracy=instruments.accuracy,
        slos=instruments.slos,
        feedback=instruments.feedback,
        targets=lambda: instruments.slos.slos,
        unix_s=time.time,
        version=version_of_motley(),
        plan=lambda: plan_view(planning(), engine.now()),
        spend=lambda: spend_of(metering),
        trial=lambda: trial_view(trial, engine.now()),
    )


def plan_view(planning: Planning | None, now: float) -> PlanView:
    """The newest round, as the page shows it."""
    if planning is None:
        return PlanView(enabled=False)
    last = planning.last
    failures, failure = planning.failures, planning.last_failure
    if last is None:
        return PlanView(enabled=True, failures=failures, last_failure=failure)
    answered = last.answered()
    return PlanView(
        enabled=True,
        age_s=max(0.0, now - last.at_s),
        solve_s=last.solve_s,
        next_in_s=max(0.0, last.at_s + planning.interval_s - now),
        failures=failures,
        last_failure=failure,
        shares=tuple(
            PlanShare(one["class"], one["group"], one["share"])
            for one in answered["shares"]
            if one["share"] > LEAST_SHARE
        ),
        prices=tuple((one["group"], one["price"]) for one in answered["prices"]),
    )


def trial_view(watch: TrialWatch, now: float) -> TrialView:
    """Shadow and canary, as the page shows them."""
    shadow = canary = None
    if watch.shadow:
        shadow = ShadowView(watch.shadow, **asdict(watch.shadows.figures(now)))
    if watch.canary is not None:
        arms = watch.arms(now)
        mine, others = arms["canary"], arms["main"]
        canary = CanaryView(
            watch.canary.name,
            watch.canary.share,
            mine.judged,
            mine.attainment,
            others.judged,
            others.attainment,
        )
    return TrialView(shadow, canary, watch.verdict)


def spend_of(metering: Metering) -> Mapping[str, Spend]:
    """Money and power of each backend now."""
    watts = {name: (value, source) for name, source, value in metering.meter.watts()}
    found: dict[str, Spend] = {}
    for name, usd_per_hour in metering.meter.rents():
        value, source = watts.get(name, (None, ""))
        found[name] = Spend(usd_per_hour, value, source == "prior")
    return found
