"""What the engines say of themselves: ORCA headers, ages, and ``/debug/signals``."""

from __future__ import annotations

import asyncio
import json

import pytest

from router.gateway.engine_reading import same_card
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    MODEL,
    Behaviour,
    answer,
    chat,
    event,
    events,
    eventually,
    hang,
    stream,
)
from tests.telemetry import expositions
from tests.telemetry.web import page, serving

LOAD = "TEXT named_metrics.kv_cache_usage_perc=0.4, named_metrics.num_requests_waiting=3.0"


def with_load(load: str) -> Behaviour:
    return answer(200, b'{"usage": {"prompt_tokens": 3}}', ("endpoint-load-metrics", load))


async def test_the_load_that_vllm_sends_along_is_read_and_not_passed_on(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(with_load(LOAD), with_load("TEXT rubbish"))
    gate = await gateway(backend, telemetry={"scrape_interval_s": 3600.0})
    answered = await gate.post(endpoint_load_metrics_format="JSON")
    assert "endpoint-load-metrics" not in answered.headers
    assert backend.received[0].headers["endpoint-load-metrics-format"] == "TEXT"
    signals = gate.relay.engine.dispatcher.state.get("e0").signals
    assert signals is not None
    assert (signals.kv_usage, signals.waiting, signals.running) == (0.4, 3, None)
    await asyncio.sleep(0.12)
    await gate.post()
    assert gate.relay.engine.dispatcher.state.get("e0").signals == signals, "rubbish is no news"
    shown = (await gate.get("/debug/signals")).json()["backends"]["e0"]
    assert shown["orca_headers"] == 1


async def test_other_engines_and_other_wishes_are_left_alone(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend, telemetry={"scrape_interval_s": 3600.0, "orca": False})
    await gate.post()
    assert "endpoint-load-metrics-format" not in backend.received[0].headers


async def test_old_signals_are_no_longer_believed(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(with_load(LOAD))
    gate = await gateway(backend, telemetry={"scrape_interval_s": 3600.0, "stale_after_s": 5.0})
    await gate.post()
    runtime = gate.relay._rest.state.runtime
    runtime.reading.forget_stale(gate.clock.now() + 4.0)
    state = gate.relay.engine.dispatcher.state.get("e0")
    assert state.signals.waiting == 3
    runtime.reading.forget_stale(gate.clock.now() + 6.0)
    assert state.signals.waiting is None
    assert state.signals.kv_usage is None
    shown = (await gate.get("/workers")).json()["workers"][0]
    assert shown["engine_waiting"] is None, "unknown is not zero"


async def test_debug_signals_and_the_startup_report_say_what_is_given(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(
        backend,
        "http://127.0.0.1:9",
        telemetry={"scrape_interval_s": 0.05, "timeout_s": 1.0},
    )
    reading = gate.relay._rest.state.runtime.reading
    await eventually(lambda: all(r.scrapes for r in reading.scraper.signals_report().values()))
    shown = (await gate.get("/debug/signals")).json()["backends"]
    assert shown["e0"]["failures"] == {"no_signals": shown["e0"]["scrapes"]}
    assert shown["e0"]["missing"][0] == "running"
    assert "no scrape has succeeded yet" in shown["e0"]["notes"][0]
    assert shown["e1"]["failures"]["connect"] >= 1
    lines = reading.lines()
    assert len(lines) == 2
    assert all("own counts only" in line for line in lines)


@pytest.mark.parametrize(
    ("gpu", "told", "same"),
    [
        ("a100-80", "NVIDIA A100-SXM4-80GB", True),
        ("a100-80", "NVIDIA A100-SXM4-40GB", False),
        ("a100-80", "NVIDIA A100", True),
        ("t4", "Tesla T4", True),
        ("v100-32", "Tesla V100-SXM2-32GB", True),
        ("l4", "NVIDIA L40S", False),
        ("h100", "NVIDIA H100 80GB HBM3", True),
        ("a40", "NVIDIA A100-SXM4-40GB", False),
    ],
)
def test_a_card_is_known_by_the_name_its_driver_tells(gpu: str, told: str, same: bool) -> None:
    assert same_card(gpu, told) is same


async def test_another_engine_behind_one_address_is_learned_anew(gateway: StartGateway) -> None:
    first = b'vllm:num_requests_running{model_name="m"} 2.0\nvllm:num_requests_waiting 1.0\n'
    second = first.replace(b'"m"', b'"n"')
    pages = [first, second]
    async with serving(lambda *_: page(pages[0] if len(pages) > 1 else pages[-1])) as (url, _):
        gate = await gateway(url, telemetry={"scrape_interval_s": 3600.0})
        runtime = gate.relay._rest.state.runtime
        state = gate.relay.engine.dispatcher.state.get("e0")
        feedback = runtime.instruments.feedback
        await runtime.reading.scraper.scrape("e0")
        assert state.signals.running == 2
        feedback._backends["e0"].learned = 500
        pages.pop(0)
        await runtime.reading.scraper.scrape("e0")
        assert state.signals.running is None, "a stranger's figures are not believed at once"
        assert feedback.estimates()["e0"].learned == 0
        shown = (await gate.get("/debug/signals")).json()["backends"]["e0"]
        assert "another engine or model" in shown["notes"][-1]


async def test_a_first_token_is_learned_from_while_its_answer_comes(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(events(event({"content": "a"}), then=hang))
    gate = await gateway(backend)
    learning = gate.relay._rest.state.runtime.instruments.feedback._backends["e0"]
    asked = {"model": MODEL, "messages": [{"role": "user", "content": "hi"}], "stream": True}
    _, writer = await gate.ask(json.dumps(asked).encode())
    await eventually(lambda: len(learning.begun) == 1)
    writer.close()
    await eventually(lambda: not learning.begun)


async def test_an_engine_with_less_kv_than_a_request_needs_is_not_asked(
    engine: StartEngine, gateway: StartGateway
) -> None:
    told = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="200"} 1.0\n'
    roomy = await engine(chat())
    body = json.dumps({"model": MODEL, "prompt": "tell " * 4_000}).encode()
    async with serving(lambda *_: page(told)) as (small, _):
        gate = await gateway(
            small, roomy, telemetry={"scrape_interval_s": 3600.0}, policy={"name": "round-robin"}
        )
        await gate.relay._rest.state.runtime.reading.scraper.scrape("e0")
        assert gate.relay.engine.dispatcher.state.get("e0").max_context_tokens == 3_200
        for _ in range(4):
            answered = await gate.post("/v1/completions", body)
            assert answered.headers["x-motley-backend"] == "e1"


async def test_a_kv_size_that_cannot_be_is_shown_and_keeps_nobody_away(
    engine: StartEngine, gateway: StartGateway
) -> None:
    told = 'vllm:cache_config_info{block_size="16",num_gpu_blocks="1"} 1.0\n'
    async with serving(lambda *_: page(told)) as (broken, _):
        gate = await gateway(broken, telemetry={"scrape_interval_s": 3600.0})
        await gate.relay._rest.state.runtime.reading.scraper.scrape("e0")
        assert gate.relay.engine.dispatcher.state.get("e0").max_context_tokens > 100_000
        shown = (await gate.get("/debug/signals")).json()["backends"]["e0"]
        assert "KV cache holds 16 tokens, which is not believed" in shown["notes"][-1]


async def test_a_llama_server_is_read_by_its_own_names(gateway: StartGateway) -> None:
    async with serving(lambda *_: page(expositions.LLAMACPP)) as (url, _):
        gate = await gateway(
            backends=[{"gpu": "a100-80", "engine": "llamacpp", "model": MODEL, "url": url}],
            telemetry={"scrape_interval_s": 3600.0},
        )
        await gate.relay._rest.state.runtime.reading.scraper.scrape("a100-80-0")
        (worker,) = (await gate.get("/workers")).json()["workers"]
        assert (worker["engine"], worker["engine_waiting"]) == ("llamacpp", 1)
        assert gate.relay.engine.dispatcher.state.get("a100-80-0").max_num_seqs == 4
        shown = (await gate.get("/debug/signals")).json()["backends"]["a100-80-0"]
        assert shown["values"]["kv_usage"] == 0.63


async def test_debug_beliefs_say_what_was_learned_and_how_surely(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(stream(["a", "b", "c"], gap_s=0.002)))
    for _ in range(3):
        await gate.post()
    answer = await gate.get("/debug/beliefs")
    belief = answer.json()["backends"]["e0"]
    assert belief["correction"]["prefill"] > 0
    assert belief["learned"]["learned"] >= 1
    assert 0 < belief["learned"]["prefill_deviation"] < 1
    assert belief["iteration"]["cost"]["step_s"] > 0
    assert belief["predictions"]["ttft"]["count"] == 3
    assert "motley_iteration_coefficient_seconds" in (await gate.get("/metrics")).text
