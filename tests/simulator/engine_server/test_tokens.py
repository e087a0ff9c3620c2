"""The emulated tokenizer: its rules are the manual of what a client will count."""

import math
import statistics

import pytest

from simulator.engine_server.tokens import (
    LengthRule,
    count_tokens,
    from_token_ids,
    prefix_hashes,
    token_ids,
    words,
)


@pytest.mark.parametrize(("text", "tokens"), [(b"", 1), (b"a", 1), (b"abcd", 1), (b"abcde", 2)])
def test_a_prompt_has_a_token_for_every_four_bytes(text, tokens):
    assert count_tokens(text) == tokens


def test_a_tokenized_text_reads_the_same_again():
    text = "Grüße, 世界! and a tail"
    ids = token_ids(text.encode())
    assert len(ids) == count_tokens(text.encode())
    assert from_token_ids(ids) == text


def test_every_token_says_which_one_it_is():
    pieces = [words(i, i + 1) for i in range(12)]
    assert "".join(pieces) == words(0, 12)
    assert words(0, 12).split(" ") == [f"w{i}" for i in range(12)]


def test_prompts_share_hashes_exactly_as_far_as_they_share_blocks_of_64_bytes():
    common = b"s" * 128
    one, other = prefix_hashes(common + b"a" * 100), prefix_hashes(common + b"b" * 100)
    assert len(one) == (128 + 100) // 64
    assert one[:2] == other[:2]
    assert one[2] != other[2]


def test_a_block_is_told_apart_by_what_came_before_it():
    first, second = prefix_hashes(b"x" * 128)
    assert first != second


def test_the_same_request_gets_the_same_length_and_another_seed_another():
    rule = LengthRule()
    assert rule.draw(b"prompt", 1) == rule.draw(b"prompt", 1)
    assert len({rule.draw(b"prompt", seed) for seed in range(20)}) > 10


def test_lengths_are_log_normal():
    rule = LengthRule(median_tokens=128, sigma=0.8)
    drawn = [math.log(rule.draw(b"%d" % i, 0)) for i in range(4000)]
    # Standard error of a mean of 4000 with sigma 0.8 is 0.0126; of the deviation 0.009.
    assert statistics.mean(drawn) == pytest.approx(math.log(128), abs=4 * 0.0126)
    assert statistics.stdev(drawn) == pytest.approx(0.8, abs=4 * 0.009)


def test_no_spread_means_the_median_every_time():
    rule = LengthRule(median_tokens=7, sigma=0)
    assert {rule.draw(b"%d" % i, 0) for i in range(50)} == {7}
