"""What the router believes of a backend's speed is what the planner plans with."""

from __future__ import annotations

import pytest

from router.domain.fleet import BackendSpec
from router.domain.state import LinearCost
from router.perf.hardware import Hardware
from solver.believed import BelievedModel, average_cost, believed_models

A100 = BackendSpec("a", "a100-80", "vllm", "llama-3.1-8b")
ONE = LinearCost(0.01, 1e-4, 2e-5, 1e-7, 6e-9)


@pytest.mark.parametrize("prompt", [100, 2_000, 30_000])
def test_a_long_prompt_costs_what_its_attention_costs(prompt: int) -> None:
    model = Hardware().iteration_model(A100)
    believed = BelievedModel(model.linear())
    asked = (prompt, 0, 0.0, prompt * prompt / 2)
    assert believed.iteration_s(*asked) == pytest.approx(model.iteration_s(*asked), rel=0.2)


def test_speeds_of_a_group_add_up() -> None:
    """Two cards, one three times as slow: together they do 4/3 of one card's work, not 1."""
    both = average_cost([ONE, ONE.scaled(prefill=3.0, decode=3.0)])
    assert both.step_s == pytest.approx(1.5 * ONE.step_s)
    assert both.prefill_s == pytest.approx(1.5 * ONE.prefill_s)
    assert both.pair_s == pytest.approx(1.5 * ONE.pair_s)
    assert average_cost([LinearCost(0.0, 1e-4, 0.0, 0.0)]).step_s == 0.0


def test_a_belief_reads_like_any_other_model() -> None:
    model = BelievedModel(ONE)
    assert model.iteration_s(10, 2, 100.0, 50.0) == ONE.iteration_s(10, 2, 100.0, 50.0)
    assert model.linear() is ONE


def test_who_is_not_known_is_left_to_the_catalogue() -> None:
    t4 = BackendSpec("t", "t4", "vllm", "llama-3.1-8b")
    known = believed_models([A100, t4], lambda spec: ONE if spec is A100 else None)
    assert set(known) == {A100.group}
