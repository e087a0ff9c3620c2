"""What each engine generation says, cut down to the lines that matter, with values of our own."""

from __future__ import annotations

from pathlib import Path

import pytest

VLLM_V0 = """\
# HELP vllm:num_requests_running Number of requests currently running on GPU.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{model_name="m"} 7.0
# TYPE vllm:num_requests_swapped gauge
vllm:num_requests_swapped{model_name="m"} 2.0
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{model_name="m"} 3.0
# TYPE vllm:gpu_cache_usage_perc gauge
vllm:gpu_cache_usage_perc{model_name="m"} 0.42
# TYPE vllm:gpu_prefix_cache_hit_rate gauge
vllm:gpu_prefix_cache_hit_rate{model_name="m"} -1.0
# TYPE vllm:num_preemptions_total counter
vllm:num_preemptions_total{model_name="m"} 11.0
# TYPE vllm:cache_config_info gauge
vllm:cache_config_info{block_size="16",cache_dtype="auto",num_cpu_blocks="4096",\
num_gpu_blocks="1000",sliding_window="None"} 1.0
"""

VLLM_TRANSITIONAL = """\
vllm:num_requests_running{engine="0",model_name="m"} 4.0
vllm:num_requests_waiting{engine="0",model_name="m"} 1.0
vllm:gpu_cache_usage_perc{engine="0",model_name="m"} 0.25
vllm:gpu_prefix_cache_queries_total{engine="0",model_name="m"} 1000.0
vllm:gpu_prefix_cache_hits_total{engine="0",model_name="m"} 250.0
vllm:num_preemptions_total{engine="0",model_name="m"} 0.0
"""

VLLM_V1 = """\
process_start_time_seconds 1.79520897632e+09
# HELP vllm:num_requests_running Number of requests in model execution batches.
# TYPE vllm:num_requests_running gauge
vllm:num_requests_running{engine="0",model_name="m"} 12.0
# HELP vllm:num_requests_waiting Number of requests waiting to be processed.
# TYPE vllm:num_requests_waiting gauge
vllm:num_requests_waiting{engine="0",model_name="m"} 5.0
# HELP vllm:num_requests_waiting_by_reason Number of requests waiting, by reason.
# TYPE vllm:num_requests_waiting_by_reason gauge
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="capacity"} 4.0
vllm:num_requests_waiting_by_reason{engine="0",model_name="m",reason="deferred"} 1.0
vllm:kv_cache_usage_perc{engine="0",model_name="m"} 0.5
vllm:prefix_cache_queries_total{engine="0",model_name="m"} 400.0
vllm:prefix_cache_queries_created{engine="0",model_name="m"} 1.795209020662917e+09
vllm:prefix_cache_hits_total{engine="0",model_name="m"} 100.0
vllm:num_preemptions_total{engine="0",model_name="m"} 2.0
vllm:cache_config_info{block_size="128",engine="0",kv_cache_size_tokens="4096",\
num_gpu_blocks="32"} 1.0
"""

SGLANG = """\
# TYPE sglang:num_running_reqs gauge
sglang:num_running_reqs{engine_type="unified",model_name="m",priority="",tp_rank="0"} 6.0
sglang:num_running_reqs{engine_type="unified",model_name="m",priority="1",tp_rank="0"} 4.0
sglang:num_running_reqs{engine_type="unified",model_name="m",priority="9",tp_rank="0"} 2.0
# TYPE sglang:num_queue_reqs gauge
sglang:num_queue_reqs{engine_type="unified",model_name="m",priority="",tp_rank="0"} 3.0
sglang:num_queue_reqs{engine_type="unified",model_name="m",priority="1",tp_rank="0"} 3.0
sglang:num_grammar_queue_reqs{engine_type="unified",model_name="m",tp_rank="0"} 1.0
sglang:token_usage{engine_type="unified",model_name="m",tp_rank="0"} 0.75
sglang:max_total_num_tokens{engine_type="unified",model_name="m",tp_rank="0"} 16384.0
sglang:cache_hit_rate{engine_type="unified",model_name="m",tp_rank="0"} 0.9
sglang:prefill_effective_tokens_total{mode="input",model_name="m",tp_rank="0"} 60.0
sglang:prefill_effective_tokens_total{mode="device_hit",model_name="m",tp_rank="0"} 30.0
sglang:prefill_effective_tokens_total{mode="host_hit",model_name="m",tp_rank="0"} 10.0
sglang:gen_throughput{model_name="m",tp_rank="0"} 321.5
sglang:num_retracted_requests_total{model_name="m",tp_rank="0"} 8.0
"""

SGLANG_UNDERSCORE = SGLANG.replace("sglang:", "sglang_")

LLAMACPP = """\
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
llamacpp:requests_deferred 1
llamacpp:kv_cache_usage_ratio 0.63
"""

LLAMACPP_10434 = """\
# HELP llamacpp:prompt_tokens_total Number of prompt tokens processed, excluding cached tokens
# TYPE llamacpp:prompt_tokens_total counter
llamacpp:prompt_tokens_total 22
# HELP llamacpp:prompt_tokens_cached_total Number of prompt tokens reused from the cache
# TYPE llamacpp:prompt_tokens_cached_total counter
llamacpp:prompt_tokens_cached_total 66
# TYPE llamacpp:requests_processing gauge
llamacpp:requests_processing 2
# TYPE llamacpp:requests_deferred gauge
llamacpp:requests_deferred 1
"""

TGI = """\
tgi_batch_current_size 8
tgi_queue_size 7
"""

TRITON = """\
nv_trt_llm_request_metrics{model="t",request_type="waiting",version="1"} 4
nv_trt_llm_request_metrics{model="t",request_type="scheduled",version="1"} 9
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="tokens_per",model="t",version="1"} 64
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="max",model="t",version="1"} 100
nv_trt_llm_kv_cache_block_metrics{kv_cache_block_type="fraction",model="t",version="1"} 0.2
"""

LOADS = """\
{"timestamp":"2026-11-20T21:33:12","version":"0.5.23","accelerator":"NVIDIA A100-SXM4-80GB",
 "num_accelerators":1,"loads":[{"dp_rank":0,"num_running_reqs":3,"num_waiting_reqs":2,
 "max_total_num_tokens":16384,"token_usage":0.25,"cache_hit_rate":0.5,"gen_throughput":12.5,
 "queues":{"waiting":2,"grammar":0}}]}
"""

EVERY = {
    "vllm": (VLLM_V0, VLLM_TRANSITIONAL, VLLM_V1),
    "sglang": (SGLANG, SGLANG_UNDERSCORE),
    "llamacpp": (LLAMACPP, LLAMACPP_10434),
    "tgi": (TGI,),
    "trtllm": (TRITON,),
}


def shared(name: str) -> bytes:
    """A real scrape from the shared folder; the test is skipped without it."""
    import os

    root = Path(os.environ.get("MOTLEY_SHARED", Path(__file__).parents[2] / ".." / "shared"))
    path = root / "samples" / name
    if not path.exists():
        pytest.skip(f"{path} is not there: real scrapes are not part of the repository")
    return path.read_bytes()
