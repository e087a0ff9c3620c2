"""Operating points and congestion, held to what they are derived from."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from solver.service import Congestion, congestion, service
from tests.solver.tiny import engine, linear_model

curves = st.builds(
    lambda batch, share: Congestion(max(0.1, batch * share), batch),
    st.floats(1.0, 600.0),
    st.floats(0.02, 1.0),
)
utilizations = st.floats(0.0, 0.96)


def test_alone_a_request_takes_its_prefill_and_one_step_per_further_token() -> None:
    model = linear_model(step_s=0.01, seq_s=0.001, prefill_token_s=0.0001)
    one = service(engine(model), prompt_tokens=500, output_tokens=100)
    assert one.ttft_s == pytest.approx(0.01 + 500 * 0.0001)
    assert one.tpot_s == pytest.approx(0.011)
    assert one.alone_s == pytest.approx(one.ttft_s + 99 * 0.011)


def test_saturated_the_step_is_shared_by_the_batch() -> None:
    model = linear_model(step_s=0.01, seq_s=0.001, prefill_token_s=0.0001)
    one = service(engine(model, max_num_seqs=50), prompt_tokens=500, output_tokens=100)
    # 50 in the batch, each for 100 iterations: 0.5 prefills of 500 tokens per iteration.
    iteration_s = 0.01 + 50 * 0.001 + 250 * 0.0001
    assert one.batch == 50
    assert one.engine_s == pytest.approx(iteration_s * 100 / 50)


def test_the_curve_is_exact_for_iterations_linear_in_the_batch() -> None:
    """With t = a + b*B and Little's law, E2E = o*a / (1 - rate*o*b), b being small beside a."""
    a, b, o = 0.01, 0.00001, 100
    facts = engine(linear_model(step_s=a, seq_s=b), max_num_seqs=5000)
    one = service(facts, prompt_tokens=1, output_tokens=o)
    assert one.phi == pytest.approx(b * 5000 / (a + b * 5000), abs=2e-3)
    for rho in (0.0, 0.3, 0.6, 0.9, 1.0):
        rate = rho / one.engine_s
        assert one.e2e_s(rho) == pytest.approx(o * a / (1 - rate * o * b), rel=5e-3)


@pytest.mark.parametrize(
    ("fields", "batch"),
    [
        ({"max_num_seqs": 8}, 8.0),
        ({"kv_capacity_tokens": 5500}, 10.0),
        ({"max_num_batched_tokens": 60}, 10.0),
        ({"kv_capacity_tokens": 10}, 1.0),
    ],
)
def test_the_batch_is_bounded_by_slots_memory_and_token_budget(
    fields: dict[str, int], batch: float
) -> None:
    # 500 + 100/2 tokens of KV each; 1 + 500/100 tokens per iteration each.
    one = service(engine(**fields), prompt_tokens=500, output_tokens=100)
    assert one.batch == pytest.approx(batch)


def test_without_chunked_prefill_prompts_take_iterations_of_their_own() -> None:
    model = linear_model(step_s=0.01, prefill_token_s=0.0001)
    mixed = service(engine(model), 500, 100)
    apart = service(engine(model, chunked_prefill=False), 500, 100)
    # The prompt's own iteration pays the step once more, instead of sharing it.
    assert apart.engine_s == pytest.approx(mixed.engine_s + 0.01)


def test_cached_prompt_tokens_cost_no_prefill_but_hold_memory() -> None:
    model = linear_model(prefill_token_s=0.001)
    cold, warm = service(engine(model), 500, 100), service(engine(model), 500, 100, 400)
    assert warm.ttft_s == pytest.approx(cold.ttft_s - 0.4)
    assert warm.context_tokens == cold.context_tokens


def test_long_prompts_are_computed_in_chunks_of_the_budget() -> None:
    model = linear_model(step_s=0.01, prefill_token_s=0.0001)
    one = service(engine(model, max_num_batched_tokens=200), 500, 1)
    assert one.ttft_s == pytest.approx(3 * 0.01 + 500 * 0.0001)


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
    best = max(slope * rho + intercept for slope, intercept in curve.tangents(points))
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
