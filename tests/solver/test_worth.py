"""What a replica is worth: derivative and finite difference must agree as convexity says."""

from __future__ import annotations

import pytest

from router.domain.errors import WorkloadError
from router.domain.fleet import Fleet
from solver.options import Limits, Weights
from solver.worth import tried, worth
from tests.solver.tiny import MODEL, backends, demand, fleet, work

MIXED = fleet(backends("a100-80", 2), backends("v100-32", 2), backends("t4", 3, tensor_parallel=2))


def test_the_derivative_bounds_both_differences() -> None:
    for rate in (5.0, 20.0, 30.0):
        for one in worth(demand(work(rate), work(rate / 10, prompt=3000)), MIXED):
            assert one.one_more <= one.by_dual + 1e-6
            assert one.one_less is not None
            assert one.one_less >= one.by_dual - 1e-6
            assert one.one_more >= -1e-6


def test_a_loaded_fleet_values_its_fast_cards_most() -> None:
    valued = {one.group.split("/")[0]: one for one in worth(demand(work(30.0)), MIXED)}
    assert valued["a100-80"].one_more > valued["v100-32"].one_more > 0
    assert valued["a100-80"].one_more > valued["t4x2"].one_more


def test_what_carries_nothing_may_be_retired() -> None:
    valued = {one.group.split("/")[0]: one for one in worth(demand(work(0.2)), MIXED)}
    assert valued["t4x2"].utilization == pytest.approx(0.0, abs=1e-9)
    assert valued["t4x2"].one_less == pytest.approx(0.0, abs=1e-6)
    assert valued["t4x2"].by_dual == pytest.approx(0.0, abs=1e-6)


def test_the_last_engine_of_a_model_cannot_be_retired() -> None:
    only = fleet(backends("a100-80", 1), backends("l4", 1, model="llama-3.2-1b"))
    valued = worth(demand(work(1.0), work(1.0, model="llama-3.2-1b")), only)
    assert [one.one_less for one in valued] == [None, None]


def test_a_second_of_waiting_is_saved_by_the_second_card() -> None:
    """With twice the cards each is half as full: the objective says by how much."""
    (one,) = worth(demand(work(10.0)), fleet(backends("a100-80", 1)))
    (two,) = worth(demand(work(10.0)), fleet(backends("a100-80", 2)))
    assert one.one_more == pytest.approx(two.one_less)  # type: ignore[arg-type]
    assert two.utilization == pytest.approx(one.utilization / 2)


def test_demand_that_nobody_serves_is_named() -> None:
    with pytest.raises(WorkloadError, match=r"llama-3\.2-1b"):
        worth(demand(work(model="llama-3.2-1b")), fleet(backends("a100-80", 1, model=MODEL)))


def test_a_trial_decides_what_to_buy_and_what_to_retire() -> None:
    """Delay as the model says it, tripled for want of a card: the trial is believed."""
    valued = worth(demand(work(20.0)), MIXED, Weights(cost=0.5))
    cards: list[int] = []

    def trial(given: Fleet) -> float:
        cards.append(len(given.backends))
        return 100.0 * 0.5 ** (len(given.backends) - len(MIXED.backends))

    found = tried(valued, MIXED, trial)
    assert cards == [7, 8, 6, 8, 6, 8, 6]
    for one in found:
        assert (one.one_more_tried, one.one_less_tried) == (50.0, 100.0)
        assert one.buy
        assert not one.retire
    (idle,) = [one for one in tried(valued, MIXED, lambda _: 1.0) if one.group.startswith("t4")]
    assert not idle.buy
    assert idle.retire


def test_where_rent_weighs_nothing_nobody_is_told_to_buy() -> None:
    """One more of anything saves some delay, which is more than nothing: that is no advice."""
    free = Limits(prices_usd_per_hour={"a100-80": 0.0})
    by_card = {
        one.group.split("/")[0]: one for one in worth(demand(work(30.0)), MIXED, limits=free)
    }
    assert by_card["a100-80"].one_more > 0.0
    assert by_card["a100-80"].advice == "unpriced"
    assert by_card["v100-32"].advice != "unpriced"
    for one in worth(demand(work(30.0)), MIXED, Weights(cost=0.0)):
        assert (one.buy, one.retire, one.advice) == (False, False, "unpriced")
