"""Each backend in turn, whatever its speed. Default of production-stack's Helm chart."""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.context import PolicyContext


class RoundRobin:
    """One counter per model; sorted by position, so a change of membership skips nobody twice."""

    def __init__(self, context: PolicyContext) -> None:
        self._last: dict[str, int] = {}
        del context

    def choose(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The first one after the last choice, in the order of the fleet file."""
        last = self._last.get(request.model, -1)
        chosen = next((view for view in candidates if view.index > last), candidates[0])
        self._last[request.model] = chosen.index
        return chosen
