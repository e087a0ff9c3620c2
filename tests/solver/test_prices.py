"""Prices: the derivative they claim to be, zero when idle, rising with load, never NaN."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router.domain.slo import Slo
from solver.assemble import build_problem
from solver.congestion import Congestion
from solver.highs import Highs
from solver.model import Model
from solver.options import Limits, Weights
from solver.prices import prices_of
from solver.problem import Ints, Problem
from solver.routing import Routing, occupied, route, shares_of
from solver.stock import Pool, stock_of
from tests.solver.tiny import backends, base, demand, fleet, problem, work

CURVE = Congestion(5.0, 40.0)


def _one_engine(rate: float, *, kv_share: float = 0.0) -> Problem:
    """One class on one engine, a second of work per request."""
    return problem(
        [rate],
        [base("g")],
        [(0, 0.95, CURVE)],
        [(0, 0, 1.0, 5.0, kv_share)],
        pools=[Pool("g", "", {1: 1})],
    )


def _routed(given: Problem, replicas: list[int], **fields: object) -> Routing:
    counts: Ints = np.array(replicas, dtype=np.int64)
    return route(*occupied(given, counts), Weights(), **fields)[0]  # type: ignore[arg-type]


def _price(rate: float) -> float:
    return prices_of(_routed(_one_engine(rate), [1]))[0].price


def test_an_idle_group_is_free() -> None:
    assert _price(0.0) == 0.0


def test_the_price_is_the_slope_of_congestion() -> None:
    """Within the spacing of the tangents."""
    for rho in (0.2, 0.5, 0.8):
        assert _price(rho) == pytest.approx(CURVE.slope(rho), rel=0.2)


def test_the_price_rises_with_load() -> None:
    model, prices = None, []
    for rho in np.linspace(0.0, 0.94, 15):
        counts: Ints = np.array([1], dtype=np.int64)
        routing, model = route(_one_engine(float(rho)), counts, Weights(), model=model)
        prices.append(prices_of(routing)[0].price)
    assert prices == sorted(prices)
    assert all(np.isfinite(prices))
    assert prices[-1] > 10 * prices[5] > 0


def test_a_full_group_is_worth_what_turning_away_costs() -> None:
    """At the ceiling one more engine-second turns one request away: 3600 s less its own 5 s."""
    assert _price(2.0) == pytest.approx(3600.0 - 5.0, rel=0.01)


def test_prices_are_finite_differences_of_the_objective() -> None:
    """Two classes over two engines; a little foreign load on each moves the objective by it."""
    given = problem(
        [0.9, 0.6],
        [base("fast"), base("slow")],
        [(0, 0.9, CURVE), (1, 0.9, Congestion(2.0, 10.0))],
        [
            (0, 0, 0.5, 2.0, 0.1),
            (0, 1, 1.5, 9.0, 0.3),
            (1, 0, 0.9, 4.0, 0.1),
            (1, 1, 1.7, 8.0, 0.1),
        ],
        pools=[Pool("fast", "", {1: 1}), Pool("slow", "", {1: 2})],
    )
    counts: Ints = np.array([1, 2], dtype=np.int64)
    model = Model(given, placing=False)
    routing, _ = route(given, counts, Weights(), model=model)
    for j in range(2):
        rises = []
        for step in (-1e-5, 1e-5):
            form = model.fill(given, Weights(), replicas=counts)
            shifted = form.row_upper.copy()
            shifted[form.rows["load"].start + j] -= step
            answer = Highs(replace(form, row_upper=shifted)).solve(time_limit_s=10)
            rises.append((answer.objective - routing.objective) / step)
        low, high = rises
        assert low - 1e-4 <= routing.load_price[j] <= high + 1e-4
        assert high == pytest.approx(low, rel=1e-3)


def test_memory_is_priced_at_the_groups_own_mix() -> None:
    """KV binds long before compute: the second on this group is worth the memory it comes with."""
    routing = _routed(_one_engine(0.5, kv_share=3.0), [1])
    (price,) = prices_of(routing)
    assert routing.unserved[0] == pytest.approx(0.5 - 0.9 / 3.0)
    assert routing.kv_price[0] > 0
    assert price.kv == pytest.approx(3.0 * routing.kv_price[0])
    assert price.price == pytest.approx(price.load + price.kv)


def test_the_toll_is_the_part_that_a_router_cannot_see() -> None:
    (price,) = prices_of(_routed(_one_engine(0.6), [1]))
    assert 0 < price.toll < price.load
    assert price.toll == pytest.approx(CURVE.toll(0.6))


def test_more_replicas_lower_the_price() -> None:
    given = _one_engine(0.8)
    assert prices_of(_routed(given, [2]))[0].price < prices_of(_routed(given, [1]))[0].price


def test_soft_routing_prices_overload_instead_of_turning_away() -> None:
    overloaded = _routed(_one_engine(3.0), [1], soft=True)
    (price,) = prices_of(overloaded)
    assert overloaded.unserved.sum() == 0.0
    assert overloaded.utilization[0] == pytest.approx(3.0)
    assert np.isfinite(price.price)
    assert price.price >= _price(0.94)
    assert np.isfinite(price.toll)


def test_soft_routing_prices_memory_that_is_not_there() -> None:
    """The answers under way would hold 1.6 times what the engine's KV cache has."""
    crowded, roomy = (_one_engine(0.4, kv_share=share) for share in (4.0, 0.1))
    overfull = _routed(crowded, [1], soft=True)
    assert overfull.unserved.sum() == 0.0
    assert _routed(crowded, [1]).unserved.sum() > 0.0
    assert prices_of(overfull)[0].price >= prices_of(_routed(roomy, [1], soft=True))[0].price
    assert overfull.objective > _routed(roomy, [1], soft=True).objective


@pytest.mark.parametrize(("rate", "share_kept"), [(2.0, 1.0), (14.0, 0.0)])
def test_bulk_leaves_the_fast_card_once_its_seconds_are_dear(
    rate: float, share_kept: float
) -> None:
    """Only the A100 keeps the interactive promise; nobody promised bulk anything."""
    mixed = fleet(backends("a100-80", 1), backends("t4", 2, tensor_parallel=2))
    slos = {"interactive": Slo("interactive", tpot_s=0.05), "bulk": Slo("bulk")}
    given = build_problem(
        demand(work(rate, slo="interactive"), work(1.0, slo="bulk")),
        stock_of(mixed, movable=False),
        Limits(slos=slos),
        tiered=False,
    )
    counts = given.running[[column.base for column in given.columns]]
    routing, _ = route(given, counts, Weights(), soft=True)
    prices = {price.group: price.price for price in prices_of(routing)}
    assert prices[mixed.backends[0].group] > prices[mixed.backends[-1].group]
    kept = [share for c, group, share in shares_of(routing) if c == 1 and group and "a100" in group]
    assert sum(kept) == pytest.approx(share_kept)
