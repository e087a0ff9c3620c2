"""Ask one policy about backends in given states."""

from __future__ import annotations

import random
from collections.abc import Mapping, Sequence

from router.domain.protocols import Hold, Policy
from router.domain.request import Request
from router.domain.state import BackendView
from router.policies.context import PolicyContext
from router.policies.registry import make_policy
from tests.fakes import ask


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
