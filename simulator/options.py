"""How a replay is run: everything but the trace, the fleet and the policy."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, field, fields
from typing import Literal

from router.domain.errors import ConfigError, UnknownNameError

_WRONGEST = 3.0
"""A belief off by a factor of 20 in the ordinary case; more is no belief."""
_OFTENEST_S = 0.001
"""A replay steps through every one of them."""
PREDICTORS = ("bucket", "constant", "oracle")


@dataclass(frozen=True, slots=True)
class ReplayOptions:
    """Defaults are as wrong and as stale as production is; ``oracle`` shows the bound.

    Attributes:
        seed: of everything random: policies, model error, arrival ties (I5).
        engine: ``fast`` jumps over iterations in which nothing changes, ``exact`` steps through
            every one of them.
        model_error: sigma of the log-normal factor by which the belief about each backend's
            prefill and decode costs is off from the truth; 0.2 is what careful offline
            profiling reaches.
        scrape_interval_s: how often each engine's metrics are read, 0 means never; the policies
            of other routers are told as often as those routers poll.
        telemetry_delay_s: from reading to knowing.
        length_predictor: ``bucket`` (mean of what finished before, by prompt length),
            ``constant`` or ``oracle``.
        feedback: whether observed latencies correct the belief.
        plan: whether the planner's prices are set, as often as the fleet file says.
        routers: gateway replicas; requests go to them in turn and each knows only its own.
        shared_every_s: how often they exchange what they have under way; 0 means never.
        zone_delay_s: one-way network delay from the gateway to each zone.
        client_timeout_s: clients leave when not served by then; ``None`` means they never do.
        fallback: whether requests allow the fallback models that the fleet file names.
        oracle: exact costs, signals fresh at every decision, true lengths as the forecast.
    """

    seed: int = 0
    engine: Literal["fast", "exact"] = "fast"
    model_error: float = 0.2
    scrape_interval_s: float = 1.0
    telemetry_delay_s: float = 0.05
    length_predictor: str = "bucket"
    feedback: bool = True
    feedback_interval_s: float = 1.0
    plan: bool = False
    routers: int = 1
    shared_every_s: float = 0.0
    zone_delay_s: Mapping[str, float] = field(default_factory=dict, hash=False)
    client_timeout_s: float | None = None
    oracle: bool = False
    fallback: bool = False

    def __post_init__(self) -> None:
        self._check_choices()
        for name in ("model_error", "scrape_interval_s", "telemetry_delay_s", "shared_every_s"):
            _at_least_zero(name, getattr(self, name))
        for name in ("scrape_interval_s", "shared_every_s"):
            value = getattr(self, name)
            if 0 < value < _OFTENEST_S:
                raise ConfigError(
                    f"{name} must be 0 (never) or at least {_OFTENEST_S} s, not {value!r}"
                )
        if self.model_error > _WRONGEST:
            raise ConfigError(f"model_error must be at most {_WRONGEST}, not {self.model_error!r}")
        for name in ("feedback_interval_s", "client_timeout_s"):
            value = getattr(self, name)
            if value is not None and not value > 0:
                raise ConfigError(f"{name} must be more than 0, not {value!r}")
        for zone, delay in self.zone_delay_s.items():
            _at_least_zero(f"the network delay of zone {zone!r}", delay)
        if self.routers < 1:
            raise ConfigError(f"at least 1 router is needed, not {self.routers}")

    def _check_choices(self) -> None:
        if self.engine not in ("fast", "exact"):
            raise UnknownNameError("engine mode", self.engine, ("fast", "exact"))
        if self.length_predictor not in PREDICTORS:
            raise UnknownNameError("length predictor", self.length_predictor, PREDICTORS)

    def as_json(self) -> dict[str, object]:
        """Plain values, for reports and sweep cells."""
        values = {f.name: getattr(self, f.name) for f in fields(self)}
        values["zone_delay_s"] = dict(self.zone_delay_s)
        return values


def _at_least_zero(name: str, value: float) -> None:
    if not (value >= 0 and math.isfinite(value)):
        raise ConfigError(f"{name} must be a number of at least 0, not {value!r}")
