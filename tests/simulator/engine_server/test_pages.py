"""What an engine tells about itself: metrics, loads, versions, health."""

import json
import re

import pytest
from prometheus_client.parser import text_string_to_metric_families

from telemetry.engine_metrics import parse
from tests.simulator.engine_server.samples import SAMPLES, need_samples
from tests.simulator.engine_server.still_loop import Bench, settle
from tests.simulator.engine_server.test_app import CHAT, chat

engines = pytest.mark.parametrize("engine", ["vllm", "sglang"])


async def busy(engine, **fields):
    """An engine in the middle of two requests, of which it runs one."""
    bench = Bench(engine, max_num_seqs=1, **fields)
    for content in ("a" * 4000, "b" * 4000):
        bench.open("POST", CHAT, chat(content, stream=True, max_tokens=500, ignore_eos=True))
        await settle()
    bench.loop.move(1.0)
    await settle()
    return bench


async def page(bench, path):
    """A page, without letting time pass."""
    exchange = bench.open("GET", path)
    await settle()
    assert exchange.status == 200
    return exchange


@engines
async def test_a_scraper_reads_the_engines_state(engine):
    bench = await busy(engine)
    facts = bench.app.facts
    signals = parse((await page(bench, "/metrics")).body, engine, observed_s=1.0)
    assert (signals.running, signals.waiting) == (1, 1)
    assert 1000 < signals.kv_usage * facts.kv_capacity_tokens < 1300
    assert signals.kv_capacity_tokens == facts.kv_capacity_tokens
    assert signals.preemptions == 0


@engines
async def test_a_scraper_reads_an_idle_engine(engine):
    bench = Bench(engine)
    signals = parse((await bench.ask("GET", "/metrics")).body, engine, observed_s=1.0)
    assert (signals.running, signals.waiting, signals.kv_usage) == (0, 0, 0.0)


@engines
async def test_a_scraper_reads_the_prefix_hit_ratio(engine):
    bench = Bench(engine)
    for _ in range(2):
        await bench.ask("POST", CHAT, chat("q" * 6400, max_tokens=1))
    signals = parse((await bench.ask("GET", "/metrics")).body, engine, observed_s=1.0)
    assert signals.prefix_hit_ratio == pytest.approx(0.5, abs=0.02)


@engines
async def test_every_metric_is_one_of_the_real_engines_with_its_type_and_labels(engine):
    need_samples()
    real = families((SAMPLES / f"{engine}_metrics.txt").read_text())
    in_use_only = (SAMPLES / "sglang_metric_names_from_source.txt").read_text().split()
    told = families((await page(await busy(engine), "/metrics")).body)
    assert len(told) > 15
    for name, (kind, labels) in told.items():
        if name not in real:
            assert f"{name}_total" in in_use_only, name
        elif name == "vllm:cache_config_info":
            assert labels <= real[name][1]
        else:
            assert (kind, labels) == real[name], name


def families(text):
    """Type and label names by family."""
    found = {}
    for family in text_string_to_metric_families(text):
        labels = {frozenset(s.labels) - {"le"} for s in family.samples}
        if labels and not family.name.endswith("_created"):
            found[family.name] = (family.type, max(labels, key=len))
    return found


@engines
async def test_histograms_have_the_real_engines_buckets(engine):
    need_samples()
    real, told = (
        {m: re.findall(f'{engine}:{m}_seconds_bucket.*?le="([^"]*)"', text) for m in MEASURED}
        for text in (
            (SAMPLES / f"{engine}_metrics.txt").read_text(),
            (await page(await busy(engine), "/metrics")).body,
        )
    )
    for name in MEASURED:
        assert told[name] == real[name], name


MEASURED = (
    "time_to_first_token",
    "inter_token_latency",
    "request_time_per_output_token",
    "e2e_request_latency",
)


@engines
async def test_content_types_of_the_metrics_differ(engine):
    answer = await Bench(engine).ask("GET", "/metrics")
    version = {"vllm": b"1.0.0", "sglang": b"0.0.4"}[engine]
    assert answer.headers[b"content-type"] == b"text/plain; version=%b; charset=utf-8" % version


@engines
async def test_the_model_list_tells_the_context(engine):
    bench = Bench(engine, max_model_len=5000)
    listed = json.loads((await bench.ask("GET", "/v1/models")).body)
    assert [(m["id"], m["max_model_len"]) for m in listed["data"]] == [("llama-3.1-8b", 5000)]


async def test_vllms_own_pages():
    bench = await busy("vllm", engine_version="0.18.1")
    assert json.loads((await page(bench, "/version")).body) == {"version": "0.18.1"}
    assert json.loads((await page(bench, "/load")).body) == {"server_load": 2}
    assert (await page(bench, "/health")).body == ""


async def test_vllm_is_healthy_though_it_hangs():
    bench = Bench("vllm")
    bench.app.driver.hang()
    assert (await bench.ask("GET", "/health")).status == 200


async def test_sglangs_loads():
    bench = await busy("sglang")
    rank = json.loads((await page(bench, "/v1/loads")).body)["loads"][0]
    assert (rank["num_running_reqs"], rank["num_waiting_reqs"]) == (1, 1)
    assert rank["token_usage"] == pytest.approx(rank["num_used_tokens"] / 418_230, rel=1e-3)


async def test_sglangs_pages_have_only_fields_of_the_real_engine():
    need_samples()
    bench = Bench("sglang")
    for path, sample in [
        ("/v1/loads", "get_v1_loads"),
        ("/get_server_info", "get_server_info"),
        ("/model_info", "get_model_info"),
    ]:
        _, _, real = (SAMPLES / f"sglang/{sample}.txt").read_text().partition("\n\n")
        real = json.loads(real.split("\n## ")[0])
        told = json.loads((await page(bench, path)).body)
        assert set(told) <= set(real)
        if "loads" in told:
            assert set(told["loads"][0]) <= set(real["loads"][0])


async def test_sglangs_health_takes_a_second_of_its_time():
    bench = Bench("sglang", speed=1000.0)
    assert (await bench.ask("GET", "/ready")).status == 200
    health = bench.open("GET", "/health")
    await health.task
    assert health.status == 200
    bench.app.driver.hang()
    assert (await bench.ask("GET", "/ready")).status == 503
    health = bench.open("GET", "/health_generate")
    await health.task
    assert health.status == 503


async def test_what_the_other_engine_has_is_not_found():
    for engine, foreign in [("vllm", "/v1/loads"), ("sglang", "/version"), ("sglang", "/load")]:
        assert (await Bench(engine).ask("GET", foreign)).status == 404
