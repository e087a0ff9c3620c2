"""What the engines do by default, by version and GPU."""

from __future__ import annotations

from dataclasses import replace

import pytest

from router.domain.errors import ConfigError
from router.perf.build import (
    context_limit_tokens,
    engine_defaults,
    kv_capacity_tokens,
    max_context_tokens,
)

from .conftest import backend


def test_vllm_has_two_tiers_and_the_a100_is_in_the_lower():
    for gpu in ("a100-40", "a100-80", "t4", "l4", "l40s"):
        engine = engine_defaults(backend(gpu))
        assert (engine.max_num_batched_tokens, engine.max_num_seqs) == (2048, 256)
    for gpu in ("h100", "h200"):
        engine = engine_defaults(backend(gpu))
        assert (engine.max_num_batched_tokens, engine.max_num_seqs) == (8192, 1024)


def test_current_vllm_chunks_caches_and_schedules_ahead():
    engine = engine_defaults(backend("a100-80"))
    assert engine.scheduler == "vllm-v1"
    assert engine.chunked_prefill
    assert engine.prefix_caching
    assert engine.schedule_ahead == 1
    assert engine.reserves_full_prompt
    assert (engine.block_tokens, engine.gpu_memory_utilization) == (16, 0.92)


def test_the_newest_vllm_of_a_v100_is_0_18_without_chunks_or_prefix_cache():
    engine = engine_defaults(backend("v100-32"))
    assert engine.version == (0, 18, 1)
    assert engine.scheduler == "vllm-v1"
    assert not engine.chunked_prefill
    assert not engine.prefix_caching
    assert engine.gpu_memory_utilization == 0.90
    assert not engine.reserves_full_prompt


def test_without_chunks_the_budget_is_the_longest_prompt():
    assert engine_defaults(backend("v100-32")).max_num_batched_tokens == 16_384
    assert engine_defaults(backend("v100-32", max_model_len=4096)).max_num_batched_tokens == 4096
    assert max_context_tokens(backend("v100-32")) == 16_384


@pytest.mark.parametrize(
    ("gpu", "version", "scheduler"),
    [
        ("a100-80", "0.7.3", "vllm-v0"),
        ("a100-80", "0.8.0", "vllm-v1"),
        ("t4", "0.10.1", "vllm-v0"),
        ("t4", "0.10.2", "vllm-v1"),
        ("v100-16", "v0.10.2", "vllm-v1"),
    ],
)
def test_v1_came_later_to_cards_before_ampere(gpu: str, version: str, scheduler: str):
    assert engine_defaults(backend(gpu, engine_version=version)).scheduler == scheduler


def test_async_scheduling_is_on_from_0_16():
    ahead = [
        engine_defaults(backend("a100-80", engine_version=v)).schedule_ahead
        for v in ("0.11.0", "0.15.3", "0.16.0", "0.33")
    ]
    assert ahead == [0, 0, 1, 1]


@pytest.mark.parametrize(
    ("gpu", "chunk"), [("l4", 4096), ("a100-40", 4096), ("a100-80", 8192), ("h100", 8192)]
)
def test_sglang_chunks_by_memory(gpu: str, chunk: int):
    assert engine_defaults(backend(gpu, engine="sglang")).max_num_batched_tokens == chunk


@pytest.mark.parametrize("gpu", ["a100-40", "a100-80"])
def test_sglang_keeps_83_percent_of_an_a100_for_weights_and_kv(gpu: str):
    engine = engine_defaults(backend(gpu, engine="sglang"))
    assert engine.gpu_memory_utilization == pytest.approx(0.83, abs=0.005)
    assert (engine.scheduler, engine.block_tokens) == ("sglang", 1)


def test_the_file_has_the_last_word():
    engine = engine_defaults(backend("a100-80", max_num_seqs=8, max_num_batched_tokens=512))
    assert (engine.max_num_seqs, engine.max_num_batched_tokens) == (8, 512)


@pytest.mark.parametrize("version", ["latest", "0", "0.18.x", "0.1.2.3"])
def test_a_version_that_cannot_be_read_is_named(version: str):
    with pytest.raises(ConfigError, match="engine_version"):
        engine_defaults(backend("a100-80", engine_version=version))


def test_llama_cpp_has_four_slots_that_share_one_context():
    spec = backend("t4", engine="llamacpp", quantization="gptq", engine_version="b6500")
    engine = engine_defaults(spec)
    assert (engine.max_num_seqs, engine.max_num_batched_tokens) == (4, 2048)
    assert (engine.scheduler, engine.chunked_prefill) == ("vllm-v1", True)
    roomy = replace(spec, gpu="a100-80")
    assert kv_capacity_tokens(roomy) == max_context_tokens(roomy) == 131_072
    assert kv_capacity_tokens(spec) < 131_072, "the rest does not fit beside the weights"
    short = replace(roomy, max_model_len=8_192)
    assert kv_capacity_tokens(short) == 8_192
    args = {"--parallel": 8, "ctx-size": 65_536, "batch-size": 512}
    set_up = replace(short, engine_args=args)
    assert kv_capacity_tokens(set_up) == 65_536
    assert max_context_tokens(set_up) == 8_192
    assert engine_defaults(set_up).max_num_seqs == 8
    assert engine_defaults(set_up).max_num_batched_tokens == 512


def test_llama_cpp_splits_prompts_on_a_v100_too():
    old = backend("v100-32", engine="llamacpp")
    assert engine_defaults(old).chunked_prefill
    assert context_limit_tokens(old) == 131_072
    assert context_limit_tokens(backend("v100-32")) == 16_384
