"""Placements: what is kept, what is started, and which rules hold."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from router.domain.errors import InfeasiblePlanError, SolverError
from solver.assemble import build_problem
from solver.check import broken_rules, dollars_per_hour
from solver.congestion import Congestion
from solver.incidence import incidence
from solver.options import Limits, Weights
from solver.place import Placement, place
from solver.problem import Ints, Problem
from solver.search import Found, Task
from solver.stock import Pool, stock_of
from tests.solver.tiny import backends, base, demand, fleet, problem, work

CURVE = Congestion(5.0, 40.0)


def _two_kinds(*, running: tuple[int, int] = (0, 0), limits: Limits | None = None) -> Problem:
    """Half a second of work per second, on a fast dear engine or a slow cheap one."""
    return problem(
        [0.5],
        [
            base("fast", pool=0, dollars=4.0, running=running[0]),
            base("slow", pool=1, dollars=1.0, running=running[1]),
        ],
        [(0, 0.8, CURVE), (1, 0.8, CURVE)],
        [(0, 0, 0.5, 1.0, 0.0), (0, 1, 1.0, 2.0, 0.0)],
        pools=[Pool("fast", "", {1: 2}), Pool("slow", "", {1: 2})],
        limits=limits or Limits(mip_gap=1e-6),
    )


def _counts(given: Problem, placement: Placement) -> dict[str, int]:
    found: dict[str, int] = {}
    for column, n in zip(given.columns, placement.replicas.tolist(), strict=True):
        found[given.bases[column.base].group] = found.get(given.bases[column.base].group, 0) + n
    return {group.split("/")[0]: n for group, n in found.items()}


def _placed(given: Problem, **weights: float) -> dict[str, int]:
    return _counts(given, place(given, Weights(switching=0.0, **weights)))


def test_weights_decide_between_speed_and_money() -> None:
    assert _placed(_two_kinds(), cost=0.0)["fast"] >= 1
    assert _placed(_two_kinds(), cost=100.0) == {"fast": 0, "slow": 1}


def test_energy_weighs_in_by_the_kilowatt() -> None:
    """Every replica idles at 50 W; the fewest replicas win when only that counts."""
    assert sum(_placed(_two_kinds(), cost=0.0, latency=0.0, energy=1.0).values()) == 1


def test_starting_a_replica_must_be_worth_the_loading() -> None:
    given = _two_kinds(running=(0, 1))
    free = place(given, Weights(cost=0.0, switching=0.0))
    dear = place(given, Weights(cost=0.0, switching=1e4))
    assert _counts(given, free)["fast"] >= 1
    assert _counts(given, dear) == {"fast": 0, "slow": 1}
    assert dear.kept


def test_hysteresis_keeps_what_is_nearly_as_good() -> None:
    better = place(_two_kinds(running=(0, 1)), Weights(cost=0.0, switching=0.0))
    lazy = Limits(mip_gap=1e-6, hysteresis=100.0)
    given = _two_kinds(running=(0, 1), limits=lazy)
    kept = place(given, Weights(cost=0.0, switching=0.0))
    assert kept.kept
    assert not better.kept
    assert _counts(given, kept) == {"fast": 0, "slow": 1}
    assert kept.bound == pytest.approx(better.objective, rel=1e-4)


def test_moves_are_limited() -> None:
    limits = Limits(mip_gap=1e-6, max_moves=1)
    assert sum(_placed(_two_kinds(limits=limits), cost=0.0).values()) == 1


def test_a_budget_is_kept() -> None:
    limits = Limits(mip_gap=1e-6, budget_usd_per_hour=2.5)
    given = _two_kinds(limits=limits)
    placement = place(given, Weights(cost=0.0))
    assert dollars_per_hour(given, placement.replicas) <= 2.5


def test_a_rare_model_is_not_rounded_away() -> None:
    """Even without any demand every model that the fleet serves keeps its minimum."""
    both = fleet(backends("a100-80", 1), backends("a100-80", 1, model="llama-3.2-1b"))
    given = build_problem(demand(work(5.0)), stock_of(both), Limits())
    placement = place(given, Weights())
    ready = dict.fromkeys(given.models, 0)
    for column, n in zip(given.columns, placement.replicas.tolist(), strict=True):
        ready[given.bases[column.base].spec.model] += n
    assert min(ready.values()) >= 1


def test_a_model_is_spread_over_zones() -> None:
    zones = fleet(backends("a100-80", 3, zone="a"), backends("a100-80", 3, zone="b"))
    limits = Limits(min_replicas=4, max_zone_share=0.5)
    given = build_problem(demand(work()), stock_of(zones), limits)
    placement = place(given, Weights())
    in_a = sum(
        n
        for column, n in zip(given.columns, placement.replicas.tolist(), strict=True)
        if given.bases[column.base].spec.zone == "a"
    )
    assert placement.replicas.sum() >= 4
    assert in_a * 2 == placement.replicas.sum()


def test_engines_of_several_cards_take_linked_cards() -> None:
    """Three islands of two hold three pairs, however many single cards that makes."""
    linked = fleet(backends("t4", 3, tensor_parallel=2))
    given = build_problem(demand(work(30.0)), stock_of(linked), Limits(allow_unserved=True))
    assert place(given, Weights()).replicas.sum() == 3


def test_no_placement_names_the_rule_and_the_smallest_change() -> None:
    limits = Limits(min_replicas=5)
    with pytest.raises(InfeasiblePlanError) as caught:
        place(_two_kinds(limits=limits), Weights())
    message = str(caught.value)
    assert "min_replicas of 4 instead of 5" in message
    assert "1 more slow (+1.00 $/h)" in message


def test_a_placement_that_breaks_its_rules_is_not_adopted() -> None:
    """HiGHS at its time limit can return zeros; the minimum of replicas tells."""

    def lying(task: Task) -> Found:
        return Found(np.zeros(2, dtype=np.int64), objective=0.0, bound=0.0)

    with pytest.raises(SolverError, match=r"breaks its rules: model llama-3\.1-8b: 0 replicas"):
        place(_two_kinds(), Weights(), searcher=lying)


def test_finding_nothing_in_time_is_an_error_with_the_remedy() -> None:
    with pytest.raises(SolverError, match="raise the time limit"):
        place(_two_kinds(), Weights(), searcher=lambda task: Found())


@pytest.mark.parametrize(
    ("counts", "limits", "complaint"),
    [
        ([3, 0], Limits(), "stock of fast: 3 engines of 1 cards, 2 fit"),
        ([0, 0], Limits(), "model llama-3.1-8b: 0 replicas, 1 needed"),
        ([2, 0], Limits(budget_usd_per_hour=5.0), "budget: 8.00 $/h, 5.00 allowed"),
        ([1, 1], Limits(max_moves=1), "moves: 2 replicas to start, 1 allowed"),
        ([-1, 2], Limits(), "negative"),
        ([1], Limits(), "missing"),
    ],
)
def test_the_check_finds_every_broken_rule(
    counts: list[int], limits: Limits, complaint: str
) -> None:
    given = _two_kinds(limits=limits)
    placement: Ints = np.array(counts, dtype=np.int64)
    (found,) = broken_rules(given, incidence(given), placement)
    assert complaint in found


def test_the_check_finds_a_crowded_zone() -> None:
    zones = fleet(backends("a100-80", 2, zone="a"), backends("a100-80", 2, zone="b"))
    given = build_problem(demand(work()), stock_of(zones), Limits(max_zone_share=0.5))
    crowded: Ints = np.array([2, 0], dtype=np.int64)
    assert "zones" in broken_rules(given, incidence(given), crowded)[0]
    anywhere = replace(given, limits=Limits())
    assert broken_rules(anywhere, incidence(anywhere), crowded) == []
