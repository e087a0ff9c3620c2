"""The ILP against plain enumeration, on hundreds of random tiny fleets and workloads."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain.errors import InfeasiblePlanError
from solver.check import broken_rules
from solver.congestion import Congestion
from solver.model import Model
from solver.options import Limits, Weights
from solver.place import place
from solver.problem import Problem
from solver.routing import occupied, route, shares_of
from solver.stock import UNLIMITED, Pool
from tests.solver.tiny import base, best_by_enumeration, problem, with_stock

# Two pools, three kinds of engine over two models, four columns (one base has two ceilings).
PLACES = [
    {"pool": 0, "model": "a"},
    {"pool": 0, "model": "b", "cards": 2},
    {"pool": 1, "model": "a"},
]
COLUMNS = [(0, 0.85), (0, 0.4), (1, 0.7), (2, 0.85)]
JOINED = [(0, 0), (0, 1), (0, 3), (1, 0), (1, 3), (2, 2)]

rates = st.one_of(st.just(0.0), st.floats(0.01, 8.0))
weights = st.builds(
    Weights,
    latency=st.floats(0.0, 3.0),
    cost=st.floats(0.0, 2.0),
    energy=st.sampled_from([0.0, 3.0]),
    switching=st.floats(0.0, 2.0),
    unserved=st.sampled_from([5.0, 100.0, 3600.0]),
    fairness=st.sampled_from([0.0, 50.0]),
)


@st.composite
def problems(draw: st.DrawFn) -> Problem:
    bases = [
        base(
            f"g{b}",
            dollars=draw(st.floats(0.1, 5.0)),
            running=draw(st.integers(0, 2)),
            most=draw(st.sampled_from([UNLIMITED, UNLIMITED, 1])),
            **place_of,  # type: ignore[arg-type]
        )
        for b, place_of in enumerate(PLACES)
    ]
    columns = []
    for b, ceiling in COLUMNS:
        batch = draw(st.floats(1.0, 50.0))
        columns.append((b, ceiling, Congestion(batch * draw(st.floats(0.1, 1.0)), batch)))
    edges = []
    for c, j in JOINED:
        engine_s = draw(st.floats(0.01, 1.0))
        alone_s = engine_s * draw(st.floats(1.0, 20.0))
        edges.append((c, j, engine_s, alone_s, engine_s * draw(st.floats(0.0, 2.0))))
    return problem(
        [draw(rates) for _ in range(3)],
        bases,
        columns,
        edges,
        pools=[Pool("g0", "", {2: draw(st.integers(1, 2))}), Pool("g2", "", {1: 2})],
        limits=Limits(
            mip_gap=1e-7,
            min_replicas=draw(st.integers(0, 1)),
            budget_usd_per_hour=draw(st.one_of(st.none(), st.floats(1.0, 12.0))),
            max_moves=draw(st.sampled_from([None, None, 0, 1])),
        ),
        tenants=["x", "x", "y"],
    )


MODELS: dict[tuple[object, ...], Model] = {}
"""One statement per shape, as the planner itself keeps it: stating is what takes long."""


def _place(given_problem: Problem, chosen: Weights) -> float:
    limits = given_problem.limits
    shape = (
        limits.budget_usd_per_hour is None,
        limits.max_moves is None,
        *(one.candidate.most for one in given_problem.bases),
    )
    placement = place(given_problem, chosen, model=MODELS.get(shape))
    MODELS[shape] = placement.model
    assert broken_rules(given_problem, placement.model.shape, placement.replicas) == []
    return placement.objective


def _agrees_with_enumeration(tiny: Problem, chosen: Weights) -> None:
    best = best_by_enumeration(tiny, chosen)
    if best == float("inf"):
        with pytest.raises(InfeasiblePlanError):
            _place(tiny, chosen)
    else:
        assert _place(tiny, chosen) == pytest.approx(best, rel=1e-5, abs=1e-4)


@settings(derandomize=True, deadline=None, max_examples=100)
@given(problems(), weights)
def test_no_placement_is_better_than_the_one_found(tiny: Problem, chosen: Weights) -> None:
    _agrees_with_enumeration(tiny, chosen)


@pytest.mark.full
@pytest.mark.timeout(900)
@settings(derandomize=True, deadline=None, max_examples=500)
@given(problems(), weights)
def test_no_placement_is_better_hundreds_of_times(tiny: Problem, chosen: Weights) -> None:
    _agrees_with_enumeration(tiny, chosen)


@settings(derandomize=True, deadline=None, max_examples=20)
@given(problems(), weights, st.integers(1, 2))
def test_more_cards_never_make_it_worse(tiny: Problem, chosen: Weights, pairs: int) -> None:
    few, many = with_stock(tiny, pairs), with_stock(tiny, pairs + 1)
    if best_by_enumeration(few, chosen) < float("inf"):
        assert _place(many, chosen) <= _place(few, chosen) * (1 + 1e-5) + 1e-4


@settings(derandomize=True, deadline=None, max_examples=20)
@given(problems(), weights)
def test_shares_and_unserved_of_each_class_add_up_to_one(tiny: Problem, chosen: Weights) -> None:
    """I7."""
    try:
        placement = place(tiny, chosen)
    except InfeasiblePlanError:
        return
    if not placement.replicas.any():
        return
    routing, _ = route(*occupied(tiny, placement.replicas), chosen)
    sums = np.zeros(3)
    for c, _, share in shares_of(routing):
        assert 0.0 < share <= 1.0 + 1e-6
        sums[c] += share
    assert sums[tiny.rates > 0] == pytest.approx(1.0, abs=1e-5)
