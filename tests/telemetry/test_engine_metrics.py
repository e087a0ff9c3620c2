"""One row of figures, whatever the engine and its age."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from router.domain.state import EngineSignals
from telemetry.engine_metrics import SIGNALS, parse, read
from telemetry.exposition import Problems
from tests.telemetry import expositions as text


def test_vllm_v0_names() -> None:
    """The V100s of the fleet: swapped requests wait; a hit rate of -1 means no prefix cache."""
    assert parse(text.VLLM_V0, "vllm", 5.0) == EngineSignals(
        observed_s=5.0,
        running=7,
        waiting=3 + 2,
        kv_usage=0.42,
        kv_capacity_tokens=1000 * 16,
        prefix_hit_ratio=None,
        preemptions=11,
    )


def test_vllm_transitional_names() -> None:
    assert parse(text.VLLM_TRANSITIONAL, "vllm", 5.0) == EngineSignals(
        observed_s=5.0,
        running=4,
        waiting=1,
        kv_usage=0.25,
        prefix_hit_ratio=0.25,
        preemptions=0,
    )


def test_vllm_current_names() -> None:
    reading = read(text.VLLM_V1, "vllm", 5.0)
    assert reading.signals == EngineSignals(
        observed_s=5.0,
        running=12,
        waiting=5,
        kv_usage=0.5,
        kv_capacity_tokens=4096,
        prefix_hit_ratio=0.25,
        preemptions=2,
    )
    assert reading.waiting_by_reason == {"capacity": 4, "deferred": 1}
    assert reading.model == "m"
    assert reading.started_s == 1.79520897632e9


@pytest.mark.parametrize("exposition", [text.SGLANG, text.SGLANG_UNDERSCORE])
def test_sglang_under_both_prefixes(exposition: str) -> None:
    """The series of the empty priority is the total: adding the others would count twice."""
    assert parse(exposition, "sglang", 5.0) == EngineSignals(
        observed_s=5.0,
        running=6,
        waiting=3 + 1,
        kv_usage=0.75,
        kv_capacity_tokens=16384,
        prefix_hit_ratio=0.4,  # 40 of 100 prompt tokens, not the last batch's 0.9
        preemptions=8,
        gen_tokens_per_s=321.5,
    )


def test_priorities_without_their_total_are_unknown() -> None:
    problems = Problems()
    without = "\n".join(x for x in text.SGLANG.splitlines() if 'priority=""' not in x) + "\n"
    signals = parse(without, "sglang", 5.0, problems)
    assert signals.running is None
    assert signals.kv_usage == 0.75
    assert problems.counts["no_total"] == 2


def test_llamacpp_tgi_and_triton() -> None:
    assert parse(text.LLAMACPP, "llamacpp", 5.0) == EngineSignals(
        5.0, running=2, waiting=1, kv_usage=0.63
    )
    newer = read(text.LLAMACPP_10434, "llamacpp", 5.0)
    assert newer.signals == EngineSignals(5.0, running=2, waiting=1, prefix_hit_ratio=0.75)
    assert (newer.prefix_hits, newer.prefix_queries) == (66.0, 88.0)
    assert parse(text.TGI, "tgi", 5.0) == EngineSignals(5.0, running=8, waiting=7)
    assert parse(text.TRITON, "trtllm", 5.0) == EngineSignals(
        5.0, running=9, waiting=4, kv_usage=0.2, kv_capacity_tokens=6400
    )


def test_data_parallel_ranks_add_up_and_shares_average() -> None:
    exposition = (
        'vllm:num_requests_running{engine="0"} 3\nvllm:num_requests_running{engine="1"} 5\n'
        'vllm:kv_cache_usage_perc{engine="0"} 0.2\nvllm:kv_cache_usage_perc{engine="1"} 0.6\n'
    )
    signals = parse(exposition, "vllm", 0.0)
    assert signals.running == 8
    assert signals.kv_usage == pytest.approx(0.4)


def test_tensor_parallel_ranks_are_copies() -> None:
    exposition = (
        'sglang:num_running_reqs{tp_rank="0"} 3\nsglang:num_running_reqs{tp_rank="1"} 3\n'
        'sglang:token_usage{tp_rank="0"} 0.5\nsglang:token_usage{tp_rank="1"} 0.5\n'
    )
    signals = parse(exposition, "sglang", 0.0)
    assert (signals.running, signals.kv_usage) == (3, 0.5)


def test_an_engine_that_is_not_the_configured_one_is_read_all_the_same() -> None:
    reading = read(text.SGLANG, "vllm", 0.0)
    assert reading.engine == "sglang"
    assert reading.signals.running == 6


@pytest.mark.parametrize(
    "name", ["running", "waiting", "kv_usage", "kv_capacity_tokens", "preemptions"]
)
def test_a_missing_gauge_is_unknown_and_never_zero(name: str) -> None:
    gone = {
        "running": "num_requests_running",
        "waiting": "num_requests_waiting",
        "kv_usage": "kv_cache_usage_perc",
        "kv_capacity_tokens": "cache_config_info",
        "preemptions": "num_preemptions_total",
    }[name]
    kept = "".join(line for line in text.VLLM_V1.splitlines(True) if gone not in line)
    assert getattr(parse(kept, "vllm", 0.0), name) is None


def test_absurd_values_are_unknown_and_counted() -> None:
    problems = Problems()
    exposition = (
        "vllm:num_requests_running 1e300\nvllm:num_requests_waiting NaN\n"
        "vllm:kv_cache_usage_perc 42\n"
    )
    assert parse(exposition, "vllm", 1.0, problems) == EngineSignals(1.0)
    assert problems.counts == {"out_of_range": 2, "nan": 1}


def test_a_hair_over_full_is_full() -> None:
    assert parse("sglang:token_usage 1.01\n", "sglang", 0.0).kv_usage == 1.0


def test_no_lookups_yet_is_no_ratio() -> None:
    zero = "vllm:prefix_cache_queries_total 0\nvllm:prefix_cache_hits_total 0\n"
    assert parse(zero, "vllm", 0.0).prefix_hit_ratio is None


def test_a_web_page_says_nothing() -> None:
    reading = read("<html>vllm:num_requests_running 3</html>\n", "vllm", 0.0)
    assert reading.known == ()
    assert reading.engine == ""


WORDS = sorted({word for group in text.EVERY.values() for x in group for word in x.split()})


@settings(max_examples=300)
@given(
    st.lists(st.one_of(st.sampled_from(WORDS), st.text(max_size=8)), max_size=40),
    st.sampled_from([" ", "\n", "\n\n"]),
    st.sampled_from(["vllm", "sglang", "tgi", "trtllm", "llamacpp", "?"]),
)
def test_nothing_raises_and_every_figure_is_sane(words: list[str], glue: str, engine: str) -> None:
    signals = parse(glue.join(words) + "\n", engine, 3.0)
    assert signals.observed_s == 3.0
    for name in SIGNALS:
        value = getattr(signals, name)
        assert value is None or value >= 0
    for name in ("kv_usage", "prefix_hit_ratio"):
        value = getattr(signals, name)
        assert value is None or value <= 1.0


@given(st.sampled_from(sorted(text.EVERY)), st.data())
def test_a_text_cut_anywhere_gives_true_figures_or_none(engine: str, data: st.DataObject) -> None:
    """A cut must never turn 12 into 1: what is known of the cut text is known of the whole."""
    whole = data.draw(st.sampled_from(text.EVERY[engine]))
    cut = whole[: data.draw(st.integers(0, len(whole)))]
    told, truth = parse(cut, engine, 0.0), parse(whole, engine, 0.0)
    assert told.kv_usage in (None, truth.kv_usage)
    if engine == "vllm":
        assert told.running in (None, truth.running)
        assert told.preemptions in (None, truth.preemptions)
