from __future__ import annotations

import math
import random

import pytest

from router.domain.errors import ConfigError, UnknownNameError
from router.policies.context import PolicyContext
from router.policies.registry import POLICIES, make_policy, polls_every_s


def context(**params: object) -> PolicyContext:
    return PolicyContext(random.Random(0), params)  # type: ignore[arg-type]


def test_names_are_in_kebab_case_and_the_promised_ones_are_there():
    promised = (
        "random round-robin least-request power-of-two weighted-least-request least-kv "
        "lmetric lmetric-normalized marginal-delay motley"
    )
    assert set(promised.split()) <= set(POLICIES)
    assert all(name == name.lower().replace("_", "-").replace(" ", "-") for name in POLICIES)


@pytest.mark.parametrize("name", sorted(POLICIES))
def test_every_name_builds_a_policy_of_its_own(name: str):
    one, other = make_policy(name, context()), make_policy(name, context())
    assert one is not other


def test_an_unknown_name_suggests_the_near_one():
    with pytest.raises(UnknownNameError, match=r"unknown policy .* Did you mean 'marginal-delay'"):
        make_policy("marginal_delay", context())


def test_parameters_that_a_policy_does_not_take_are_errors():
    with pytest.raises(ConfigError, match="'marginal-delay' has no parameter 'externalty'"):
        make_policy("marginal-delay", context(externalty=1.0))
    with pytest.raises(ConfigError, match="it takes: externality, price_weight"):
        make_policy("marginal-delay", context(externalty=1.0))
    with pytest.raises(ConfigError, match="it takes: none"):
        make_policy("random", context(weight=1.0))


@pytest.mark.parametrize("value", ["fast", True, None, -0.1, math.nan, math.inf])
def test_parameters_must_be_finite_numbers_in_range(value: object):
    with pytest.raises(ConfigError, match="policy parameter 'externality'"):
        make_policy("marginal-delay", context(externality=value))


def test_parameters_have_defaults_and_may_be_whole_numbers():
    given = context(a=3)
    assert given.param("a", 1.0) == 3.0
    assert given.param("b", 1.5) == 1.5
    assert given.unused() == set()


@pytest.mark.parametrize(
    ("name", "every_s"),
    [
        ("llm-d-default", 0.05),
        ("smg-least-load", 10.0),
        ("motley", 1.0),
        ("least-request", 1.0),
        ("nobody", 1.0),
    ],
)
def test_other_routers_poll_at_their_own_pace(name: str, every_s: float):
    assert polls_every_s(name, 1.0) == every_s
