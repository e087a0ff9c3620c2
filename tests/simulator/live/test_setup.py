"""What an engine does not tell is what its kind does by default, and is said aloud."""

from dataclasses import replace

import pytest

from router.domain.errors import ConfigError, UnknownNameError
from simulator.live.facts import EngineFacts
from simulator.live.setup import CPU, Named, set_up

FACTS = EngineFacts(
    engine="vllm",
    version="0.32.0+cpu",
    model="my-own",
    max_model_len=4_096,
    kv_capacity_tokens=32_768,
    block_tokens=32,
    prefix_caching=True,
)
URL = "http://engine:8000"


def test_a_model_and_a_machine_that_no_catalogue_knows():
    setup = set_up(FACTS, Named(CPU, max_num_seqs=32, max_num_batched_tokens=512), URL)
    config = setup.config
    assert config.scheduler == "vllm-v1"
    assert (config.total_blocks, config.block_tokens) == (1_024, 32)
    assert (config.max_num_seqs, config.max_num_batched_tokens) == (32, 512)
    assert config.longest_job_tokens == 4_096
    assert config.prefix_caching
    assert setup.spec.engine_version == "0.32.0"
    assert setup.assumed == ()


def test_on_a_cpu_vllm_does_not_schedule_ahead():
    assert set_up(FACTS, Named(CPU), URL).config.schedule_ahead == 0
    assert set_up(FACTS, Named("a100-80"), URL).config.schedule_ahead == 1


def test_what_the_engine_tells_beats_the_default():
    told = replace(FACTS, schedule_ahead=False, prefix_caching=False, max_num_seqs=7)
    config = set_up(told, Named("a100-80"), URL).config
    assert (config.schedule_ahead, config.prefix_caching, config.max_num_seqs) == (0, False, 7)


def test_defaults_are_said_aloud():
    assumed = set_up(FACTS, Named("a100-80"), URL).assumed
    assert "max_num_seqs taken to be 256" in assumed[0]
    assert "pass --max-num-batched-tokens" in assumed[1]


def test_a_volta_card_computes_each_prompt_whole():
    config = set_up(replace(FACTS, version="0.18.1"), Named("v100-32"), URL).config
    assert not config.chunked_prefill
    assert config.max_num_batched_tokens >= 4_096


def test_a_model_of_the_catalogue_keeps_its_name_there():
    known = set_up(replace(FACTS, model="meta-llama/Llama-3.1-8B-Instruct"), Named("l4"), URL)
    assert known.spec.model in {"llama-3.1-8b", "meta-llama/Llama-3.1-8B-Instruct"}


@pytest.mark.parametrize(
    ("told", "read"),
    [
        ("0.18.1", "0.18.1"),
        ("v0.19.0rc2.dev5+g1234", "0.19.0"),
        ("0.33.1.dev0+cpu", "0.33.1"),
        ("main", ""),
        ("", ""),
    ],
)
def test_versions_are_read_as_far_as_they_are_numbers(told, read):
    assert set_up(replace(FACTS, version=told), Named(CPU), URL).spec.engine_version == read


def test_an_unknown_card_is_named_with_near_ones():
    with pytest.raises(UnknownNameError, match="a100-80"):
        set_up(FACTS, Named("a100"), URL)


def test_a_cache_that_nobody_tells_is_asked_for():
    hidden = replace(FACTS, kv_capacity_tokens=None)
    with pytest.raises(ConfigError, match="--kv-tokens"):
        set_up(hidden, Named(CPU), URL)
    assert set_up(hidden, Named(CPU, kv_capacity_tokens=9_600), URL).config.total_blocks == 300
    derived = set_up(hidden, Named("a100-80"), URL)  # from the memory of the card
    assert derived.config.kv_capacity_tokens > 100_000
