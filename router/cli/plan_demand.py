"""What ``motley plan`` plans for, and what it weighs."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from router.config.load import MotleyConfig
    from solver.workload import Workload


def demand_of(trace: Any, config: MotleyConfig, *, by_tenant: bool) -> Workload:
    """A trace as demand: aliases resolved, unnamed models taken as the fleet's first."""
    from solver.settings import tenant_group_of
    from solver.workload import build_workload

    def resolved() -> Iterator[Any]:
        for record in trace.records():
            name = config.aliases.get(record.model, record.model)
            yield record if name == record.model else replace(record, model=name)

    return build_workload(
        resolved(),
        default_model=config.first_backend.model,
        tenant_group=(lambda tenant: tenant) if by_tenant else tenant_group_of(config.planner),
    )


def parse_weights(text: str) -> dict[str, object]:
    """Read ``cost=0.1,energy=2``.

    Raises:
        WorkloadError: a part that does not look like that, or whose value is no number.
    """
    from router.domain.errors import WorkloadError

    found: dict[str, object] = {}
    for part in filter(None, (piece.strip() for piece in text.split(","))):
        name, equals, value = part.partition("=")
        try:
            found[name.strip()] = float(value)
        except ValueError:
            problem = "must be a number" if equals else "should look like name=number"
            raise WorkloadError(f"--weights: {part!r} {problem}, as in cost=0.1") from None
    return found
