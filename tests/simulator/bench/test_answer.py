"""When the first token came, and how many there were: not what chunks and comments pretend."""

from __future__ import annotations

import json
from typing import Any

import pytest

from simulator.bench.answer import AnswerReader, Sample


def event(**fields: Any) -> bytes:
    return b"data: " + json.dumps(fields).encode() + b"\n\n"


def delta(**fields: Any) -> bytes:
    return event(choices=[{"index": 0, "delta": fields}])


DONE = b"data: [DONE]\n\n"


def read(*pieces: tuple[float, bytes]) -> Sample:
    reader = AnswerReader(Sample(due_s=0.0, sent_s=0.0))
    for at_s, piece in pieces:
        reader.feed(piece, at_s)
    return reader.finish()


def test_a_role_a_comment_and_a_usage_chunk_are_no_tokens() -> None:
    sample = read(
        (0.1, delta(role="assistant", content="")),
        (0.2, b": keep-alive\n\n"),
        (0.5, delta(content="a")),
        (0.6, delta(content="b")),
        (0.9, event(choices=[{"index": 0, "delta": {}, "finish_reason": "stop"}])),
        (1.0, event(choices=[], usage={"prompt_tokens": 7, "completion_tokens": 5})),
        (1.1, DONE),
    )
    assert (sample.ttft_s, sample.e2e_s) == (0.5, 0.6)
    assert (sample.input_tokens, sample.output_tokens, sample.counted) == (7, 5, True)
    assert sample.gaps_s == pytest.approx([0.1])
    assert sample.tpot_s == pytest.approx(0.1 / 4)


def test_reasoning_and_tool_calls_are_content_and_null_is_not() -> None:
    assert read((0.3, delta(reasoning_content="hm")), (0.4, DONE)).ttft_s == 0.3
    calls = [{"index": 0, "function": {"arguments": "{"}}]
    assert read((0.3, delta(tool_calls=calls)), (0.4, DONE)).ttft_s == 0.3
    nothing = delta(content=None, tool_calls=None, reasoning_content=None)
    assert read((0.3, nothing), (0.4, DONE)).error.startswith("empty")


def test_completions_have_texts() -> None:
    sample = read(
        (0.2, event(choices=[{"text": ""}])),
        (0.3, event(choices=[{"text": "a"}])),
        (0.4, DONE),
    )
    assert sample.ttft_s == 0.3
    assert (sample.output_tokens, sample.counted) == (1, False)


def test_events_may_come_in_any_pieces() -> None:
    whole = delta(content="a") + delta(content="b") + DONE
    sample = read(*((0.01 * i, whole[i : i + 1]) for i in range(len(whole))))
    assert sample.ok
    assert sample.output_tokens == 2


@pytest.mark.parametrize(
    ("pieces", "error"),
    [
        ([delta(content="a")], "cut"),
        ([delta(content="a"), event(error={"message": "full", "code": 503}), DONE], "in stream"),
        ([b"data: {nonsense\n\n", DONE], "garbage"),
        ([DONE], "empty"),
        ([], "cut"),
    ],
)
def test_what_is_no_answer_is_told_apart(pieces: list[bytes], error: str) -> None:
    sample = read(*((0.1, piece) for piece in pieces))
    assert not sample.ok
    assert sample.error.split(":")[0] == error
