"""What ``/metrics`` says of the planner."""

from __future__ import annotations

from collections.abc import Iterator

from router.gateway.planning import Planning
from telemetry import metric_table as table
from telemetry.metrics import GatewayMetrics, Sample


def ask_planning(metrics: GatewayMetrics, planning: Planning) -> None:
    """Rounds, age of the prices in force, time to solve, expected and actual delay.

    A planner that fails shows twice: ``motley_plan_rounds_total{outcome="failed"}`` rises, and
    ``motley_plan_age_seconds`` grows until the prices are taken out of force.
    """

    def rounds() -> Iterator[Sample]:
        for outcome in ("ok", "failed"):
            yield (outcome,), float(planning.rounds[outcome])

    def delays() -> Iterator[Sample]:
        for figure, value in (
            ("expected", planning.expected_e2e_s),
            ("actual", planning.actual_e2e_s),
        ):
            if value is not None:
                yield (figure,), value

    metrics.ask(table.PLAN_ROUNDS, rounds)
    metrics.ask(table.PLAN_AGE, lambda: _known(planning.age_s))
    metrics.ask(table.PLAN_SOLVE, lambda: _known(planning.solve_s))
    metrics.ask(table.PLAN_E2E, delays)


def _known(value: float | None) -> list[Sample]:
    return [] if value is None else [((), value)]
