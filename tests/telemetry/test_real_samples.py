"""Real scrapes of vLLM 0.32 and SGLang 0.5.23, read like a full parser reads them."""

from __future__ import annotations

import pytest
from prometheus_client.parser import text_string_to_metric_families

from telemetry.engine_metrics import read
from telemetry.exposition import Exposition, Problems
from telemetry.sglang_loads import read_loads
from tests.telemetry.expositions import shared


@pytest.mark.parametrize(
    ("file", "engine", "capacity"),
    [("vllm_metrics.txt", "vllm", 4194304), ("sglang_metrics.txt", "sglang", 16384)],
)
def test_a_real_scrape_gives_what_the_engine_has(file: str, engine: str, capacity: int) -> None:
    problems = Problems()
    reading = read(shared(file), engine, 1.0, problems)
    assert reading.engine == engine
    assert reading.signals.running == 0
    assert reading.signals.waiting == 0
    assert reading.signals.kv_usage == 0.0
    assert reading.signals.kv_capacity_tokens == capacity
    assert problems.counts == {}


def test_the_hit_ratio_comes_from_the_counters() -> None:
    vllm = read(shared("vllm_metrics.txt"), "vllm", 1.0).signals
    sglang = read(shared("sglang_metrics.txt"), "sglang", 1.0).signals
    assert vllm.prefix_hit_ratio == 0.0  # 0 of 86 tokens
    assert sglang.prefix_hit_ratio == pytest.approx(88 / (88 + 45))


@pytest.mark.parametrize("file", ["vllm_metrics.txt", "sglang_metrics.txt"])
def test_every_family_reads_as_in_the_full_parser(file: str) -> None:
    """Except what has no business in a decision: NaN, and ``_created`` times are kept apart."""
    raw = shared(file)
    expo = Exposition(raw, Problems())
    compared = 0
    for family in text_string_to_metric_families(raw.decode()):
        for name in {sample.name for sample in family.samples}:
            theirs = {
                frozenset(s.labels.items()): s.value
                for s in family.samples
                if s.name == name and s.value >= 0
            }
            ours = {frozenset(s.labels.items()): s.value for s in expo.series(name)}
            if name.endswith(("_bucket", "_count", "_sum")):
                continue  # a histogram's parts are interleaved; nobody here asks for them
            assert ours == theirs, name
            compared += len(theirs)
    assert compared > 80


def test_the_real_loads_answer() -> None:
    body = shared("sglang/get_v1_loads.txt").partition(b"\r\n\r\n")[2].partition(b"\n\n##")[0]
    reading = read_loads(body, 1.0)
    assert reading.signals.kv_capacity_tokens == 16384
    assert reading.signals.running == 0
    assert reading.accelerator == ""  # a CPU
