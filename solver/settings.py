"""From the fleet file to the planner: the one place that gateway, simulator and CLI share."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING

from router.config.load import MotleyConfig
from router.config.planner import PlannerSection
from router.domain.errors import UnknownNameError
from solver.options import Limits

if TYPE_CHECKING:
    from solver.planner import Costs, RollingPlanner


def limits_of(config: MotleyConfig, *, allow_unserved: bool = False) -> Limits:
    """What the ``planner`` section says that a plan must respect.

    Args:
        config: the fleet file.
        allow_unserved: plan for as much as fits, as a running fleet must.

    Raises:
        WorkloadError: a number that makes no sense.
        UnknownNameError: a GPU that is in no catalogue, a class without targets.
    """
    section = config.planner
    for gpu in section.usd_per_hour:
        config.hardware.catalog.gpu(gpu)
    for slo_class in section.quality_floor:
        if slo_class not in config.slos:
            raise UnknownNameError("SLO class (planner.quality_floor)", slo_class, config.slos)
    return Limits(
        budget_usd_per_hour=section.budget_usd_per_hour,
        min_replicas=section.min_replicas,
        max_zone_share=section.max_zone_share,
        max_moves=section.placement.max_moves,
        quality=section.quality,
        quality_floor=section.quality_floor,
        prices_usd_per_hour=section.usd_per_hour,
        slos=config.slos,
        allow_unserved=allow_unserved,
        hysteresis=section.placement.hysteresis,
        horizon_s=section.placement.interval_s,
        time_limit_s=section.placement.time_limit_s,
    )


def tenant_group_of(section: PlannerSection) -> Callable[[str], str]:
    """The group that a tenant is planned with: as the file says, else everybody else's."""
    groups = section.tenant_groups
    return lambda tenant: groups.get(tenant, "")


def make_planner(config: MotleyConfig, costs: Costs | None = None) -> RollingPlanner:
    """The rolling planner, as gateway and simulator run it.

    Args:
        config: the fleet file.
        costs: what the router believes of each backend now.

    Raises:
        BadInputError: settings that make no sense.
    """
    from solver.planner import RollingPlanner  # noqa: PLC0415 - takes seconds, and few plan

    return RollingPlanner(
        config.planner,
        limits=limits_of(config),
        hardware=config.hardware,
        costs=costs,
        tenant_group=tenant_group_of(config.planner),
    )
