"""Which backends one request may go to, and if none, why.

Health, draining and breakers are the fleet's affair (``fleet.py``); here it is about this request:
what it has tried, and whose context holds it.
"""

from __future__ import annotations

from router.domain.decision import Reject, Wait
from router.domain.request import Request
from router.fleet_state.backend import BackendState
from router.fleet_state.fleet import FleetState


def eligible(
    state: FleetState,
    request: Request,
    tried: frozenset[str],
    now: float,
    *,
    strict_context: bool,
) -> list[BackendState] | Wait | Reject:
    """Backends that may take the request now; the fleet's own list if that is all usable ones.

    Args:
        state: the fleet.
        request: the request.
        tried: names of backends that failed it already (I8).
        now: the time.
        strict_context: see ``Dispatcher``.
    """
    usable = state.candidates(request.model, now)
    if now < state.ramps_until_s:
        usable = state.ramped(usable, now)
    if not tried and usable:
        wanted = request.prompt_tokens + (request.max_tokens or 1)
        if wanted <= state.held_by_all(request.model):
            return usable
    allowed = [b for b in usable if b.spec.name not in tried] if tried else usable
    if not allowed:
        return _nobody(state, request, tried)
    fitting = _fitting(request, allowed)
    if fitting:
        return fitting
    longest = _longest_context_tokens(state, request.model)
    if longest > request.prompt_tokens:
        return _nobody(state, request, tried)  # who could hold it is down, or has been tried
    if strict_context:
        return _too_long(request, longest)
    return _most_roomy(allowed)


def _wanted_tokens(request: Request) -> int:
    return request.prompt_tokens + (request.max_tokens or 1)


def _fitting(request: Request, allowed: list[BackendState]) -> list[BackendState]:
    """Those whose context holds prompt and answer; failing that, the prompt alone."""
    wanted = _wanted_tokens(request)
    fitting = [b for b in allowed if b.max_context_tokens >= wanted]
    if len(fitting) == len(allowed):
        return allowed
    return fitting or [b for b in allowed if b.max_context_tokens > request.prompt_tokens]


def _most_roomy(allowed: list[BackendState]) -> list[BackendState]:
    longest = max(b.max_context_tokens for b in allowed)
    return [b for b in allowed if b.max_context_tokens == longest]


def _longest_context_tokens(state: FleetState, model: str) -> int:
    """Of all backends that are here to stay, usable or not."""
    contexts = [
        b.max_context_tokens for b in state.backends if b.spec.model == model and not b.draining
    ]
    return max(contexts, default=0)


def _nobody(state: FleetState, request: Request, tried: frozenset[str]) -> Wait | Reject:
    if not state.serves(request.model):
        served = ", ".join(sorted(state.models)) or "none"
        return Reject(
            "unknown_model",
            f"The model {request.model!r} does not exist here. Models served: {served}.",
        )
    if tried:
        return Reject(
            "all_backends_tried",
            f"Every usable backend of {request.model!r} failed this request: "
            f"{', '.join(sorted(tried))}. Try again shortly.",
            retry_after_s=1.0,
        )
    return Wait("no_healthy_backend")


def _too_long(request: Request, longest: int) -> Reject:
    return Reject(
        "context_too_long",
        f"The prompt has {request.prompt_tokens} tokens, and the longest context of any "
        f"backend of {request.model!r} is {longest} tokens. Shorten the prompt.",
    )
