"""Counting in passing: chunks, progress, usage, the end of a stream."""

from __future__ import annotations

import pytest

from router.gateway.tally import Tally, Usage, finish_reason_in, first_event, usage_in

ROLE = b'data: {"choices":[{"delta":{"role":"assistant","content":""}}]}\n\n'
TOKEN = b'data: {"choices":[{"delta":{"content":"a"}}],"usage":null}\n\n'
USAGE = (
    b'data: {"choices":[],"usage":{"prompt_tokens":7,"total_tokens":13,"completion_tokens":6}}\n\n'
)
DONE = b"data: [DONE]\n\n"
COMMENT = b": keep-alive\n\n"


def watch(*reads: bytes, events: bool = True) -> Tally:
    tally = Tally(events=events)
    for read in reads:
        tally.see(read)
    return tally


def test_the_engines_count_wins_over_the_chunks() -> None:
    """Real engines send 119 to 125 chunks for 128 tokens: never count chunks as tokens."""
    tally = watch(ROLE, TOKEN, TOKEN, USAGE, DONE)
    usage = tally.end().usage
    assert usage is not None
    assert (usage.prompt, usage.output) == (7, 6)
    assert tally.output_tokens(usage) == 6


def test_without_usage_the_events_count_less_role_and_done() -> None:
    tally = watch(ROLE, TOKEN + TOKEN, TOKEN, DONE)
    assert tally.end().usage is None
    assert tally.output_tokens(None) == 3


def test_a_stream_that_has_only_begun_counts_one() -> None:
    assert watch(ROLE).output_tokens(None) == 1
    assert watch().output_tokens(None) == 0


@pytest.mark.parametrize(
    ("event", "in_error"),
    [
        (b'data: {"error": {"message": "dead"}}\n\n', True),
        (b'event: error\ndata: {"type": "error", "error": {}}\n\n', True),
        (b'event: response.failed\ndata: {"type": "response.failed"}\n\n', True),
        (b'event: response.completed\ndata: {"type": "response.completed"}\n\n', False),
        (b'data: {"choices":[{"delta":{"content":"\\nevent: error\\n"}}]}\n\n', False),
    ],
)
def test_an_answer_that_ends_in_an_error_is_no_success(event: bytes, in_error: bool) -> None:
    assert watch(TOKEN, event, DONE).end().in_error is in_error
    assert watch(event).end().in_error is in_error


def test_usage_split_over_two_reads_is_found() -> None:
    assert watch(ROLE, TOKEN, USAGE[:40], USAGE[40:], DONE).end().usage == usage_in(USAGE)


def test_continuous_usage_counts_by_its_last_word() -> None:
    first = USAGE.replace(b'"completion_tokens":6', b'"completion_tokens":1')
    usage = watch(first, USAGE, DONE).end().usage
    assert usage is not None
    assert usage.output == 6


def test_usage_null_in_the_last_chunk_does_not_hide_the_real_one() -> None:
    assert watch(USAGE, TOKEN, DONE).end().usage == usage_in(USAGE)


@pytest.mark.parametrize(
    ("tail", "prompt", "output", "cached"),
    [
        (
            b'{"usage":{"prompt_tokens":3,"total_tokens":7,"completion_tokens":4},"x":{}}',
            3,
            4,
            None,
        ),
        (b'{"usage": {"input_tokens": 5, "output_tokens": 2}}', 5, 2, None),
        (
            b'"usage":{"prompt_tokens":9,"completion_tokens":1,'
            b'"prompt_tokens_details":{"cached_tokens":8}}}',
            9,
            1,
            8,
        ),
        (b'"usage":{"prompt_tokens":9,"prompt_tokens_details":null}', 9, None, None),
    ],
)
def test_usage_of_every_dialect(
    tail: bytes, prompt: int, output: int | None, cached: int | None
) -> None:
    usage = usage_in(tail)
    assert usage is not None
    assert (usage.prompt, usage.output, usage.cached) == (prompt, output, cached)


@pytest.mark.parametrize(
    "tail",
    [
        b"",
        b'{"usage":null}',
        b'"content":"\\"usage\\":{\\"prompt_tokens\\":1}"',
        b'"usage":{"prompt_tokens":1',
        b'"usage":{"prompt_tokens":"many"}',
        b'"usage":{prompt}',
        b'"usage",{"prompt_tokens":1}',
    ],
)
def test_what_is_no_usage(tail: bytes) -> None:
    assert usage_in(tail) is None


def test_comments_are_no_progress() -> None:
    tally = Tally(events=True)
    assert not tally.see(COMMENT)
    assert not tally.see(COMMENT + COMMENT)
    assert tally.see(ROLE)
    assert tally.see(COMMENT + TOKEN)
    assert tally.see(b'the rest of an event"}\n\n')


def test_of_a_plain_answer_everything_is_progress() -> None:
    assert Tally(events=False).see(b": x")


def test_an_engine_that_dies_says_so_in_the_stream() -> None:
    died = b'data: {"error": {"message": "EngineCore encountered an issue.", "code": 500}}\n\n'
    assert watch(ROLE, TOKEN, died, DONE).end().in_error
    assert watch(ROLE, TOKEN, died + DONE).end().in_error
    assert watch(died).end().in_error
    assert not watch(ROLE, TOKEN, DONE).end().in_error
    assert not watch(b'{"error": 1}', events=False).end().in_error


def test_an_answer_that_the_engine_cut_short_is_no_complete_one() -> None:
    """vLLM 0.32 on SIGTERM: HTTP 200, ``abort``, ``[DONE]``, as if all were well."""
    cut = b'data: {"choices":[{"delta":{"content":"a"},"finish_reason":"abort"}]}\n\n'
    assert watch(ROLE, TOKEN, cut, DONE).end().in_error
    assert not watch(ROLE, TOKEN, cut.replace(b"abort", b"length"), DONE).end().in_error
    whole = b'{"choices":[{"message":{"content":"a"},"finish_reason":"abort"}]}'
    assert watch(whole, events=False).end().in_error


def test_an_event_can_be_appended_only_after_a_whole_one() -> None:
    assert watch(ROLE).at_event_boundary()
    assert watch(b"data: x\r\n\r\n").at_event_boundary()
    assert not watch(ROLE, TOKEN[:20]).at_event_boundary()
    assert not watch(b"{}\n\n", events=False).at_event_boundary()
    assert not watch().at_event_boundary()


@pytest.mark.parametrize(
    ("held", "expected"),
    [
        (b"", b""),
        (b"data: a", b""),
        (b"data: a\n\nrest", b"data: a"),
        (b"data: a\r\n\r\ndata: b\n\n", b"data: a"),
        (COMMENT, b""),
        (COMMENT + b"data: a\n\n", b"data: a"),
        (b"event: x\ndata: a\n\n", b"data: a"),
    ],
)
def test_the_first_event(held: bytes, expected: bytes) -> None:
    assert first_event(held) == expected


def test_at_the_end_the_blank_line_may_be_missing() -> None:
    assert first_event(b"data: a", at_end=True) == b"data: a"
    assert first_event(COMMENT, at_end=True) == b""


def test_usage_is_a_plain_struct() -> None:
    assert Usage().prompt is None
    assert Usage().cached is None


@pytest.mark.parametrize(
    ("tail", "reason"),
    [
        (b'{"choices":[{"finish_reason":"stop"}]}', "stop"),
        (b'{"choices":[{"finish_reason" : "length", "x": 1}]}', "length"),
        (b'"finish_reason":"tool_calls"}]}\n\ndata: {"finish_reason":null}', "tool_calls"),
        (b'{"stop_reason":"end_turn"}', "end_turn"),
        (b'{"content":"\\"finish_reason\\":\\"stop\\""}', ""),
        (b'{"finish_reason":null}', ""),
        (b'reason"', ""),
        (b"", ""),
    ],
)
def test_the_finish_reason_is_the_last_one_told(tail: bytes, reason: str) -> None:
    assert finish_reason_in(tail) == reason
