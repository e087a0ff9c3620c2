"""Operating points and congestion, held to what they are derived from."""

from __future__ import annotations

import pytest

from solver.service import service
from tests.solver.tiny import engine, linear_model


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
