"""Prompt lengths before anybody counted."""

from __future__ import annotations

import pytest

from router.gateway.prompt_size import OVERHEAD_BYTES, PRIOR_BYTES_PER_TOKEN, PromptSizer


def test_the_prior_is_english() -> None:
    sizer = PromptSizer()
    assert sizer.estimate("m", OVERHEAD_BYTES + 4400) == round(4400 / PRIOR_BYTES_PER_TOKEN)
    assert sizer.estimate("m", 10) == 1


@pytest.mark.parametrize("truth", [1.5, 3.0, 6.0])
def test_the_ratio_is_learned_model_by_model(truth: float) -> None:
    sizer = PromptSizer()
    for _ in range(200):
        sizer.learn("m", OVERHEAD_BYTES + round(1000 * truth), 1000)
    assert sizer.bytes_per_token("m") == pytest.approx(truth, rel=0.02)
    assert sizer.bytes_per_token("other") == PRIOR_BYTES_PER_TOKEN


def test_nonsense_cannot_push_the_ratio_out_of_what_tokenizers_do() -> None:
    sizer = PromptSizer()
    for _ in range(1000):
        sizer.learn("m", 10_000_000, 1)
        sizer.learn("n", 1, 1_000_000)
        sizer.learn("m", 100, 0)
    assert sizer.bytes_per_token("m") < 16.0
    assert sizer.bytes_per_token("n") >= 1.0


def test_one_short_prompt_hardly_moves_what_long_ones_taught() -> None:
    sizer = PromptSizer()
    for _ in range(50):
        sizer.learn("m", OVERHEAD_BYTES + 30_000, 10_000)
    before = sizer.bytes_per_token("m")
    sizer.learn("m", OVERHEAD_BYTES + 160, 10)
    assert sizer.bytes_per_token("m") == pytest.approx(before, rel=0.01)
