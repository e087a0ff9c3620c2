"""From hardware figures to an iteration model: arithmetic, tensor parallelism, overrides."""

from __future__ import annotations

import pytest

from router.domain.errors import ConfigError
from router.perf.build import iteration_model
from router.perf.catalog import gpu, model
from router.perf.priors import STEP_US, V0_STEP_US, Override, priors_for

from .conftest import backend


def test_a_decode_step_streams_the_weights_once():
    a100, llama = gpu("a100-80"), model("llama-3.1-8b")
    streamed = (llama.parameters - llama.embedding_parameters) * 2  # no input embedding
    expected = streamed / (a100.bandwidth_gb_per_s * 1e9 * a100.mbu)
    assert iteration_model(backend("a100-80")).weights_s == pytest.approx(expected)


def test_prefill_computes_two_flops_per_parameter_and_token():
    llama = model("llama-3.1-8b")
    flops = 2 * (llama.parameters - llama.embedding_parameters)
    seconds = flops / (312e12 * gpu("a100-80").mfu)
    assert iteration_model(backend("a100-80")).prefill_token_s == pytest.approx(seconds)


def test_kv_reads_cost_bytes_over_bandwidth():
    expected = 128 * 1024 / (320e9 * gpu("t4").mbu_kv)
    one = iteration_model(backend("t4")).context_s
    assert one == pytest.approx(expected)
    assert iteration_model(backend("t4", tensor_parallel=2)).context_s == pytest.approx(one / 2)


def test_two_cards_halve_the_weights_and_pay_for_all_reduces():
    one = iteration_model(backend("t4"))
    two = iteration_model(backend("t4", tensor_parallel=2))
    assert two.weights_s == pytest.approx(one.weights_s / 2)
    assert one.prefill_comm_s == 0.0
    latency_s = 2 * 32 * gpu("t4").allreduce_us * 1e-6  # two per layer
    assert two.step_s == pytest.approx(one.step_s + latency_s)
    ring_bytes = 4096 * 2 * 2 * (2 - 1) / 2
    assert two.prefill_comm_s == pytest.approx(
        2 * 32 * ring_bytes / (gpu("t4").link_gb_per_s * 1e9)
    )


def test_faster_cards_are_faster_in_both_phases():
    for slow, fast in [("t4", "v100-32"), ("v100-32", "a100-80"), ("a100-80", "h100")]:
        behind, ahead = iteration_model(backend(slow)), iteration_model(backend(fast))
        assert ahead.iteration_s(0, 16, 16_000) < behind.iteration_s(0, 16, 16_000)
        assert ahead.iteration_s(1024, 0, 0, 1024**2 / 2) < behind.iteration_s(1024, 0, 0, 2**19)


def test_four_bit_weights_stream_faster_and_compute_slower():
    full = iteration_model(backend("l4"))
    awq = iteration_model(backend("l4", quantization="awq"))
    assert awq.weights_s < 0.5 * full.weights_s
    assert awq.prefill_token_s > full.prefill_token_s


def test_vllm_v0_has_the_older_kernels_and_the_slower_loop():
    v0 = priors_for(backend("v100-32", engine_version="0.6.3"), gpu("v100-32"))
    newest = priors_for(backend("v100-32"), gpu("v100-32"))
    assert (v0.mfu, v0.step_us) == (gpu("v100-32").mfu_v0, V0_STEP_US)
    assert (newest.mfu, newest.step_us) == (gpu("v100-32").mfu, STEP_US)


def test_ones_own_constants_override_the_priors_where_they_match():
    mine = Override({"mbu": 0.5}, gpu="t4", tensor_parallel=2)
    changed = iteration_model(backend("t4", tensor_parallel=2), overrides=[mine])
    expected = iteration_model(backend("t4", tensor_parallel=2)).weights_s * gpu("t4").mbu / 0.5
    assert changed.weights_s == pytest.approx(expected)
    assert iteration_model(backend("t4"), overrides=[mine]) == iteration_model(backend("t4"))


def test_the_last_matching_override_wins():
    everywhere, here = Override({"mfu": 0.2, "mbu": 0.3}), Override({"mfu": 0.6}, engine="vllm")
    priors = priors_for(backend("l4"), gpu("l4"), [everywhere, here])
    assert (priors.mfu, priors.mbu) == (0.6, 0.3)


def test_phase_factors_scale_the_whole_phase():
    doubled = Override({"prefill_factor": 2.0, "decode_factor": 3.0})
    plain = iteration_model(backend("l4"))
    assert iteration_model(backend("l4"), overrides=[doubled]) == plain.scaled(2.0, 3.0)


@pytest.mark.parametrize(
    ("values", "message"),
    [({"speed": 1.0}, "unknown constant 'speed'"), ({"mfu": 0.0}, "mfu must be positive")],
)
def test_an_override_that_makes_no_sense_is_refused(values: dict[str, float], message: str):
    with pytest.raises(ConfigError, match=message):
        Override(values)


def test_an_overhead_may_be_zero():
    assert Override({"step_us": 0.0}).values == {"step_us": 0.0}
