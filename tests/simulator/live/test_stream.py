"""Bytes become an answer: tokens counted by the engine, not by the chunk."""

import pytest

from simulator.live.stream import AnswerError, StreamReader

CHOICE = '"choices":[{"index":0,"text":"w","finish_reason":null}]'
DONE = b"data: [DONE]\n\n"


def event(tokens=None, prompt=7, choice=CHOICE):
    usage = (
        "null" if tokens is None else f'{{"prompt_tokens":{prompt},"completion_tokens":{tokens}}}'
    )
    return f'data: {{{choice},"usage":{usage}}}\n\n'.encode()


def read(*pieces):
    """One answer whose piece number n comes at n seconds."""
    reader = StreamReader(sent_s=0.0)
    for second, piece in enumerate(pieces, start=1):
        reader.feed(piece, float(second))
    return reader.finish()


def test_the_engines_own_count_is_taken():
    answer = read(event(1), event(3), event(4), DONE)
    assert (answer.at_s, answer.tokens) == ([1.0, 2.0, 3.0], [1, 3, 4])
    assert (answer.first_s, answer.last_s, answer.output_tokens) == (1.0, 3.0, 4)
    assert answer.prompt_tokens == 7


def test_chunks_without_a_count_are_spread_over_the_final_one():
    final = b'data: {"choices":[],"usage":{"prompt_tokens":5,"completion_tokens":8}}\n\n'
    answer = read(event(), event(), event(), event(), final + DONE)
    assert answer.tokens == [2, 4, 6, 8]
    assert answer.prompt_tokens == 5


def test_a_chunk_that_brings_no_token_leaves_no_mark():
    role, finish = event(0), event(2)
    answer = read(role, event(1), event(2), finish, DONE)
    assert answer.at_s == [2.0, 3.0]


def test_events_may_be_cut_anywhere():
    whole = event(1) + event(2) + DONE
    for cut in range(1, len(whole)):
        assert read(whole[:cut], whole[cut:]).tokens == [1, 2]


def test_comments_and_windows_line_ends_are_read_over():
    assert read(b": keep-alive\r\n\r\n", event(1).replace(b"\n", b"\r\n"), DONE).tokens == [1]


def test_cached_tokens_are_told():
    usage = '{"prompt_tokens":9,"completion_tokens":1,"prompt_tokens_details":{"cached_tokens":4}}'
    assert read(f'data: {{{CHOICE},"usage":{usage}}}\n\n'.encode(), DONE).cached_tokens == 4


def test_a_stretch_of_an_answer():
    answer = read(event(1), event(2), event(5), event(6), DONE)
    assert answer.between(2.0, 3.0) == ([2.0, 3.0], [2, 5])


@pytest.mark.parametrize(
    ("pieces", "reason"),
    [
        ([event(1)], "cut"),
        ([DONE], "empty"),
        ([b"data: <html>\n\n"], "not_json"),
        ([event(1), b'data: {"error":{"message":"died","code":500}}\n\n', DONE], "in_stream"),
    ],
)
def test_what_is_no_whole_answer_says_why(pieces, reason):
    with pytest.raises(AnswerError) as failed:
        read(*pieces)
    assert failed.value.reason == reason
