"""Whether what the router believes to be cached is believed in turn."""

from __future__ import annotations

import pytest

from router.policies.prefix_trust import PrefixTrust


def test_it_follows_what_the_engine_found():
    trust = PrefixTrust(keeps=True)
    assert trust.share == 1.0
    trust.judge(1_000, 500)
    assert trust.share == pytest.approx(0.75)  # the first word counts half
    trust.judge(1_000, 5_000)  # more than promised is no more than all
    assert trust.share == pytest.approx(0.75 + 0.25 / 3)


def test_later_words_count_a_tenth():
    trust = PrefixTrust(keeps=True)
    for _ in range(20):
        trust.judge(1_000, 1_000)
    trust.judge(1_000, 500)
    assert trust.share == pytest.approx(0.95)


def test_an_engine_that_keeps_no_prompts_is_trusted_once_it_shows_that_it_does():
    trust = PrefixTrust(keeps=False)
    assert trust.share == 0.0
    trust.judge(1_000, 1_000)
    assert trust.share == pytest.approx(0.5)
