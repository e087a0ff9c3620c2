"""What the router believes of a backend's speed, in the form that the planner reads."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, fields

from router.domain.fleet import BackendSpec
from router.domain.state import LinearCost


@dataclass(frozen=True, slots=True)
class BelievedModel:
    """A ``PerfModel`` over a linear cost."""

    cost: LinearCost

    def iteration_s(
        self,
        prefill_tokens: int,
        decode_seqs: int,
        context_tokens: float,
        prefill_pairs: float = 0.0,
    ) -> float:
        """Seconds of one iteration."""
        return self.cost.iteration_s(prefill_tokens, decode_seqs, context_tokens, prefill_pairs)

    def linear(self) -> LinearCost:
        """The cost itself."""
        return self.cost


def believed_models(
    fleet: Iterable[BackendSpec], costs: Callable[[BackendSpec], LinearCost | None]
) -> dict[str, BelievedModel]:
    """What the router believes of each group of a fleet."""
    members: dict[str, list[LinearCost]] = {}
    for spec in fleet:
        cost = costs(spec)
        if cost is not None:
            members.setdefault(spec.group, []).append(cost)
    return {group: BelievedModel(average_cost(known)) for group, known in members.items()}


def average_cost(costs: Sequence[LinearCost]) -> LinearCost:
    """One cost for a group of backends: harmonic means, because their speeds add up."""
    means = {}
    for spec in fields(LinearCost):
        values = [getattr(cost, spec.name) for cost in costs]
        slowest = min(values) <= 0.0
        means[spec.name] = 0.0 if slowest else len(values) / sum(1.0 / value for value in values)
    return LinearCost(**means)
