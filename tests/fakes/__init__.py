"""Small builders for tests: backends with round numbers, a policy that waits, a fleet to play on.

The costs are chosen so that a test can work out every figure on paper.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from router.dispatcher import Dispatcher
from router.domain.decision import Assign, Decision
from router.domain.fleet import BackendSpec, Fleet
from router.domain.outcome import Outcome, OutcomeStatus
from router.domain.protocols import Hold, Observer, Policy
from router.domain.request import LengthForecast, Request
from router.domain.state import BackendView, LinearCost
from router.fleet_state.backend import BackendState
from router.fleet_state.capability import Capability
from router.fleet_state.fleet import FleetState
from router.health.breaker import BreakerConfig
from router.perf.length import ConstantLengthPredictor

MODEL = "llama-3.1-8b"

FAST = LinearCost(step_s=0.010, prefill_s=0.0001, seq_s=0.0002, context_s=1e-6)
"""10 ms an iteration, 10,000 prompt tokens a second."""
SLOW = LinearCost(step_s=0.030, prefill_s=0.0005, seq_s=0.0010, context_s=5e-6)
"""30 ms an iteration, 2,000 prompt tokens a second: five times slower in prefill."""


def spec(name: str, **fields: Any) -> BackendSpec:
    """One backend; an A100 with vLLM unless told otherwise."""
    return BackendSpec(
        **({"name": name, "gpu": "a100-80", "engine": "vllm", "model": MODEL} | fields)
    )


def capability(cost: LinearCost = FAST, **fields: int) -> Capability:
    """What a backend can do."""
    limits = {
        "kv_capacity_tokens": 100_000,
        "max_context_tokens": 8_192,
        "chunk_tokens": 2_048,
        "max_num_seqs": 256,
    }
    return Capability(cost=cost, **(limits | fields))


def fleet_state(
    *backends: BackendSpec | str,
    capabilities: Mapping[str, Capability] | None = None,
    breaker: BreakerConfig | None = None,
) -> FleetState:
    """A fleet of backends, or of names of ordinary ones; ``capabilities`` by name."""
    specs = tuple(spec(b) if isinstance(b, str) else b for b in backends)
    known = capabilities or {}
    ordinary = capability()
    return FleetState(Fleet(specs), lambda b: known.get(b.name, ordinary), breaker)


def view(
    name: str = "a100-80-0", index: int = 0, cost: LinearCost = FAST, **state: Any
) -> BackendState:
    """One backend in a given state: any field of ``BackendState``."""
    backend = BackendState(spec(name), index, capability(cost), BreakerConfig())
    for field, value in state.items():
        setattr(backend, field, value)
    return backend


def views(**states: Mapping[str, Any]) -> list[BackendState]:
    """Several backends by name, numbered in the order given."""
    return [
        view(name, index, **{"cost": FAST, **state})
        for index, (name, state) in enumerate(states.items())
    ]


def ask(request_id: str = "r", *, forecast: float = 0.0, **fields: Any) -> Request:
    """One request of 1,000 prompt tokens; ``forecast`` in output tokens, 0 for none yet."""
    defaults = {"model": MODEL, "arrival_s": 0.0, "prompt_tokens": 1000}
    expected = LengthForecast(forecast, 2 * forecast)
    return Request(request_id=request_id, forecast=expected, **(defaults | fields))


def outcome(
    backend: str = "a100-80-0", status: OutcomeStatus = "completed", **fields: Any
) -> Outcome:
    """One finished attempt: a second of prefill, ten of decoding, 1,000 tokens in, 100 out."""
    defaults: dict[str, Any] = {
        "request_id": "r",
        "model": MODEL,
        "slo_class": "interactive",
        "tenant": "",
        "arrival_s": 0.0,
        "dispatched_s": 0.0,
        "first_token_s": 1.0,
        "finished_s": 11.0,
        "prompt_tokens": 1000,
        "output_tokens": 100,
        "cached_tokens": None,
        "max_tokens": None,
        "prefilling_at_dispatch": 0,
        "decoding_at_dispatch": 0,
        "predicted_ttft_s": 1.0,
        "predicted_tpot_s": 0.1,
        "predicted_output_tokens": 100.0,
    }
    return Outcome(backend=backend, status=status, **(defaults | fields))


class LimitPolicy:
    """Fewest in flight, first in the fleet on a tie; waits while everybody has ``limit``."""

    def __init__(self, limit: int = 2) -> None:
        self.limit = limit
        self.asked: list[str] = []

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | Hold | None:
        """The least loaded, unless it is full."""
        self.asked.append(request.request_id)
        best = min(candidates, key=lambda v: (v.in_flight, v.index))
        return best if best.in_flight < self.limit else None


class Recorder:
    """An observer that keeps what it is told."""

    def __init__(self) -> None:
        self.outcomes: list[Outcome] = []

    def observe(self, outcome: Outcome) -> None:
        """Keep it."""
        self.outcomes.append(outcome)


def make_dispatcher(
    *backends: BackendSpec | str,
    policy: Policy | None = None,
    observers: Sequence[Observer] = (),
    capabilities: Mapping[str, Capability] | None = None,
    breaker: BreakerConfig | None = None,
    **settings: Any,
) -> Dispatcher:
    """A dispatcher over a fleet, by default ``LimitPolicy`` and 100 tokens forecast for all."""
    return Dispatcher(
        fleet_state(*backends, capabilities=capabilities, breaker=breaker),
        policy or LimitPolicy(),
        ConstantLengthPredictor(LengthForecast(100.0, 200.0)),
        observers=observers,
        **settings,
    )


def assigned(decision: Decision) -> str:
    """The backend's name; fails the test if the request was not assigned."""
    assert isinstance(decision, Assign), decision
    return decision.backend.name


def loads(dispatcher: Dispatcher) -> dict[str, int]:
    """What is in flight, by backend."""
    return {b.spec.name: b.in_flight for b in dispatcher.state.backends}


def balance(dispatcher: Dispatcher) -> int:
    """Both sides of I1 subtracted: 0 when no request is lost or counted twice."""
    d = dispatcher
    return d.arrived - (d.rejected + d.completed + d.failed + d.cancelled + d.in_flight + d.queued)
