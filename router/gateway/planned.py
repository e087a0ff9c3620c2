"""The planner's corner of a gateway: demand, rounds, history, metrics, put together."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import Iterator
from functools import partial

from router.config.load import MotleyConfig
from router.gateway.engine import Engine
from router.gateway.instruments import Instruments
from router.gateway.placement.adapter import PlacementError
from router.gateway.placement.build import RuntimeMembers, adapter_of, check_placement
from router.gateway.placement.control import PlacementLoop
from router.gateway.plan_history import PlanHistory
from router.gateway.planning import Costs, Demand, Planning, ReportingPlanner
from router.gateway.planning_metrics import ask_planning
from router.gateway.runtime import Chore, Runtime
from telemetry.drift import Drift
from telemetry.metric_table import PLACEMENT_STEPS
from telemetry.metrics import Sample

log = logging.getLogger("motley.placement")

RETRY_S = 5.0
"""Between attempts to learn which engines are asleep, while one does not answer."""


class Planned:
    """What ``planner.enabled`` adds to a gateway.

    Args:
        config: the fleet file.

    Raises:
        ConfigError: the history cannot be written, or the placement lacks a setting or an extra.

    Attributes:
        demand: an observer for the dispatcher.
    """

    def __init__(self, config: MotleyConfig) -> None:
        self._config = config
        check_placement(config)
        path = config.planner.history
        self._history = PlanHistory(path, time.time) if path else None
        self._planning: Planning | None = None
        self._placing: PlacementLoop | None = None
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

    @property
    def planning(self) -> Planning | None:
        """Makes the rounds; ``None`` before ``attach``."""
        return self._planning

    def place(self, runtime: Runtime) -> list[Chore]:
        """The chore that puts the plan's placement into effect, if the file asks for it."""
        if self._config.planner.placement.adapter == "none":
            return []
        return [Chore("placement", lambda: self._keep_placing(runtime))]

    async def _keep_placing(self, runtime: Runtime) -> None:
        members = RuntimeMembers(runtime)
        adapter = None
        while adapter is None:
            try:
                adapter = await adapter_of(self._config, members)
            except PlacementError as error:
                log.warning("placement waits: %s", error)
                await asyncio.sleep(RETRY_S)
        loop = PlacementLoop(
            self._config,
            adapter,
            members,
            lambda: self.demand.recent(runtime.engine.now()),
            runtime.engine.now,
            listener=self._history.placed if self._history else None,
        )
        self._placing = loop
        if self._planning is not None:
            self._planning.on_drift.append(loop.triggers.drifted)
        runtime.instruments.metrics.ask(PLACEMENT_STEPS, lambda: _steps(loop))
        await loop.run()

    def reconfigure(self, config: MotleyConfig) -> None:
        """Plan by the ``planner`` section of another file from the next round on."""
        self._config = config
        self.demand.window_s = config.planner.window_s
        if self._planning is not None:
            self._planning.reconfigure(config.planner, partial(_planner, config))
        if self._placing is not None:
            self._placing.config = config

    def close(self) -> None:
        """Write what is pending of the history."""
        if self._history is not None:
            self._history.close()


def _steps(loop: PlacementLoop) -> Iterator[Sample]:
    for (kind, outcome), count in loop.steps.items():
        yield (kind, outcome), float(count)


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
        for told in planning.on_drift:
            told()

    feedback.on_drift = drifted
