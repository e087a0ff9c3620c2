"""Picking series out of text that may be anything."""

from __future__ import annotations

import math

from hypothesis import given
from hypothesis import strategies as st

from telemetry.exposition import MAX_BYTES, Exposition, Problems, checked


def series(text: str | bytes, name: str = "a") -> tuple[list[tuple[dict[str, str], float]], dict]:
    problems = Problems()
    found = Exposition(text, problems).series(name)
    return [(dict(s.labels), s.value) for s in found], dict(problems.counts)


def test_a_series_is_its_labels_and_its_value() -> None:
    assert series('a{x="1",y="2"} 3.5\n') == ([({"x": "1", "y": "2"}, 3.5)], {})
    assert series("a 4\n") == ([({}, 4.0)], {})


def test_a_longer_name_is_another_family() -> None:
    text = 'a_by_reason{r="x"} 1\na 2\na_total 3\n'
    assert series(text) == ([({}, 2.0)], {})


def test_comments_timestamps_and_exemplars_are_passed_over() -> None:
    text = '# HELP a a 9\n# TYPE a gauge\na 1 1795209020\na{b="c"} 2 # {trace="t"} 0.5\n'
    assert series(text)[0] == [({}, 1.0), ({"b": "c"}, 2.0)]


def test_label_values_may_hold_anything_escaped() -> None:
    text = 'a{m="x\\"y\\\\z\\n}{,="} 1\n'
    assert series(text) == ([({"m": 'x"y\\z\n}{,='}, 1.0)], {})


def test_values_that_are_no_measurements_are_counted_and_left_out() -> None:
    text = 'a{k="1"} NaN\na{k="2"} +Inf\na{k="3"} -1\na{k="4"} seven\na{k="5"}\na{k="6"} 6\n'
    found, problems = series(text)
    assert found == [({"k": "6"}, 6.0)]
    assert problems == {
        "nan": 1,
        "infinite": 1,
        "negative": 1,
        "not_a_number": 1,
        "malformed": 1,
    }


def test_a_series_given_twice_counts_once() -> None:
    assert series('a{k="1"} 1\na{k="1"} 2\n') == ([({"k": "1"}, 1.0)], {"duplicate": 1})


def test_a_line_cut_off_in_the_middle_of_a_number_is_not_a_number() -> None:
    assert series("a 1\nb 12\nb 3", "b") == ([({}, 12.0)], {"truncated": 1})


def test_unclosed_labels_are_malformed() -> None:
    assert series('a{k="1 1\n')[1] == {"malformed": 1}
    assert series("a{k=1} 1\n")[1] == {"malformed": 0} or series("a{k=1} 1\n")[0]


def test_a_huge_text_is_cut_and_counted() -> None:
    text = "a 1\n" + "#" * MAX_BYTES + "\n"
    found, problems = series(text)
    assert found == [({}, 1.0)]
    assert problems["too_large"] == 1


@given(st.binary(max_size=400))
def test_no_bytes_raise_or_give_a_negative(data: bytes) -> None:
    for name in ("a", "vllm:num_requests_running"):
        for found in Exposition(b"a{" + data + b"\n" + data, Problems()).series(name):
            assert found.value >= 0.0
            assert math.isfinite(found.value)


@given(
    st.dictionaries(
        st.from_regex(r"[a-z_]{1,8}", fullmatch=True), st.text(max_size=20), max_size=5
    ),
    st.floats(min_value=0, allow_nan=False, allow_infinity=False),
)
def test_what_prometheus_writes_is_read_back(labels: dict[str, str], value: float) -> None:
    escaped = {
        k: v.replace("\\", "\\\\").replace("\n", "\\n").replace('"', '\\"')
        for k, v in labels.items()
    }
    inner = ",".join(f'{k}="{v}"' for k, v in escaped.items())
    found, problems = series(f"a{{{inner}}} {value!r}\n")
    clean = {k: v.encode("utf-8", "replace").decode() for k, v in labels.items()}
    assert found == [(clean, value)]
    assert problems == {}


def test_checked_numbers_stay_within_their_bounds() -> None:
    problems = Problems()
    assert checked("3", problems, most=3) == 3.0
    assert checked(4, problems, most=3) is None
    assert checked(None, problems) is None
    assert checked([1], problems) is None
    assert dict(problems.counts) == {"out_of_range": 1, "not_a_number": 2}
