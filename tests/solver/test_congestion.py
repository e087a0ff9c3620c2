"""The congestion curve, held to queueing theory."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.congestion import Congestion, congestion
from solver.service import service
from tests.solver.tiny import engine, linear_model

curves = st.builds(
    lambda batch, share: Congestion(max(0.1, batch * share), batch),
    st.floats(1.0, 600.0),
    st.floats(0.02, 1.0),
)
utilizations = st.floats(0.0, 0.96)


@settings(derandomize=True, deadline=None)
@given(curves)
def test_an_idle_engine_delays_nobody(curve: Congestion) -> None:
    assert curve.extra(0.0) == 0.0
    assert curve.slope(0.0) == 0.0
    assert curve.toll(0.0) == 0.0


@settings(derandomize=True, deadline=None)
@given(curves, utilizations, utilizations)
def test_congestion_and_its_price_rise_with_load(curve: Congestion, a: float, b: float) -> None:
    low, high = sorted((a, b))
    assert curve.extra(low) <= curve.extra(high) * (1 + 1e-9) + 1e-12
    assert curve.slope(low) <= curve.slope(high) * (1 + 1e-9) + 1e-12
    assert 0.0 <= curve.toll(low) <= curve.slope(low) + 1e-9


@settings(derandomize=True, deadline=None)
@given(curves, st.floats(0.02, 0.95))
def test_the_slope_is_the_derivative(curve: Congestion, rho: float) -> None:
    step = 1e-6
    rise = (curve.extra(rho + step) - curve.extra(rho - step)) / (2 * step)
    assert curve.slope(rho) == pytest.approx(rise, rel=1e-3, abs=1e-4)


@settings(derandomize=True, deadline=None)
@given(curves, st.lists(utilizations, min_size=1, max_size=6), utilizations)
def test_tangents_are_lower_bounds(curve: Congestion, points: list[float], rho: float) -> None:
    slopes, intercepts = curve.tangents(points)
    best = float((slopes * rho + intercepts).max())
    assert best <= curve.extra(rho) + 1e-6 * (1 + curve.extra(rho))


def test_with_a_batch_of_one_it_is_the_queue_of_m_m_1() -> None:
    """One slot and no batching: rho^2 / (1 - rho) requests wait (M/M/1)."""
    curve = Congestion(1.0, 1.0)
    assert curve.phi == 0.0
    for rho in (0.2, 0.5, 0.9):
        assert curve.extra(rho) == pytest.approx(rho**2 / (1 - rho))


def test_requests_in_the_system_obey_littles_law_at_both_ends() -> None:
    one = service(engine(linear_model(seq_s=0.001)), 1, 100)
    shared = congestion([(1.0, one)])
    assert shared.concurrency == pytest.approx(one.alone_s / one.engine_s)
    assert shared.slots_taken(1.0) == pytest.approx(1.0)
    assert shared.phi == pytest.approx(one.phi)


def test_a_mix_weighs_classes_by_their_load() -> None:
    light = service(engine(), 10, 10)
    heavy = service(engine(), 10, 1000)
    alone = congestion([(1.0, light)])
    assert congestion([(1.0, light), (0.0, heavy)]) == alone
    mixed = congestion([(1.0, light), (1.0, heavy)])
    load = light.engine_s + heavy.engine_s
    assert mixed.concurrency == pytest.approx((light.alone_s + heavy.alone_s) / load)


def test_without_rates_classes_count_alike() -> None:
    one = service(engine(), 10, 10)
    assert congestion([(0.0, one)]) == congestion([(5.0, one)])
