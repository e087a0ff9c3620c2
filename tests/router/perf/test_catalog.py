"""The catalogue: every figure plausible, sourced and in the unit its name says."""

from __future__ import annotations

from dataclasses import fields

import pytest

from router.domain.errors import ConfigError, UnknownNameError
from router.perf import catalog
from router.perf.catalog import default_catalog, parse_capability
from router.perf.specs import GpuSpec, ModelSpec

GPUS = default_catalog().gpus.values()
MODELS = default_catalog().models.values()


def test_the_promised_gpus_are_there():
    assert catalog.gpu_names() == (
        *("a100-40", "a100-80", "v100-16", "v100-32", "t4", "l4"),
        *("a10g", "a40", "l40s", "h100", "h200"),
    )


def test_a_miss_names_the_near_one():
    with pytest.raises(UnknownNameError, match="Did you mean 'a100-80'"):
        catalog.gpu("a100-800")
    with pytest.raises(UnknownNameError, match=r"Did you mean 'llama-3\.1-8b'"):
        catalog.model("llama-3.1-8")


@pytest.mark.parametrize("gpu", GPUS, ids=lambda g: g.name)
def test_every_figure_of_a_gpu_has_a_source(gpu: GpuSpec):
    figures = {f.name for f in fields(GpuSpec) if f.type == "float"}
    assert set(gpu.sources) == figures
    assert all(gpu.sources.values())


@pytest.mark.parametrize("gpu", GPUS, ids=lambda g: g.name)
def test_gpu_figures_are_in_their_units(gpu: GpuSpec):
    for share in (gpu.mfu, gpu.mfu_tp, gpu.mfu_v0, gpu.mfu_attn, gpu.mbu, gpu.mbu_kv):
        assert 0.1 < share < 1.0
    assert 14 < gpu.memory_gib < 142
    assert 300 <= gpu.bandwidth_gb_per_s <= 4800
    assert 65 <= gpu.fp16_tflops <= 989  # dense; 1979 would be the sparse figure
    assert gpu.idle_w < gpu.tdp_w
    assert (gpu.fp8_tflops > 0) == (gpu.compute_capability >= (8, 9))


def test_old_cards_lack_bf16_and_only_ada_and_hopper_have_fp8():
    known = default_catalog()
    assert [g.name for g in GPUS if not g.supports_bf16] == ["v100-16", "v100-32", "t4"]
    assert [g.name for g in GPUS if g.fp8_tflops] == ["l4", "l40s", "h100", "h200"]
    assert known.gpu("a100-80").compute_capability == (8, 0)


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_published_parameter_counts_follow_from_the_shapes(model: ModelSpec):
    attention = 2 * model.hidden_size * model.query_size  # query and output projections
    attention += 2 * model.hidden_size * model.kv_heads * model.head_dim
    blocks = model.layers * (attention + 3 * model.hidden_size * model.mlp_size)
    assert model.block_parameters == pytest.approx(blocks, rel=0.005)  # biases and norms


@pytest.mark.parametrize("model", MODELS, ids=lambda m: m.name)
def test_query_heads_are_a_multiple_of_kv_heads(model: ModelSpec):
    assert model.heads % model.kv_heads == 0


def test_kv_bytes_of_the_textbook_models():
    # 2 (K and V) x 32 layers x 8 heads x 128 x 2 bytes = 128 KiB; llama-2-7b has 32 heads
    assert catalog.model("llama-3.1-8b").kv_bytes_per_token() == 128 * 1024
    assert catalog.model("llama-2-7b").kv_bytes_per_token() == 512 * 1024


def test_kv_is_split_over_cards_until_there_are_more_cards_than_heads():
    model = catalog.model("qwen2.5-7b")  # 4 KV heads
    whole = model.kv_bytes_per_token()
    assert [model.kv_bytes_per_token(k) / whole for k in (1, 2, 4, 8)] == [1, 0.5, 0.25, 0.25]


def test_a_repository_name_finds_the_model():
    assert catalog.model("meta-llama/Llama-3.1-8B-Instruct") is catalog.model("llama-3.1-8b")


def test_a_model_of_ones_own_needs_five_figures():
    mine = ModelSpec("mine", parameters=2_000_000_000, layers=24, hidden_size=2048, kv_heads=8)
    extended = default_catalog().extended(models=[mine])
    assert extended.model("mine") is mine
    assert mine.query_size == 2048
    assert mine.block_parameters == 2_000_000_000 - 2 * 32_000 * 2048
    with pytest.raises(UnknownNameError):
        default_catalog().model("mine")


def test_weight_formats_compress_the_blocks_and_leave_the_embeddings():
    model, known = catalog.model("llama-3.1-8b"), default_catalog()
    embeddings = 2 * 128_256 * 4096 * 2
    assert known.quantization("bf16").weight_bytes(model) == model.parameters * 2
    assert known.quantization("fp8").weight_bytes(model) == model.block_parameters + embeddings


def test_fp8_computes_in_fp8_on_ada_and_in_fp16_on_ampere():
    fp8 = default_catalog().quantization("fp8")
    assert fp8.peak_flops(catalog.gpu("l4")) == 242e12
    assert fp8.peak_flops(catalog.gpu("a100-80")) == 312e12


@pytest.mark.parametrize("text", ["8", "8.", "sm80", ""])
def test_a_malformed_compute_capability_is_named(text: str):
    with pytest.raises(ConfigError, match="not of the form"):
        parse_capability(text)
