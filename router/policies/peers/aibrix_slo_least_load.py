"""AIBrix ``slo-least-load``: profile-driven load, least utilized first.

The load of one request on a pod is ``c = 1 / (lambda * W)`` (Little), with lambda the profiled
request rate that the GPU sustains for this prompt and output size and W its latency there;
utilization is the sum of c in flight. The only profile-driven heterogeneous policy of the peers;
its profile here is the believed cost model at a batch of 16. (AIBrix ``slo.go``.)
"""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.outcome import Outcome
from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.choosing import least
from router.policies.context import PolicyContext

PROFILED_BATCH = 16


class AibrixSloLeastLoad:
    """Argmin of utilization after adding the request."""

    def __init__(self, context: PolicyContext) -> None:
        self._rng = context.rng
        self._load: dict[str, float] = {}
        self._share: dict[str, tuple[str, float]] = {}

    def choose(
        self,
        request: Request,
        candidates: Sequence[BackendView],
        now: float,  # noqa: ARG002
    ) -> BackendView | None:
        """The least utilized."""

        def utilization(view: BackendView) -> float:
            return self._load.get(view.spec.name, 0.0) + _share(view, request)

        chosen = least(candidates, utilization, self._rng)
        share = _share(chosen, request)
        self._load[chosen.spec.name] = self._load.get(chosen.spec.name, 0.0) + share
        self._share[request.request_id] = (chosen.spec.name, share)
        return chosen

    def observe(self, outcome: Outcome) -> None:
        """Give the finished request's share back."""
        name, share = self._share.pop(outcome.request_id, ("", 0.0))
        if name in self._load:
            self._load[name] = max(self._load[name] - share, 0.0)

    def lost(self, backend: str) -> None:
        """The backend left, or fell ill: nothing runs there any more."""
        self._load.pop(backend, None)


def _share(view: BackendView, request: Request) -> float:
    """1 / (lambda * W) = 1 / concurrency the pod sustains at its profiled batch, by size."""
    cost, prompt = view.cost, request.prompt_tokens
    output = max(request.forecast.mean_tokens, 1.0)
    context = prompt + 0.5 * output
    decode_s = cost.iteration_s(0, PROFILED_BATCH, PROFILED_BATCH * context)
    alone_s = cost.prefill_s * prompt + output * decode_s
    rate_per_s = 1.0 / (cost.prefill_s * prompt + output * decode_s / PROFILED_BATCH)
    return 1.0 / (rate_per_s * alone_s)
