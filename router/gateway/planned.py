"""The planner's corner of a gateway: demand, rounds, history, metrics, put together."""

from __future__ import annotations

import time
from functools import partial

from router.config.load import MotleyConfig
from router.gateway.engine import Engine
from router.gateway.instruments import Instruments
from router.gateway.plan_history import PlanHistory
from router.gateway.planning import Costs, Demand, Planning, ReportingPlanner
from router.gateway.planning_metrics import ask_planning
from router.gateway.runtime import Chore
from telemetry.drift import Drift


class Planned:
    """What ``planner.enabled`` adds to a gateway.

    Args:
        config: the fleet file.

    Raises:
        ConfigError: the history cannot be written.

    Attributes:
        demand: an observer for the dispatcher.
    """

    def __init__(self, config: MotleyConfig) -> None:
        self._config = config
        path = config.planner.history
        self._history = PlanHistory(path, time.time) if path else None
        self._planning: Planning | None = None
        self.demand = Demand(config.planner.window_s)

    def attach(self, engine: Engine, instruments: Instruments) -> list[Chore]:
        """The chores that plan for this engine."""
        config = self._config
        planning = Planning(
            engine,
            config.planner,
            self.demand,
            partial(_planner, config),
            self._history.finished if self._history else None,
        )
        self._planning = planning
        ask_planning(instruments.metrics, planning)
        _watch_drift(instruments, planning)
        return [Chore("planner", planning.run)]

    def reconfigure(self, config: MotleyConfig) -> None:
        """Plan by the ``planner`` section of another file from the next round on."""
        self._config = config
        self.demand.window_s = config.planner.window_s
        if self._planning is not None:
            self._planning.reconfigure(config.planner, partial(_planner, config))

    def close(self) -> None:
        """Write what is pending of the history."""
        if self._history is not None:
            self._history.close()


def _planner(config: MotleyConfig, costs: Costs) -> ReportingPlanner:
    from solver.settings import make_planner  # noqa: PLC0415 - a second, and few plan

    return make_planner(config, costs)


def _watch_drift(instruments: Instruments, planning: Planning) -> None:
    """A backend that changed its speed is a reason to plan again."""
    feedback = instruments.feedback
    if feedback is None:
        return
    tell = feedback.on_drift

    def drifted(drift: Drift) -> None:
        if tell is not None:
            tell(drift)
        planning.triggers.drifted()

    feedback.on_drift = drifted
