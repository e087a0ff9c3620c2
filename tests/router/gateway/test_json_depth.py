"""The nesting of a body is counted right wherever it is cut into pieces, and cheaply."""

from __future__ import annotations

import json
import time
from collections.abc import Callable

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from router.gateway import json_depth
from router.gateway.json_depth import deeper_than

texts = st.text(alphabet='{}[]"\\/aé\n', max_size=6)
documents = st.recursive(
    st.none() | st.integers() | texts,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(texts, inner, max_size=4),
    max_leaves=40,
)


def depth_of(document: object) -> int:
    if isinstance(document, dict):
        return 1 + max(map(depth_of, document.values()), default=0)
    if isinstance(document, list):
        return 1 + max(map(depth_of, document), default=0)
    return 0


@given(documents, st.integers(1, 12), st.booleans())
def test_depth_is_what_a_reader_of_json_finds(
    document: object, piece_bytes: int, ascii_only: bool
) -> None:
    body = json.dumps(document, ensure_ascii=ascii_only).encode()
    depth = depth_of(document)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(json_depth, "PIECE_BYTES", piece_bytes)
        assert [deeper_than(body, depth + more) for more in (-1, 0, 1)] == [True, False, False]


@pytest.mark.parametrize("width", [1, 7, 8, 9, 64, 255])
def test_deep_valleys_count_as_well(width: int) -> None:
    """Long runs are taken as one step, and small ways down and up are left out."""
    valleys = b"[" * 2 + b",".join([b"[" * width + b"]" * width] * 9) + b"]" * 2
    body = b'[{"a":1},' * 3 + valleys + b"]" * 3
    assert not deeper_than(body, width + 5)
    assert deeper_than(body, width + 4)


def cpu_s(work: Callable[[], object]) -> float:
    def once() -> float:
        start = time.process_time()
        work()
        return time.process_time() - start

    return min(once() for _ in range(3))


@pytest.mark.parametrize("item", [b'{"a":1},', b'{"{":1},', b"[" * 250 + b"]" * 250 + b","])
def test_a_long_body_is_looked_through_in_the_time_of_a_few_readings(item: bytes) -> None:
    """Nothing else is served meanwhile: it took as long as thirty."""
    body = b'{"model":"m","messages":[' + item * (4_000_000 // len(item)) + b"0]}"
    read_s = cpu_s(lambda: msgspec.json.decode(body, type=msgspec.Raw))
    assert cpu_s(lambda: deeper_than(body, 256)) < 12 * max(read_s, 0.005)
