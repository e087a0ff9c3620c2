"""Derived KV capacity against what engines logged."""

from __future__ import annotations

import pytest

from router.perf.build import kv_capacity_tokens, max_context_tokens
from router.perf.catalog import default_catalog
from router.perf.feasible import budget_of

from .conftest import backend


def test_a_measured_capacity_beats_the_derived_one():
    assert kv_capacity_tokens(backend("l4", kv_capacity_tokens=12_345)) == 12_345
    assert max_context_tokens(backend("l4", kv_capacity_tokens=12_345)) == 12_345


@pytest.mark.parametrize(
    ("gpu", "cards", "weights_gib", "kv_gib"),
    [
        # vllm-project/vllm#10511, H100 (total 79.22 GiB), Meta-Llama-3-8B, vLLM 0.6.4, 0.90:
        # "model weights take 14.96GiB ... available_kv_cache_memory 53.29GiB"
        ("h100", 1, 14.96, 53.29),
        ("h100", 2, 7.48, None),
    ],
)
def test_against_a_published_log(gpu: str, cards: int, weights_gib: float, kv_gib: float | None):
    spec = backend(gpu, "llama-3-8b", tensor_parallel=cards, engine_version="0.6.4")
    budget = budget_of(spec, default_catalog())
    assert budget.weights_gib == pytest.approx(weights_gib, abs=0.01)
    if kv_gib is not None:
        assert budget.kv_gib == pytest.approx(kv_gib, rel=0.05)


def test_capacity_is_whole_blocks_of_the_engine():
    assert kv_capacity_tokens(backend("a100-40")) % 16 == 0


def test_twice_the_cards_hold_more_than_twice_the_tokens():
    # The weights are held once, so the second card is nearly all KV.
    one, two = (kv_capacity_tokens(backend("l4", tensor_parallel=k)) for k in (1, 2))
    assert two > 2 * one


def test_a_model_that_does_not_fit_has_no_capacity_rather_than_a_negative_one():
    assert kv_capacity_tokens(backend("t4", "llama-3.1-70b")) == 0


def test_context_is_bounded_by_model_setting_and_kv():
    assert max_context_tokens(backend("a100-80")) == 131_072
    assert max_context_tokens(backend("a100-80", max_model_len=8_192)) == 8_192
    assert max_context_tokens(backend("l4")) == kv_capacity_tokens(backend("l4")) < 131_072
