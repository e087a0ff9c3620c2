"""SGLang's JSON load page."""

from __future__ import annotations

import json

from hypothesis import given
from hypothesis import strategies as st

from router.domain.state import EngineSignals
from telemetry.engine_metrics import SIGNALS
from telemetry.exposition import MAX_BYTES, Problems
from telemetry.sglang_loads import read_loads
from tests.telemetry.expositions import LOADS


def test_one_rank() -> None:
    reading = read_loads(LOADS, 5.0)
    assert reading.signals == EngineSignals(
        observed_s=5.0,
        running=3,
        waiting=2,
        kv_usage=0.25,
        kv_capacity_tokens=16384,
        prefix_hit_ratio=0.5,
        gen_tokens_per_s=12.5,
    )
    assert reading.accelerator == "NVIDIA A100-SXM4-80GB"


def test_ranks_add_up() -> None:
    one = json.loads(LOADS)
    two = {**one, "loads": [one["loads"][0], {**one["loads"][0], "token_usage": 0.75}]}
    signals = read_loads(json.dumps(two), 0.0).signals
    assert (signals.running, signals.waiting, signals.kv_usage) == (6, 4, 0.5)
    assert signals.kv_capacity_tokens == 2 * 16384


def test_a_rank_that_does_not_tell_makes_the_total_unknown() -> None:
    one = json.loads(LOADS)
    silent = {"dp_rank": 1, "num_waiting_reqs": 1}
    signals = read_loads(json.dumps({**one, "loads": [one["loads"][0], silent]}), 0.0).signals
    assert signals.running is None
    assert signals.waiting == 3


def test_bad_documents_are_counted() -> None:
    problems = Problems()
    for body in ("", "[]", "{}", '{"loads": 3}', "<html>", b"\xff\xfe", "[" * 100_000):
        assert read_loads(body, 1.0, problems).known == ()
    assert problems.counts == {"not_json": 7}
    assert read_loads("x" * (MAX_BYTES + 1), 1.0, problems).known == ()
    assert problems.counts["too_large"] == 1


def test_bad_values_are_counted() -> None:
    problems = Problems()
    body = '{"loads":[{"num_running_reqs":-1,"num_waiting_reqs":"x","token_usage":3}]}'
    assert read_loads(body, 1.0, problems).known == ()
    assert problems.counts == {"negative": 1, "not_a_number": 1, "out_of_range": 1}


JSON = st.recursive(
    st.one_of(st.none(), st.booleans(), st.integers(), st.floats(), st.text(max_size=5)),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.dictionaries(
            st.sampled_from(["num_running_reqs", "num_waiting_reqs", "token_usage", "x"]), inner
        ),
    ),
    max_leaves=8,
)


@given(JSON)
def test_any_json_is_read_or_refused(load: object) -> None:
    signals = read_loads(json.dumps({"loads": [load, load]}), 0.0).signals
    assert all((getattr(signals, name) or 0) >= 0 for name in SIGNALS)
