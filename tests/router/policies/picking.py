"""Ask one policy about backends in given states."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence
from typing import Any

from router.domain.protocols import Hold, Policy
from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.context import PolicyContext
from router.policies.registry import make_policy
from tests.fakes import ask


def crowd(n: int, **state: Any) -> dict[str, Any]:
    """n requests decoding since 0 s, each 1,050 tokens of context and 50 tokens to come."""
    return {
        "in_flight": n,
        "decoding": n,
        "context_tokens": 1_050.0 * n,
        "pending_output_tokens": 50.0 * n,
        **state,
    }


def policy_of(name: str, seed: int = 0, **params: float) -> Policy:
    """A fresh policy."""
    return make_policy(name, PolicyContext(random.Random(seed), params))


def picked(
    policy: Policy,
    candidates: Sequence[BackendView],
    request: Request | None = None,
    now: float = 0.0,
) -> str:
    """The name it chooses."""
    chosen = policy.choose(request or ask(), candidates, now)
    assert chosen is not None
    assert not isinstance(chosen, Hold)
    return chosen.spec.name


def awaited(policy: Policy, candidates: Sequence[BackendView], request: Request) -> str:
    """The name of the one backend it wants to wait for."""
    chosen = policy.choose(request, candidates, 0.0)
    assert isinstance(chosen, Hold)
    return chosen.backend.spec.name


def scores(values: Mapping[str, float]) -> str:
    """The name with the least of scores worked out by hand; ties are a mistake in the test."""
    best = min(values, key=lambda name: values[name])
    assert list(values.values()).count(values[best]) == 1
    return best
