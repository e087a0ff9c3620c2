"""What engines tell of themselves, in the words of live ones (vLLM 0.32.0, SGLang 0.5.23)."""

import asyncio

import httpx
import pytest

from router.domain.errors import ConfigError
from simulator.live.client import EngineClient, open_http
from simulator.live.facts import BusyEngineError, EngineFacts, identify, require_idle

VLLM_METRICS = """\
vllm:num_requests_running{engine="0",model_name="tiny"} 0.0
vllm:num_requests_waiting{engine="0",model_name="tiny"} 0.0
vllm:cache_config_info{block_size="32",enable_prefix_caching="True",num_gpu_blocks="1024"} 1.0
"""
VLLM_CONFIG = {
    "vllm_config": {
        "scheduler_config": {
            "max_num_seqs": 128,
            "max_num_batched_tokens": 2048,
            "async_scheduling": False,
        }
    }
}
MODELS = {"data": [{"id": "tiny", "max_model_len": 4096}, {"id": "lora", "max_model_len": 4096}]}
VLLM = {"/v1/models": MODELS, "/metrics": VLLM_METRICS, "/version": {"version": "0.32.0"}}
SGLANG = {
    "/v1/models": MODELS,
    "/metrics": 'sglang:num_running_reqs{model_name="tiny"} 0.0\n',
    "/get_server_info": {
        "version": "0.5.23",
        "max_total_num_tokens": 16384,
        "max_running_requests": None,
        "chunked_prefill_size": 4096,
        "page_size": 1,
        "schedule_policy": "lpm",
        "disable_radix_cache": False,
        "disable_overlap_schedule": True,
        "internal_states": [{"effective_max_running_requests_per_dp": 2}],
    },
}


def ask(pages, use):
    """Let ``use`` talk to an engine that has these pages."""

    def answer(request):
        page = pages.get(request.url.raw_path.decode(), 404)
        if isinstance(page, int):
            return httpx.Response(page)
        return httpx.Response(200, **({"json": page} if isinstance(page, dict) else {"text": page}))

    async def main():
        transport = httpx.MockTransport(answer)
        async with httpx.AsyncClient(base_url="http://engine:8000", transport=transport) as http:
            return await use(EngineClient(http, lambda: 0.0))

    return asyncio.run(main())


def test_vllm_tells_its_cache_and_hides_its_scheduler():
    assert ask(VLLM, identify) == EngineFacts(
        engine="vllm",
        version="0.32.0",
        model="tiny",
        max_model_len=4096,
        kv_capacity_tokens=1024 * 32,
        block_tokens=32,
        prefix_caching=True,
    )


def test_in_developer_mode_vllm_tells_its_scheduler_too():
    facts = ask(VLLM | {"/server_info?config_format=json": VLLM_CONFIG}, identify)
    assert (facts.max_num_seqs, facts.max_num_batched_tokens) == (128, 2048)
    assert facts.schedule_ahead is False


def test_sglang_tells_everything():
    assert ask(SGLANG, identify) == EngineFacts(
        engine="sglang",
        version="0.5.23",
        model="tiny",
        max_model_len=4096,
        kv_capacity_tokens=16384,
        block_tokens=1,
        prefix_caching=True,
        max_num_seqs=2,
        max_num_batched_tokens=4096,
        schedule_ahead=False,
        queue_order="lpm",
    )


def test_one_of_several_models_can_be_asked_for():
    assert ask(VLLM, lambda client: identify(client, "lora")).model == "lora"


@pytest.mark.parametrize(
    ("pages", "model", "named"),
    [
        (VLLM, "gpt", "does not serve 'gpt'; it serves tiny, lora"),
        ({}, "", "lists no model"),
        (VLLM | {"/metrics": 404}, "", "neither vLLM nor SGLang"),
        (VLLM | {"/v1/models": 401}, "", "wants a key: pass --api-key"),
        (VLLM | {"/v1/models": {"data": [{"id": "tiny"}]}}, "", "does not tell max_model_len"),
    ],
)
def test_what_cannot_be_used_is_named_with_a_remedy(pages, model, named):
    with pytest.raises(ConfigError, match=named):
        ask(pages, lambda client: identify(client, model))


def test_an_idle_engine_may_be_measured():
    ask(VLLM, require_idle)


@pytest.mark.parametrize(
    ("metrics", "named"),
    [
        (
            VLLM_METRICS.replace('running{engine="0",model_name="tiny"} 0', 'running{a="b"} 2'),
            "busy with 2",
        ),
        (
            VLLM_METRICS.replace('waiting{engine="0",model_name="tiny"} 0', 'waiting{a="b"} 3'),
            "busy with 3",
        ),
        ("", "does not tell how many"),
    ],
)
def test_a_busy_or_silent_one_may_not(metrics, named):
    with pytest.raises(BusyEngineError, match=named):
        ask(VLLM | {"/metrics": metrics}, require_idle)


def test_nobody_there():
    async def main():
        async with open_http("http://127.0.0.1:9") as http:
            await identify(EngineClient(http, lambda: 0.0))

    with pytest.raises(ConfigError, match=r"cannot reach http://127\.0\.0\.1:9.*is the engine up"):
        asyncio.run(main())


def test_what_is_no_url():
    with pytest.raises(ConfigError, match="should look like http://"):
        open_http("localhost:8000")


@pytest.mark.parametrize("url", ["http://host:8000", "http://host:8000/", "http://host:8000/v1"])
def test_the_base_of_a_url_is_found(url):
    assert EngineClient(open_http(url), lambda: 0.0).url == "http://host:8000"
