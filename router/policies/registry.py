"""Every policy by its name. Adding one is one file and one line here."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from router.domain.errors import ConfigError, UnknownNameError
from router.domain.protocols import Policy
from router.policies.context import PolicyContext
from router.policies.least_kv import LeastKv
from router.policies.least_request import LeastRequest
from router.policies.lmetric import LMetric
from router.policies.lmetric_normalized import LMetricNormalized
from router.policies.marginal_delay import MarginalDelay
from router.policies.power_of_two import PowerOfTwo
from router.policies.random_choice import RandomChoice
from router.policies.round_robin import RoundRobin
from router.policies.weighted_least_request import WeightedLeastRequest

PolicyFactory = Callable[[PolicyContext], Policy]

POLICIES: Mapping[str, PolicyFactory] = {
    "random": RandomChoice,
    "round-robin": RoundRobin,
    "least-request": LeastRequest,
    "power-of-two": PowerOfTwo,
    "weighted-least-request": WeightedLeastRequest,
    "least-kv": LeastKv,
    "lmetric": LMetric,
    "lmetric-normalized": LMetricNormalized,
    "marginal-delay": MarginalDelay,
    "motley": MarginalDelay,
}


def make_policy(name: str, context: PolicyContext) -> Policy:
    """Build a policy by name.

    Raises:
        UnknownNameError: no such policy.
        ConfigError: a parameter that the policy does not take, or that is no number.
    """
    try:
        factory = POLICIES[name]
    except KeyError:
        raise UnknownNameError("policy", name, POLICIES) from None
    policy = factory(context)
    unused = context.unused()
    if unused:
        raise ConfigError(
            f"policy {name!r} has no parameter {', '.join(map(repr, sorted(unused)))}; "
            f"it takes: {', '.join(sorted(context.asked)) or 'none'}"
        )
    return policy
