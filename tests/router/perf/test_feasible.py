"""What cannot run is refused with the figure and the remedy."""

from __future__ import annotations

import re
from dataclasses import replace

import pytest

from router.domain.errors import ImpossibleFleetError, UnknownNameError
from router.domain.fleet import BackendSpec
from router.perf.build import check_feasible, kv_capacity_tokens

from .conftest import backend


def refusal(spec: BackendSpec) -> str:
    with pytest.raises(ImpossibleFleetError) as caught:
        check_feasible(spec)
    return str(caught.value)


@pytest.mark.parametrize(
    "spec",
    [
        backend("a100-80", engine="sglang"),
        backend("a100-40", engine="sglang"),
        backend("v100-32"),
        backend("v100-32", engine_version="0.18.1"),
        backend("v100-32", engine_version="0.10.2"),
        backend("t4", tensor_parallel=2),
        backend("t4", quantization="awq"),
        backend("v100-16", quantization="gptq"),
        backend("a100-80", "llama-3.1-70b", tensor_parallel=4),
        backend("h200", "qwen2.5-72b", quantization="fp8"),
    ],
    ids=lambda s: f"{s.gpu}x{s.tensor_parallel}-{s.engine}-{s.quantization}",
)
def test_these_run(spec: BackendSpec):
    check_feasible(spec)
    assert kv_capacity_tokens(spec) >= 2_048


def test_a_model_too_large_says_by_how_much_and_what_would_fit():
    message = refusal(backend("t4", name="t4-3"))
    assert "backend 't4-3'" in message
    short = float(re.search(r"short by ([\d.]+) GiB per card", message)[1])
    # 15 GiB of weights beside 13.4 usable, less about 1.4 for the engine
    assert short == pytest.approx(15.0 + 1.4 + 0.25 - 13.4, abs=0.3)
    assert "tensor_parallel: 2" in message
    assert "quantization: awq" in message
    assert "a100-40" in message


def test_every_remedy_offered_works():
    spec = backend("t4")
    message = refusal(spec)
    offers = re.findall(r"(tensor_parallel|quantization): (\w+)", message.split("would fit:")[1])
    assert len(offers) >= 3
    for key, value in offers:
        check_feasible(replace(spec, **{key: int(value) if value.isdigit() else value}))
    for gpu in re.search(r"gpu: ([\w -]+)", message)[1].split(" or "):
        check_feasible(replace(spec, gpu=gpu))


def test_where_one_change_is_not_enough_two_are_offered():
    message = refusal(backend("t4", "llama-3.1-70b"))
    assert "gpu: a100-80 or h100 or h200 with tensor_parallel: 2" in message


def test_a_context_that_does_not_fit_offers_the_one_that_does():
    message = refusal(backend("l4", max_model_len=131_072))
    fits = int(re.search(r"max_model_len: (\d+)", message.split("would fit:")[1])[1])
    check_feasible(backend("l4", max_model_len=fits))
    assert "short by" in refusal(backend("l4", max_model_len=fits + 32))


def test_a_measured_capacity_is_believed():
    check_feasible(backend("t4", kv_capacity_tokens=8_192))
    assert "lower max_model_len to 8192" in refusal(
        backend("t4", kv_capacity_tokens=8_192, max_model_len=16_384)
    )


@pytest.mark.parametrize("version", ["0.19.0", "0.20.1", "0.33.0"])
def test_new_vllm_on_a_v100_is_refused_with_the_version_that_works(version: str):
    message = refusal(backend("v100-32", engine_version=version))
    assert version in message
    assert "engine_version: 0.18.1" in message
    assert "TRITON_ATTN" in message


@pytest.mark.parametrize("gpu", ["t4", "v100-16", "v100-32"])
def test_sglang_below_ampere_is_refused_with_the_engine_that_works(gpu: str):
    message = refusal(backend(gpu, engine="sglang", tensor_parallel=2))
    assert "SGLang does not run" in message
    assert "engine: vllm" in message


@pytest.mark.parametrize(
    ("gpu", "quantization", "remedy"),
    [
        ("v100-32", "awq", "gptq"),
        ("v100-32", "int8", "gptq"),
        ("t4", "fp8", "gptq"),
        ("t4", "bf16", "fp16"),
        ("v100-32", "bf16", "fp16"),
    ],
)
def test_a_format_without_a_kernel_is_refused(gpu: str, quantization: str, remedy: str):
    message = refusal(backend(gpu, tensor_parallel=2, quantization=quantization))
    assert f"quantization: {remedy}" in message


def test_a_bf16_model_is_cast_on_old_cards_unless_it_is_unstable_in_fp16():
    check_feasible(backend("v100-32", "qwen2.5-7b"))
    assert "needs bfloat16" in refusal(backend("v100-32", "gemma-2-9b"))
    assert "needs bfloat16" in refusal(backend("a100-80", "gemma-2-9b", quantization="fp16"))
    check_feasible(backend("a100-80", "gemma-2-9b"))


@pytest.mark.parametrize(
    ("model", "cards"),
    [("llama-3.1-8b", 3), ("qwen2.5-7b", 8), ("llama-3.1-8b", 0), ("llama-3.2-3b", 16)],
)
def test_cards_must_divide_the_heads(model: str, cards: int):
    message = refusal(backend("a100-80", model, tensor_parallel=cards))
    assert f"tensor_parallel: {cards}" in message
    assert "use 1, 2" in message


@pytest.mark.parametrize("length", [0, 200_000])
def test_a_context_the_model_was_not_made_for_is_refused(length: int):
    assert "131072" in refusal(backend("a100-80", max_model_len=length))


def test_unknown_names_are_named():
    for spec in (
        backend("a100"),
        backend("a100-80", "gpt-5"),
        backend("a100-80", engine="tgi"),
        backend("a100-80", quantization="fp4"),
    ):
        with pytest.raises(UnknownNameError):
            check_feasible(spec)
