"""Buying a fleet: the cheapest that keeps the promise, and tried before it is believed."""

from __future__ import annotations

import pytest

from router.domain.errors import InfeasiblePlanError, UnknownNameError, WorkloadError
from router.domain.fleet import Fleet
from router.domain.slo import Slo
from router.perf.hardware import Hardware
from solver.offers import Offer, bought, catalogue_offers, market, read_offers
from solver.options import Limits
from solver.sizing import TIGHTEN, Verdict, buy
from solver.workload import Workload
from tests.solver.tiny import MODEL, demand, work

HARDWARE = Hardware()
# The price list of Mélange's evaluation.
MELANGE = read_offers({"l4": 0.70, "a10g": 1.01, "a100-80": 3.67, "h100": 7.516}, HARDWARE)


def _chat(rate: float, long_share: float) -> Workload:
    """Short chats, and a share of requests over long documents."""
    short, long = rate * (1 - long_share), rate * long_share
    return demand(
        work(short * 0.5, prompt=150, output=120, model="mistral-7b", slo="s"),
        work(short * 0.5, prompt=500, output=250, model="mistral-7b", slo="s"),
        work(long, prompt=6000, output=200, model="mistral-7b", slo="s"),
    )


def _limits(tpot_s: float = 0.12) -> Limits:
    return Limits(slos={"s": Slo("s", tpot_s=tpot_s), "bulk": Slo("bulk")}, mip_gap=0.005)


def test_a_mix_never_costs_more_than_the_best_single_type_and_often_less() -> None:
    """Mélange's finding, in direction: the mix wins where sizes of requests differ."""
    saved = []
    for rate, long_share, tpot_s in ((1.0, 0.0, 0.12), (4.0, 0.2, 0.04), (16.0, 0.2, 0.12)):
        found = buy(_chat(rate, long_share), MELANGE, _limits(tpot_s))
        assert found.saved is not None
        saved.append(found.saved)
    assert min(saved) >= -0.005
    assert max(saved) > 0.05


def test_the_wrong_single_type_costs_a_multiple() -> None:
    found = buy(_chat(16.0, 0.2), MELANGE, _limits())
    rents = [rent for rent in found.alone.values() if rent is not None]
    assert max(rents) > 1.5 * found.best.plan.cost_usd_per_hour


def test_a_target_that_nobody_meets_is_loosened_for_single_types_too_and_no_other() -> None:
    """So far no type could, alone, what a fleet of nothing but that type was bought for."""
    hopeless = _limits(0.0001)
    only = buy(_chat(1.0, 0.0), [Offer("t4", 0.5, linked=4)], hopeless)
    assert only.best.plan.notes
    assert only.alone == {"t4": pytest.approx(only.best.plan.cost_usd_per_hour)}
    assert only.saved == pytest.approx(0.0)

    beside = buy(_chat(1.0, 0.0), [Offer("t4", 0.5, linked=4), Offer("h100", 9.0)], _limits(0.02))
    assert not beside.best.plan.notes
    assert beside.alone["t4"] is None
    assert beside.alone["h100"] is not None


def test_small_demand_takes_a_small_card() -> None:
    found = buy(_chat(0.5, 0.0), MELANGE, _limits(), compare=False)
    assert {spec.gpu for spec in found.best.fleet.backends} <= {"l4", "a10g"}


def test_where_a_card_costs_nothing_nothing_is_saved() -> None:
    """Cards of one's own may be priced at 0."""
    market_ = [Offer("a100-80", 0.0), Offer("l4", 0.7)]
    assert buy(demand(work(1.0)), market_, _limits()).saved == 0.0


def test_a_tighter_promise_costs_more() -> None:
    loose = buy(_chat(4.0, 0.1), MELANGE, _limits(0.2), compare=False)
    tight = buy(_chat(4.0, 0.1), MELANGE, _limits(0.035), compare=False)
    assert tight.best.plan.cost_usd_per_hour > loose.best.plan.cost_usd_per_hour


def test_what_fails_its_trial_is_bought_again_under_lower_ceilings() -> None:
    tried: list[int] = []

    def trial(fleet: Fleet) -> Verdict:
        tried.append(len(fleet.backends))
        return Verdict(1.0 if len(tried) == 3 else 0.5, "tried")

    found = buy(demand(work(60.0)), MELANGE, _limits(), trial=trial, compare=False)
    assert found.kept
    assert [one.slack for one in found.attempts] == pytest.approx([1.0, TIGHTEN, TIGHTEN**2])
    costs = [one.plan.cost_usd_per_hour for one in found.attempts]
    assert costs[-1] > costs[0]


def test_a_promise_that_never_holds_is_told() -> None:
    found = buy(
        demand(work(5.0)), MELANGE, _limits(), trial=lambda fleet: Verdict(0.0, "no"), compare=False
    )
    assert not found.kept
    assert len(found.attempts) == 6


def test_the_fleet_is_named_as_a_fleet_file_names_it() -> None:
    stock = market(read_offers({"t4": 0.5, "a100-80": 3.0}, HARDWARE), [MODEL], HARDWARE)
    made = bought(stock, {f"a100-80/vllm/{MODEL}": 2, f"t4x2/vllm/{MODEL}": 1})
    assert [spec.name for spec in made.backends] == ["t4-0", "a100-80-0", "a100-80-1"]


def test_hosts_limit_what_one_engine_may_span() -> None:
    stock = market([Offer("a100-80", 3.0, most=6, linked=2)], [MODEL], HARDWARE)
    assert {one.spec.tensor_parallel for one in stock.candidates} == {1, 2}
    assert stock.pools[0].slots(2) == 3


def test_a_market_without_enough_cards_says_so() -> None:
    with pytest.raises(InfeasiblePlanError, match="capacity"):
        buy(demand(work(100.0)), [Offer("t4", 0.5, most=2, linked=2)], compare=False)


def test_every_gpu_of_the_catalogue_has_an_offer() -> None:
    offers = {offer.gpu: offer for offer in catalogue_offers(HARDWARE)}
    assert set(offers) == set(HARDWARE.catalog.gpus)
    assert offers["a100-80"].linked == 8
    assert offers["t4"].linked == 4


@pytest.mark.parametrize(
    ("listed", "error", "complaint"),
    [
        ({}, WorkloadError, "price list is empty"),
        ({"a1000": 1.0}, UnknownNameError, "unknown GPU"),
        ({"t4": "cheap"}, WorkloadError, "usd_per_hour cannot be 'cheap'"),
        ({"t4": True}, WorkloadError, "usd_per_hour cannot be True"),
        ({"t4": -1.0}, WorkloadError, "0 or more"),
        ({"t4": {"price": 1.0}}, WorkloadError, "no such setting 'price'"),
        ({"t4": {"most": 1.5}}, WorkloadError, "most cannot be 1.5"),
        ({"t4": {"linked": 0}}, WorkloadError, "linked at least 1"),
        ({"t4": {"engine": "tgi"}}, WorkloadError, "engine must be one of vllm, sglang, llamacpp"),
    ],
)
def test_senseless_offers_are_named(
    listed: dict[str, object], error: type[Exception], complaint: str
) -> None:
    with pytest.raises(error, match=complaint):
        read_offers(listed, HARDWARE)


def test_an_entry_without_a_price_takes_the_catalogues() -> None:
    (offer,) = read_offers({"t4": {"most": 8}}, HARDWARE)
    assert (offer.usd_per_hour, offer.most) == (0.526, 8)


def test_an_empty_shelf_says_so() -> None:
    with pytest.raises(InfeasiblePlanError, match="no a100-80 can be had: at most 0"):
        buy(demand(work(1.0)), [Offer("a100-80", 3.0, most=0)], compare=False)


def test_against_the_largest_cards_small_demand_saves_most() -> None:
    """Mélange's range: up to three quarters cheaper than one GPU type, where the type is wrong."""
    found = buy(_chat(1.0, 0.0), MELANGE, _limits(0.12))
    rent = found.best.plan.cost_usd_per_hour
    large = [found.alone[gpu] for gpu in ("a100-80", "h100")]
    assert all(alone is not None and 1 - rent / alone > 0.5 for alone in large)
