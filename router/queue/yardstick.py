"""What a request costs and how soon it can be answered at best, by model; and how fast work drains.

The unit of work is a second of the average backend, so that lengths, models and cards can be added
up. All of it is belief: costs as corrected by telemetry, lengths as forecast.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

from router.domain.request import Request
from router.domain.slo import Slo
from router.domain.state import BackendView

_BATCH = 16
_TYPICAL_PROMPT, _TYPICAL_OUTPUT = 1000, 200.0
_FRESH_S = 5.0
_MEMORY_S = 30.0
_PRIOR_S = 5.0


class Ruler:
    """The average and the fastest of one model's backends at one time."""

    __slots__ = ("_context", "_decoder", "_pair", "_prefill", "_prefiller", "_seq", "rate")

    def __init__(self, backends: Sequence[BackendView]) -> None:
        n = len(backends)
        costs = [view.cost for view in backends]
        self._prefill = sum(cost.prefill_s for cost in costs) / n
        self._pair = sum(cost.pair_s for cost in costs) / n
        self._seq = sum(cost.seq_s + cost.step_s / _BATCH for cost in costs) / n
        self._context = sum(cost.context_s for cost in costs) / n
        self._prefiller = min(backends, key=lambda view: view.cost.prefill_s)
        self._decoder = min(costs, key=lambda cost: cost.step_s + cost.seq_s)
        typical = self.work_s(_TYPICAL_PROMPT, _TYPICAL_OUTPUT)
        self.rate = sum(typical / _alone_s(view) for view in backends)

    def work_s(self, prompt: int, output: float) -> float:
        """Engine-seconds on the average backend."""
        decode = self._seq + self._context * (prompt + 0.5 * output)
        prefill = self._prefill * prompt + 0.5 * self._pair * prompt * prompt
        return max(prefill + output * decode, 1e-9)

    def ttft_s(self, prompt: int) -> float:
        """Time to the first token on the fastest, were it idle."""
        view = self._prefiller
        iterations = prompt / view.chunk_tokens + 1.0
        return view.cost.prompt_s(prompt) + iterations * view.cost.step_s

    def tpot_s(self, prompt: int, output: float) -> float:
        """Time per token on the fastest, were it idle."""
        cost = self._decoder
        return cost.step_s + cost.seq_s + cost.context_s * (prompt + 0.5 * output)

    def latest_start_s(self, request: Request, slo: Slo, margin: float) -> float | None:
        """When it must be sent to answer within its targets for TTFT and E2E, if it has any.

        Args:
            request: with its forecast.
            slo: its targets.
            margin: share of a target that a prediction may use up.
        """
        prompt, output = request.prompt_tokens, max(request.forecast.mean_tokens, 1.0)
        latest = math.inf
        ttft_s = self.ttft_s(prompt)
        if slo.ttft_s is not None:
            latest = margin * slo.ttft_s - ttft_s
        if slo.e2e_s is not None:
            e2e_s = ttft_s + output * self.tpot_s(prompt, output)
            latest = min(latest, margin * slo.e2e_s - e2e_s)
        return None if latest == math.inf else request.arrival_s + latest


def _alone_s(view: BackendView) -> float:
    cost, output = view.cost, _TYPICAL_OUTPUT
    decode = cost.seq_s + cost.step_s / _BATCH + cost.context_s * (_TYPICAL_PROMPT + 0.5 * output)
    return max(cost.prompt_s(_TYPICAL_PROMPT) + output * decode, 1e-9)


class Yardstick:
    """A ruler for each model, made anew every few seconds and when the fleet changes."""

    def __init__(self) -> None:
        self._rulers: dict[str, tuple[float, int, Ruler]] = {}

    def of(self, model: str, backends: Sequence[BackendView], now: float) -> Ruler:
        """The ruler of a model.

        Args:
            model: its name, one that the fleet serves.
            backends: those that may be used now; at least one.
            now: the time.
        """
        known = self._rulers.get(model)
        if known is not None and now - known[0] < _FRESH_S and known[1] == len(backends):
            return known[2]
        ruler = Ruler(backends)
        self._rulers[model] = (now, len(backends), ruler)
        return ruler

    def known(self, model: str) -> Ruler | None:
        """The last ruler of a model, however old; ``None`` if there was none yet."""
        known = self._rulers.get(model)
        return None if known is None else known[2]


class Drain:
    """How fast one model's queue empties, and which share of that each class takes.

    Work sent over the time in which somebody waited, both fading with ``_MEMORY_S`` of such time;
    until there is enough of it, the fleet's own speed counts for ``_PRIOR_S`` seconds.
    """

    __slots__ = ("_by_class", "_since_s", "_waited_s", "_work_s")

    def __init__(self) -> None:
        self._work_s = self._waited_s = 0.0
        self._by_class: dict[str, float] = {}
        self._since_s: float | None = None

    def waits(self, now: float, *, somebody: bool) -> None:
        """Whether anybody waits from now on."""
        if self._since_s is not None:
            passed = max(now - self._since_s, 0.0)
            fade = math.exp(-passed / _MEMORY_S)
            self._waited_s = self._waited_s * fade + passed
            self._work_s *= fade
            for name in self._by_class:
                self._by_class[name] *= fade
        self._since_s = now if somebody else None

    def sent(self, slo_class: str, work_s: float, now: float, *, somebody: bool) -> None:
        """A request left for a backend; it counts if anybody waited, if only itself.

        Args:
            slo_class: its class.
            work_s: what it costs.
            now: the time.
            somebody: whether anybody waits from now on.
        """
        waited = self._since_s is not None
        self.waits(now, somebody=somebody)
        if waited:
            self._work_s += work_s
            self._by_class[slo_class] = self._by_class.get(slo_class, 0.0) + work_s

    def rate(self, prior: float) -> float:
        """Work-seconds per second."""
        return (prior * _PRIOR_S + self._work_s) / (_PRIOR_S + self._waited_s)

    def rate_of(self, slo_class: str) -> float:
        """What one class takes of it."""
        return self._by_class.get(slo_class, 0.0) / (_PRIOR_S + self._waited_s)
