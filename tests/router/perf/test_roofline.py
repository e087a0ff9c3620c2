"""The iteration model against its own formula: limits, monotony, linearity."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.perf.build import iteration_model
from router.perf.catalog import default_catalog
from router.perf.roofline import IterationModel

from .conftest import backend

MODEL = IterationModel(
    step_s=0.5e-3,
    seq_s=20e-6,
    prefill_comm_s=1e-6,
    weights_s=10e-3,
    prefill_token_s=70e-6,
    decode_token_s=70e-6,
    context_s=75e-9,
    pair_s=6e-9,
)
tokens = st.integers(0, 16_384)
seqs = st.integers(0, 512)
contexts = st.floats(0, 1e6)


def test_the_smooth_maximum_written_out():
    gemm_s = 70e-6 * (100 + 8)
    expected = 0.5e-3 + 8 * 20e-6 + 100 * 1e-6 + (10e-3**1.3 + gemm_s**1.3) ** (1 / 1.3)
    assert MODEL.base_s(100, 8) == pytest.approx(expected, rel=1e-12)


@given(tokens, seqs, contexts, contexts)
def test_affine_in_context_with_slope_context_s(n: int, b: int, low: float, high: float):
    rise = MODEL.iteration_s(n, b, high) - MODEL.iteration_s(n, b, low)
    assert rise == pytest.approx(MODEL.context_s * (high - low), abs=1e-9)


@given(tokens, seqs, contexts, st.floats(0, 1e8))
def test_base_and_attention_add_up(n: int, b: int, context: float, pairs: float):
    whole = MODEL.base_s(n, b) + MODEL.context_s * context + MODEL.pair_s * pairs
    assert MODEL.iteration_s(n, b, context, pairs) == pytest.approx(whole, rel=1e-12)


@given(tokens, seqs)
def test_more_work_takes_longer(n: int, b: int):
    assert MODEL.base_s(n + 1, b) > MODEL.base_s(n, b)
    assert MODEL.base_s(n, b + 1) > MODEL.base_s(n, b)


@given(tokens, seqs)
def test_between_the_maximum_and_the_sum(n: int, b: int):
    bare = replace(MODEL, step_s=0.0, seq_s=0.0, prefill_comm_s=0.0)
    gemm_s = 70e-6 * (n + b)
    assert max(10e-3, gemm_s) * (1 - 1e-12) <= bare.base_s(n, b) <= (10e-3 + gemm_s) * (1 + 1e-12)


def test_exponent_one_is_the_sum_and_a_large_one_the_maximum():
    bare = replace(MODEL, step_s=0.0, seq_s=0.0, prefill_comm_s=0.0)
    assert replace(bare, exponent=1.0).base_s(300, 0) == pytest.approx(10e-3 + 21e-3)
    assert replace(bare, exponent=60.0).base_s(300, 0) == pytest.approx(21e-3, rel=1e-6)


def test_one_sequence_is_bandwidth_bound_and_a_long_prompt_compute_bound():
    assert MODEL.base_s(0, 1) == pytest.approx(MODEL.weights_s + MODEL.step_s, rel=0.02)
    assert MODEL.base_s(16_384, 0) == pytest.approx(16_384 * 71e-6, rel=0.02)


def test_an_exponent_below_one_is_refused():
    with pytest.raises(ValueError, match="exponent"):
        replace(MODEL, exponent=0.9)


@given(st.floats(0.3, 3), st.floats(0.3, 3), tokens, seqs)
def test_scaling_each_phase(prefill: float, decode: float, n: int, b: int):
    scaled = MODEL.scaled(prefill, decode)
    assert scaled.iteration_s(0, b, 1e4) == pytest.approx(decode * MODEL.iteration_s(0, b, 1e4))
    low, high = sorted((prefill, decode))
    whole = MODEL.iteration_s(n, b, 1e4, 1e5)
    assert low * whole * 0.999 <= scaled.iteration_s(n, b, 1e4, 1e5) <= high * whole * 1.001


def test_many_at_once_are_the_same_as_one_by_one():
    rows = [(0, 1, 800.0, 0.0), (512, 0, 0.0, 131_072.0), (512, 64, 51_200.0, 131_072.0)]
    together = MODEL.times_s(*np.array(rows).T)
    assert together == pytest.approx([MODEL.iteration_s(*row) for row in rows], rel=1e-14)


def test_the_linear_form_of_a_linear_model_is_the_model():
    # Without attention in prefill, p = 1 makes the model a plane: the fit must find it exactly.
    plane = replace(MODEL, exponent=1.0, pair_s=0.0, prefill_comm_s=0.0)
    linear = plane.linear()
    assert linear.step_s == pytest.approx(10.5e-3)
    assert linear.prefill_s == pytest.approx(70e-6)
    assert linear.seq_s == pytest.approx(90e-6)
    assert linear.context_s == plane.context_s


@pytest.mark.parametrize("gpu", list(default_catalog().gpus))
def test_the_linear_form_stays_close_on_every_card(gpu: str):
    model = iteration_model(backend(gpu, tensor_parallel=2))
    linear = model.linear()
    assert min(linear.step_s, linear.prefill_s, linear.seq_s, linear.context_s) >= 0
    shapes = [(0, 1), (0, 16), (0, 64), (0, 128), (256, 16), (1024, 0), (2048, 32)]
    errors = [
        linear.iteration_s(n, b, 800 * b) / model.iteration_s(n, b, 800 * b, n * n / 2) - 1
        for n, b in shapes
    ]
    assert max(map(abs, errors)) < 0.20
    assert sorted(map(abs, errors))[len(errors) // 2] < 0.10


def test_a_negative_best_slope_becomes_zero():
    # Sequences cost nothing here, so the best plane would tilt down to follow the curvature.
    flat = replace(MODEL, seq_s=0.0, decode_token_s=0.0, weights_s=0.2)
    assert flat.linear().seq_s >= 0.0
