"""Stock defaults by GPU, engine and version, and what the real engine would refuse."""

from __future__ import annotations

import pytest

from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec
from router.perf.build import kv_capacity_tokens
from simulator.replica.config import ReplicaConfig, replica_config

MODEL = "llama-3.1-8b"


def spec(gpu: str, engine: str = "vllm", **more: object) -> BackendSpec:
    return BackendSpec("b", gpu, engine, MODEL, **more)  # type: ignore[arg-type]


def test_vllm_on_an_a100() -> None:
    config = replica_config(spec("a100-80"))
    assert config.scheduler == "vllm-v1"
    assert (config.max_num_batched_tokens, config.max_num_seqs) == (2_048, 256)
    assert (config.block_tokens, config.schedule_ahead) == (16, 1)
    assert config.chunked_prefill
    assert config.prefix_caching
    assert config.reserve_full_isl
    assert config.kv_capacity_tokens == kv_capacity_tokens(spec("a100-80"))


def test_vllm_on_a_v100_neither_chunks_nor_caches() -> None:
    config = replica_config(spec("v100-32"))
    assert config.scheduler == "vllm-v1"
    assert not config.chunked_prefill
    assert not config.prefix_caching
    assert not config.reserve_full_isl
    assert config.max_num_batched_tokens >= config.longest_job_tokens


def test_an_old_vllm_on_a_v100_is_v0_with_its_watermark() -> None:
    config = replica_config(spec("v100-32", engine_version="0.8.5"))
    assert (config.scheduler, config.schedule_ahead, config.watermark) == ("vllm-v0", 0, 0.01)


def test_sglang_on_an_a100() -> None:
    config = replica_config(spec("a100-80", "sglang"), queue_order="lpm")
    assert (config.scheduler, config.block_tokens) == ("sglang", 1)
    assert (config.max_num_batched_tokens, config.max_prefill_tokens) == (8_192, 16_384)
    assert config.queue_order == "lpm"


def test_the_file_beats_the_defaults() -> None:
    config = replica_config(
        spec(
            "a100-80",
            kv_capacity_tokens=10_000,
            max_num_seqs=64,
            max_num_batched_tokens=512,
            max_model_len=4_096,
            engine_version="0.15.0",
        ),
        max_num_queued_reqs=5,
    )
    assert config.kv_capacity_tokens == 10_000
    assert (config.max_num_seqs, config.max_num_batched_tokens) == (64, 512)
    assert (config.max_context_tokens, config.max_num_queued_reqs) == (4_096, 5)
    assert config.schedule_ahead == 0


def test_the_longest_job_fits_context_and_memory() -> None:
    roomy = ReplicaConfig(kv_capacity_tokens=10_000, max_context_tokens=4_000)
    tight = ReplicaConfig(kv_capacity_tokens=1_000, max_context_tokens=4_000)
    assert roomy.longest_job_tokens == 4_000
    assert tight.longest_job_tokens == 992  # whole blocks
    sglang = ReplicaConfig("sglang", 1_000, 4_000, block_tokens=1)
    assert sglang.longest_job_tokens == 999


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"max_num_seqs": 0}, "max_num_seqs must be at least 1"),
        ({"block_tokens": -1}, "block_tokens must be at least 1"),
        ({"kv_capacity_tokens": 15}, "raise kv_capacity_tokens"),
        ({"schedule_ahead": 2}, "schedule_ahead must be 0 or 1"),
        ({"watermark": 1.0}, r"watermark must be in \[0, 1\)"),
        ({"max_num_batched_tokens": 100}, "must be at least max_num_seqs"),
        ({"chunked_prefill": False}, "without chunked prefill"),
    ],
)
def test_settings_with_which_the_engine_would_not_start(
    settings: dict[str, object], message: str
) -> None:
    with pytest.raises(ConfigError, match=message):
        ReplicaConfig(**settings)  # type: ignore[arg-type]


def test_an_error_names_the_backend() -> None:
    with pytest.raises(ConfigError, match="backend 'b': max_num_batched_tokens"):
        replica_config(spec("a100-80", max_num_batched_tokens=100))
