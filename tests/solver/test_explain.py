"""Infeasible is an answer: each message is held to a number worked out by hand."""

from __future__ import annotations

import re

import numpy as np
import pytest

from router.domain.errors import InfeasiblePlanError
from router.domain.slo import Slo
from solver.assemble import build_problem
from solver.congestion import Congestion
from solver.explain import (
    explain_overload,
    less_traffic,
    more_budget,
    more_cards,
    smallest,
)
from solver.options import Limits
from solver.plan import plan
from solver.problem import Problem
from solver.stock import Pool, stock_of
from tests.solver.tiny import backends, base, demand, fleet, problem, work


def _crowded(*, limits: Limits | None = None) -> Problem:
    """Four engine-seconds per second for two engines that may be used to 0.8: five are needed."""
    return problem(
        [4.0],
        [base("g", dollars=2.0)],
        [(0, 0.8, Congestion(2.0, 10.0))],
        [(0, 0, 1.0, 2.0, 0.0)],
        pools=[Pool("g", "", {1: 2})],
        limits=limits,
    )


def test_the_smallest_number_of_cards_is_found() -> None:
    assert smallest(_crowded(), more_cards, serving=True) == pytest.approx([3.0])


def test_the_largest_servable_share_of_the_traffic_is_found() -> None:
    """Two engines at 0.8 carry 1.6 of 4.0."""
    assert smallest(_crowded(), less_traffic, serving=True) == pytest.approx([0.4], rel=1e-3)


def test_the_smallest_budget_is_found() -> None:
    limits = Limits(budget_usd_per_hour=0.5)
    assert smallest(_crowded(limits=limits), more_budget, serving=False) == pytest.approx([1.5])


def test_a_rule_that_is_not_the_cause_has_no_answer() -> None:
    limits = Limits(budget_usd_per_hour=1000.0)
    assert smallest(_crowded(limits=limits), more_budget, serving=True) is None


def test_an_overload_names_the_amount_and_the_class() -> None:
    one_card = fleet(backends("a100-80", 1))
    given = build_problem(demand(work(4.0)), stock_of(one_card), Limits())
    message = explain_overload(given, np.array([2.4]))
    assert "2.4 of 4 requests per second (60.0%)" in message
    assert f"class {given.classes[0].name} (60%)" in message


def test_a_plan_that_does_not_fit_says_by_how_much() -> None:
    with pytest.raises(InfeasiblePlanError) as caught:
        plan(demand(work(200.0)), fleet(backends("a100-80", 1)))
    message = str(caught.value)
    share = int(re.search(r"at most (\d+)% of this traffic", message).group(1))  # type: ignore[union-attr]
    cards = int(re.search(r"(\d+) more a100-80", message).group(1))  # type: ignore[union-attr]
    # Capacity is proportional to cards: what one serves and how many are missing must agree.
    assert (cards + 1) * share >= 100
    assert cards * share <= 100


def test_no_traffic_at_all_is_not_offered_as_a_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    """A class that nobody within the budget can serve in time leaves room for none of the mix."""
    problem = build_problem(demand(work(4.0)), stock_of(fleet(backends("a100-80", 1))), Limits())
    for least, said in ((0.004, None), (0.997, "at most 99% of this traffic")):
        slack = np.array([least])
        monkeypatch.setattr("solver.explain.smallest", lambda *_, slack=slack, **__: slack.copy())
        monkeypatch.setattr("solver.explain._changes", lambda *_, **__: [])
        message = explain_overload(problem, np.array([2.4]))
        assert ("of this traffic" in message) is (said is not None)
        assert said is None or said in message


def test_targets_that_cost_the_capacity_are_named() -> None:
    """At the lowest ceiling the card keeps the promise, but it cannot carry all there."""
    limits = Limits(slos={"tight": Slo("tight", tpot_s=0.03)})
    with pytest.raises(InfeasiblePlanError, match="looser latency targets"):
        plan(demand(work(14.0, slo="tight")), fleet(backends("a100-80", 1)), limits=limits)


def test_a_budget_below_the_minimum_says_what_the_minimum_is() -> None:
    limits = Limits(budget_usd_per_hour=1.0)
    with pytest.raises(InfeasiblePlanError, match=r"a budget of 3\.67 \$/h instead of 1\.00"):
        plan(demand(work()), fleet(backends("a100-80", 2)), limits=limits)


def test_a_class_that_nobody_can_serve_says_why() -> None:
    with pytest.raises(InfeasiblePlanError) as caught:
        plan(demand(work(longest=900_000)), fleet(backends("a100-80", 1)))
    assert "can be served by nobody" in str(caught.value)
    assert "900000 tokens" in str(caught.value)


def test_a_model_that_fits_on_no_card_says_what_would() -> None:
    with pytest.raises(InfeasiblePlanError) as caught:
        plan(demand(work(), work(model="llama-3.1-70b")), fleet(backends("a100-80", 1)))
    assert "class llama-3.1-70b" in str(caught.value)
    assert "does not fit" in str(caught.value)


def test_what_nobody_can_serve_for_one_reason_is_said_once() -> None:
    """A model that nobody runs is a class for every bucket of lengths."""
    many = [work(model="llama-3.1-70b", output=tokens) for tokens in (100, 200, 300, 400)]
    with pytest.raises(InfeasiblePlanError) as caught:
        plan(demand(work(), *many), fleet(backends("a100-80", 1)))
    message = str(caught.value)
    assert message.count("can be served by nobody") == 1
    assert message.count("does not fit") == 1
    assert "and 3 more like it" in message


def test_who_would_rather_turn_away_than_pay_is_told_so() -> None:
    """There is room for all: more cards or less traffic would not help."""
    with pytest.raises(InfeasiblePlanError, match="all 60 requests per second have room") as caught:
        plan(demand(work(60.0)), fleet(backends("a100-80", 8)), weights={"cost": 1e6})
    assert "cost=1e+06" in str(caught.value)
    assert "unserved=3600" in str(caught.value)


def test_moves_and_zones_are_offered_where_they_are_the_limit() -> None:
    zones = fleet(
        backends("a100-80", 1, zone="a"), backends("l4", 1, zone="b", model="llama-3.2-1b")
    )
    limits = Limits(min_replicas=2, max_moves=0, max_zone_share=0.5)
    with pytest.raises(InfeasiblePlanError) as caught:
        plan(demand(work()), zones, limits=limits)
    assert "at most 0 replica starts" in str(caught.value)
    assert "at most 50% of a model in one zone" in str(caught.value)
