"""The ``planner`` section: what is weighed, what is respected, what is put into effect."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field, field_validator

from router.config.section import Seconds, Section

WEIGHTS = ("latency", "cost", "energy", "switching", "unserved", "fairness")
"""Names of the planner's weights; their meaning is in ``solver.options.Weights``."""
Number = Annotated[float, Field(ge=0, allow_inf_nan=False)]
Share = Annotated[float, Field(gt=0, le=1)]


class PlacementSection(Section):
    """Whether the plan's placement is put into effect, and how.

    ``dry_run``, ``pause_s``, ``label_selector`` and ``stock`` are for Kubernetes: say what would
    be scaled and scale nothing; least time between two steps; which deployments beside the label
    ``motley.dev/managed``; cards by GPU type.
    """

    adapter: Literal["none", "dry-run", "vllm", "kubernetes"] = "none"
    interval_s: Seconds = 600.0
    time_limit_s: Seconds = 30.0
    hysteresis: float = Field(default=0.05, ge=0, allow_inf_nan=False)
    max_moves: int | None = Field(default=None, ge=0)
    ready_timeout_s: Seconds = 900.0
    path: str = "motley-placement.json"
    namespace: str = "default"
    label_selector: str = ""
    dry_run: bool = False
    pause_s: Annotated[float, Field(ge=0, le=86400)] = 0.0
    stock: dict[str, Annotated[int, Field(ge=0)]] = Field(default_factory=dict)


class PlannerSection(Section):
    """The periodic plan whose prices guide the policy, and what it must respect."""

    enabled: bool = False
    interval_s: Seconds = 30.0
    window_s: Seconds = 300.0
    weights: dict[str, Number] = Field(default_factory=dict)
    min_replicas: int = Field(default=1, ge=0)
    max_zone_share: Share = 1.0
    budget_usd_per_hour: Annotated[float, Field(gt=0, allow_inf_nan=False)] | None = None
    usd_per_hour: dict[str, Number] = Field(default_factory=dict)
    quality: dict[str, Number] = Field(default_factory=dict)
    quality_floor: dict[str, Number] = Field(default_factory=dict)
    tenant_groups: dict[str, str] = Field(default_factory=dict)
    history: str | None = "motley-plans.sqlite"
    placement: PlacementSection = PlacementSection()

    @field_validator("weights")
    @classmethod
    def _weights_exist(cls, given: dict[str, float]) -> dict[str, float]:
        unknown = [name for name in given if name not in WEIGHTS]
        if unknown:
            raise ValueError(f"no weight {unknown[0]!r}; there are {', '.join(WEIGHTS)}")
        return given
