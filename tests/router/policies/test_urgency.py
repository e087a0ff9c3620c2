"""Seconds count by class: interactive 2 s and 0.1 s a token, throughput 10 and 0.25, bulk none."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from router.domain.slo import DEFAULT_SLOS, Slo
from router.policies.motley import Motley
from router.policies.tail_scale import TailScale
from router.policies.urgency import LEAST, Urgency
from tests.fakes import SLOW, ask, outcome, view, views
from tests.router.policies.picking import crowd, picked, policy_of

OWN = Slo("", ttft_s=4.0)
LATE = Slo("", ttft_s=3_600.0)
EAGER = Slo("interactive", ttft_s=0.5)


@pytest.mark.parametrize(
    ("slo_class", "own", "counts"),
    [
        ("interactive", None, 1.0),
        ("throughput", None, 0.4),  # 0.1 / 0.25 a token; of TTFT it would be 0.2
        ("bulk", None, LEAST),
        ("interactive", OWN, 0.5),
        ("interactive", LATE, LEAST),
        ("interactive", EAGER, 1.0),
        ("bulk", OWN, LEAST),  # asking for more than its class gets it nothing
        ("never heard of", None, 1.0),
    ],
)
def test_the_tightest_target_of_a_class_says_how_much_its_seconds_count(
    slo_class: str, own: Slo | None, counts: float
):
    assert Urgency(DEFAULT_SLOS).of(slo_class, own, "m") == pytest.approx(counts)


def test_a_loose_target_of_a_kind_that_nobody_else_has_makes_nobody_urgent():
    """An hour of E2E beside 2 s and 0.1 s a token, which are 27 s for a typical answer."""
    urgency = Urgency({**DEFAULT_SLOS, "batch": Slo("batch", e2e_s=3_600.0)})
    assert urgency.of("batch", None, "m") == LEAST
    assert urgency.of("interactive", None, "m") == 1.0
    tight = Urgency({**DEFAULT_SLOS, "voice": Slo("voice", e2e_s=5.0)})
    assert tight.of("voice", None, "m") == 1.0


def test_targets_for_one_model_count_for_that_model():
    tight = {"small": Slo("interactive", ttft_s=0.5, tpot_s=0.05)}
    urgency = Urgency(
        {
            "interactive": Slo("interactive", models=tight),
            "throughput": Slo("throughput", ttft_s=10.0, tpot_s=0.25),
        }
    )
    assert urgency.of("interactive", None, "small") == 1.0
    assert urgency.of("throughput", None, "small") == pytest.approx(LEAST)
    assert urgency.of("interactive", None, "large") == LEAST
    assert urgency.of("throughput", None, "large") == 1.0


def test_where_nobody_has_a_target_all_count_alike():
    assert Urgency({"bulk": Slo("bulk")}).of("bulk", None, "m") == 1.0
    assert Urgency({}).of("bulk", OWN, "m") == 1.0


@pytest.mark.parametrize(
    ("slo_class", "chosen"), [("interactive", "fast"), ("throughput", "fast"), ("bulk", "slow")]
)
def test_who_is_not_urgent_leaves_the_fast_card_to_those_who_are(slo_class: str, chosen: str):
    fleet = views(fast=crowd(4), slow={"cost": SLOW})
    assert picked(policy_of("motley"), fleet, ask(forecast=100.0, slo_class=slo_class)) == chosen


def test_alone_all_are_served_as_well_as_can_be():
    fleet = views(fast={}, slow={"cost": SLOW})
    for slo_class in DEFAULT_SLOS:
        request = ask(forecast=100.0, slo_class=slo_class)
        assert picked(policy_of("motley"), fleet, request) == "fast"


def visited(slo_class: str, n: int = 8) -> tuple[Motley, list[Any]]:
    """Two alike, each with a crowd; all of the first are of this class, of the other unknown."""
    policy = policy_of("motley")
    assert isinstance(policy, Motley)
    fleet = [view("a", 0, **crowd(n)), view("b", 1, **crowd(n))]
    for k in range(n):
        policy.dispatched(ask(f"{k}", slo_class=slo_class), fleet[0], 0.0)
    return policy, fleet


def externality(policy: Motley, fleet: list[Any]) -> dict[str, float]:
    told = policy.explain(ask(forecast=100.0, arrival_s=600.0), fleet, 600.0)
    return {name: score.terms["externality"] for name, score in told.items()}


@pytest.mark.parametrize(
    ("slo_class", "counts"), [("interactive", 1.0), ("throughput", 0.16), ("bulk", 0.04)]
)
def test_those_met_count_by_their_class_too(slo_class: str, counts: float):
    """Squares: a pain is the square of seconds. Whose class is not known counts whole."""
    pains = externality(*visited(slo_class))
    assert pains["a"] == pytest.approx(counts * pains["b"])


def test_and_no_more_once_they_are_over():
    policy, fleet = visited("bulk")
    for k in range(8):
        policy.observe(outcome("a", request_id=f"{k}", slo_class="bulk"))
    pains = externality(policy, fleet)
    assert pains["a"] == pytest.approx(pains["b"])


def test_an_attempt_that_was_taken_back_is_met_where_it_went_next():
    policy, fleet = visited("bulk", n=1)
    policy.dispatched(ask("1"), fleet[0], 0.0)
    policy.dispatched(ask("0", slo_class="bulk"), fleet[1], 1.0)
    pains = externality(policy, fleet)
    assert pains["b"] == pytest.approx(0.04 * pains["a"])


def test_an_idle_engine_forgets_whom_it_should_have_met():
    """Whoever left without a word."""
    policy, fleet = visited("bulk", n=1)
    for state in ({"in_flight": 0, "decoding": 0}, {"in_flight": 1, "decoding": 1}):
        for name, value in state.items():
            setattr(fleet[0], name, value)
        fleet[0].version += 1
        picked(policy, fleet, ask(forecast=100.0, arrival_s=600.0), 600.0)
    pains = externality(policy, fleet)
    assert pains["a"] == pytest.approx(pains["b"])


def test_whoever_ends_after_its_crowd_was_gone_takes_nobody_elses_place():
    """A second attempt won elsewhere, and meanwhile the engine was idle and others came."""
    policy, fleet = visited("interactive", n=1)
    for state in ({"in_flight": 0, "decoding": 0}, crowd(2)):
        for name, value in state.items():
            setattr(fleet[0], name, value)
        fleet[0].version += 1
        picked(policy, fleet, ask(forecast=100.0, arrival_s=600.0), 600.0)
    for k in (1, 2):
        policy.dispatched(ask(f"{k}", slo_class="bulk"), fleet[0], 600.0)
    policy.observe(outcome("a", request_id="0", slo_class="interactive"))
    fleet[0].version += 1
    pains = externality(policy, [fleet[0], view("c", 2, **crowd(2))])
    assert pains["a"] == pytest.approx(0.04 * pains["c"], rel=0.02), "bulk alone is there"


def test_the_tails_are_those_of_the_urgent_in_their_seconds():
    urgent, bulk = TailScale(), TailScale()
    for n in range(100):
        said = outcome(first_token_s=0.01 * (n + 1), finished_s=0.2 * (n + 1))
        urgent.observe(said)
        late = replace(said, first_token_s=0.05 * (n + 1), finished_s=1.0 * (n + 1))
        bulk.observe(late, LEAST)
    assert (bulk.ttft_s, bulk.e2e_s) == pytest.approx((urgent.ttft_s, urgent.e2e_s))
    assert bulk.worth == pytest.approx(urgent.worth)
