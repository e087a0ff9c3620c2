"""Load figures in a response header."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.domain.state import EngineSignals
from telemetry.engine_metrics import SIGNALS
from telemetry.exposition import Problems
from telemetry.orca import parse_orca


@pytest.mark.parametrize(
    "header",
    [
        "TEXT named_metrics.kv_cache_usage_perc=0.4, named_metrics.num_requests_waiting=3.0",
        'JSON {"named_metrics": {"kv_cache_usage_perc": 0.4, "num_requests_waiting": 3.0}}',
    ],
)
def test_vllm_in_both_formats(header: str) -> None:
    assert parse_orca(header, 2.0) == EngineSignals(2.0, waiting=3, kv_usage=0.4)


def test_triton() -> None:
    header = "TEXT named_metrics.kv_cache_utilization=0.25, named_metrics.max_token_capacity=81920"
    assert parse_orca(header, 2.0) == EngineSignals(2.0, kv_usage=0.25, kv_capacity_tokens=81920)


@pytest.mark.parametrize(
    "header",
    ["", "TEXT", "JSON", "JSON [1]", "TEXT cpu_utilization=0.5", "XML <a/>", "TEXT a=b=c,,=,"],
)
def test_what_says_nothing_is_none(header: str) -> None:
    assert parse_orca(header, 2.0) is None


def test_bad_values_are_counted_and_unknown() -> None:
    problems = Problems()
    header = "TEXT named_metrics.kv_cache_usage_perc=nan, named_metrics.num_requests_waiting=-1"
    assert parse_orca(header, 2.0, problems) is None
    assert problems.counts == {"nan": 1, "negative": 1}
    assert parse_orca("TEXT " + "x" * 10_000, 2.0, problems) is None
    assert problems.counts["too_large"] == 1


@given(st.sampled_from(["TEXT ", "JSON ", ""]), st.text(max_size=60))
def test_nothing_raises(kind: str, rest: str) -> None:
    body = rest if kind == "" else kind + "named_metrics.num_requests_waiting=" + rest
    signals = parse_orca(body, 0.0)
    assert signals is None or all((getattr(signals, name) or 0) >= 0 for name in SIGNALS)
