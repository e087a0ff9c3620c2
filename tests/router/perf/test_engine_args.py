"""The flags an engine was started with are understood by their own names, or refused by name."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from router.config.load import load_config
from router.domain.errors import ConfigError
from router.perf.build import engine_defaults, kv_capacity_tokens
from simulator.replica.config import replica_config

from .conftest import backend


def started(gpu: str, engine: str, **args: Any) -> Any:
    return replace(backend(gpu, engine=engine), engine_args=args)


def test_vllm_s_flags_reach_the_simulated_engine() -> None:
    spec = started(
        "a100-80",
        "vllm",
        num_gpu_blocks_override=4000,
        block_size=32,
        enable_prefix_caching=False,
        async_scheduling=False,
        max_num_queued_reqs=50,
        watermark=0.01,
    )
    config = replica_config(spec)
    assert config.kv_capacity_tokens == 4000 * 32
    assert config.total_blocks == 4000
    assert (config.prefix_caching, config.schedule_ahead) == (False, 0)
    assert (config.max_num_queued_reqs, config.watermark) == (50, 0.01)


def test_sglang_s_flags_reach_the_simulated_engine() -> None:
    spec = started(
        "a100-80",
        "sglang",
        schedule_policy="lpm",
        schedule_conservativeness=0.5,
        max_total_tokens=50_000,
        page_size=16,
        disable_radix_cache=True,
        max_running_requests=64,
    )
    config = replica_config(spec)
    assert (config.queue_order, config.schedule_conservativeness) == ("lpm", 0.5)
    assert (config.kv_capacity_tokens, config.block_tokens) == (50_000, 16)
    assert (config.prefix_caching, config.max_num_seqs) == (False, 64)


def test_a_launch_command_can_be_copied_with_its_dashes() -> None:
    spec = replace(backend("a100-80"), engine_args={"--gpu-memory-utilization": 0.5})
    assert engine_defaults(spec).gpu_memory_utilization == 0.5
    assert kv_capacity_tokens(spec) < kv_capacity_tokens(backend("a100-80")) / 2


def test_sglang_s_memory_follows_from_the_chunk_it_was_given() -> None:
    stock, small = started("t4", "sglang"), started("t4", "sglang", chunked_prefill_size=512)
    assert engine_defaults(small).max_num_batched_tokens == 512
    assert engine_defaults(small).gpu_memory_utilization > (
        engine_defaults(stock).gpu_memory_utilization
    )


def test_llama_server_s_context_of_0_is_the_model_s_own() -> None:
    plain = kv_capacity_tokens(backend("a100-80", engine="llamacpp"))
    assert kv_capacity_tokens(started("a100-80", "llamacpp", ctx_size=0)) == plain
    assert kv_capacity_tokens(started("a100-80", "llamacpp", ctx_size=4096)) == 4096
    for given in (-1, False, 0.0):
        with pytest.raises(ConfigError, match="must be a whole number of at least 0"):
            engine_defaults(started("a100-80", "llamacpp", ctx_size=given))


def test_a_measured_capacity_beats_the_flags() -> None:
    spec = replace(started("a100-80", "vllm", num_gpu_blocks_override=9), kv_capacity_tokens=1600)
    assert kv_capacity_tokens(spec) == 1600


@pytest.mark.parametrize(
    ("args", "message"),
    [
        ({"enable_prefix_cachin": True}, "Did you mean 'enable_prefix_caching'"),
        ({"schedule_policy": "lpm"}, "no flag of vllm"),
        ({"enable_prefix_caching": 1}, "must be true or false, not 1"),
        ({"gpu_memory_utilization": 1.5}, "must be a number above 0, at most 1"),
        ({"num_gpu_blocks_override": 0}, "must be a whole number of at least 1"),
        ({"max_num_seqs": True}, "must be a whole number of at least 1"),
    ],
)
def test_what_is_not_understood_is_named(args: dict[str, Any], message: str) -> None:
    with pytest.raises(ConfigError, match=message):
        engine_defaults(started("a100-80", "vllm", **args))


def test_the_fleet_file_carries_them() -> None:
    entry = {
        "gpu": "a100-80",
        "engine": "sglang",
        "model": "llama-3.1-8b",
        "engine_args": {"schedule-policy": "lpm", "disable-radix-cache": False},
    }
    (spec,) = load_config({"backends": [entry]}).fleet.backends
    assert replica_config(spec).queue_order == "lpm"
    assert replica_config(spec).prefix_caching
    with pytest.raises(ConfigError, match="no flag of sglang"):
        load_config({"backends": [entry | {"engine_args": {"watermark": 0.1}}]})
