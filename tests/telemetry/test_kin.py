"""What equals tell about a backend, in closed form."""

from __future__ import annotations

import math

import pytest

from telemetry.kin import ALIKE, LEAST_PRECISION, Member, blend

SPREAD = 0.5


def member(name: str, precision: float = 0.0, multiplier: float = 0.0, **more: object) -> Member:
    given = {"group": "g", "prior_cost": 0.0} | more
    return Member(name, multiplier=multiplier, precision=precision, **given)  # type: ignore[arg-type]


def test_alone_it_is_prior_and_own_traffic() -> None:
    assert blend([member("a", 12.0, 0.8)], SPREAD) == {"a": pytest.approx(12 * 0.8 / (4 + 12))}
    assert blend([member("a")], SPREAD) == {"a": 0.0}


def test_without_traffic_the_equals_are_weighed_against_the_prior() -> None:
    known = [member("b", 400.0, 0.6), member("c", 400.0, 0.8)]
    witness = 1 / (ALIKE**2 + 1 / (400 + 400))
    told = blend([member("a"), *known], SPREAD)["a"]
    assert told == pytest.approx(witness * 0.7 / (witness + 4))


def test_costs_are_compared_and_not_multipliers() -> None:
    """The other was believed twice as slow and is as believed: so am I twice as slow."""
    other = member("b", 1e6, 0.0, prior_cost=math.log(2.0))
    told = blend([member("a"), other], SPREAD)["a"]
    witness = 1 / (ALIKE**2 + 1 / 1e6)
    assert told == pytest.approx(witness * math.log(2.0) / (witness + 4))


def test_a_sick_one_among_many_has_no_say() -> None:
    healthy = [member(f"h{n}", 400.0, 0.0) for n in range(4)]
    told = blend([*healthy, member("sick", 400.0, math.log(3.0))], SPREAD)
    assert all(told[f"h{n}"] == 0.0 for n in range(4))
    assert told["sick"] == pytest.approx(math.log(3.0) * 400 / 404)  # nor has it anybody's


def test_own_traffic_outweighs_the_equals() -> None:
    told = blend([member("a", 400.0, 0.0), member("b", 400.0, 0.3)], SPREAD)
    assert 0.0 < told["a"] < 0.03
    assert 0.27 < told["b"] < 0.3


def test_other_groups_and_those_in_none_share_nothing() -> None:
    told = blend(
        [
            member("a", group="x"),
            member("b", 400.0, 1.0, group="y"),
            member("c", group=""),
            member("d", 400.0, 1.0, group=""),
        ],
        SPREAD,
    )
    assert (told["a"], told["c"]) == (0.0, 0.0)


def test_who_hardly_knows_itself_is_no_witness() -> None:
    told = blend([member("a"), member("b", LEAST_PRECISION / 2, 1.0)], SPREAD)
    assert told["a"] == 0.0


def test_only_those_asked_for_are_answered() -> None:
    known = [member("b", 400.0, 0.6), member("c", 400.0, 0.8)]
    everybody = [member("a"), *known]
    assert blend(everybody, SPREAD, ["a"]) == {"a": blend(everybody, SPREAD)["a"]}
