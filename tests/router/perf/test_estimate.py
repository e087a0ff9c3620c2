"""Predicted TTFT and TPOT, worked out by hand for backends of 10 ms an iteration."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from router.perf.estimate import decode_iteration_s, kv_wait_s, prefill_backlog_s, tpot_s, ttft_s
from tests.fakes import FAST, view


def decoding(n: int, **state: Any) -> dict[str, Any]:
    """n requests decoding with 1,000 tokens of context each and 100 to come."""
    return {
        "in_flight": n,
        "decoding": n,
        "context_tokens": 1_000.0 * n,
        "pending_output_tokens": 50.0 * n,
        **state,
    }


def test_an_iteration_is_a_step_and_the_sequences_and_their_context():
    busy = view(**decoding(4))
    assert decode_iteration_s(busy) == pytest.approx(0.010 + 4 * 0.0002 + 4_000 * 1e-6)
    assert decode_iteration_s(busy, 1, 500) == pytest.approx(0.010 + 5 * 0.0002 + 4_500 * 1e-6)


def test_tpot_counts_the_request_itself_at_half_of_its_output():
    assert tpot_s(view(), 1_000, 200.0) == pytest.approx(0.010 + 0.0002 + 1_100 * 1e-6)


class TestTtft:
    def test_of_an_idle_backend_is_its_prefill_and_its_iterations(self):
        # 4,096 tokens: two chunks and one iteration more.
        assert ttft_s(view(), 4_096, 0.0) == pytest.approx(0.4096 + 3 * 0.010)

    def test_of_nothing_is_one_iteration(self):
        assert ttft_s(view(), 0, 0.0) == pytest.approx(0.010)

    def test_a_cached_prefix_costs_nothing_but_the_attention_to_it(self):
        cost = replace(FAST, pair_s=1e-8)
        # 1,000 fresh tokens that attend to 3,000 cached ones and to each other.
        own = 0.1 + 1e-8 * 1_000 * (3_000 + 500) + (1_000 / 2_048 + 1) * 0.010
        assert ttft_s(view(cost=cost), 4_000, 0.0, cached_tokens=3_000) == pytest.approx(own)

    def test_behind_others_waits_for_half_an_iteration_and_shares_the_rest(self):
        share = 0.010 + 3 * 0.0002 + 3_000 * 1e-6
        expected = 0.5 * share + 0.2048 + 2 * share
        assert ttft_s(view(**decoding(3)), 2_048, 0.0) == pytest.approx(expected)


class TestBacklog:
    PREFILLING = {  # noqa: RUF012 - read only
        "in_flight": 2,
        "prefilling": 2,
        "pending_prefill_tokens": 4_096,
        "prefill_since_s": 10.0,
    }
    TOTAL_S = 0.4096 + 3 * 0.010

    def test_is_the_pending_prompts_less_the_progress_made(self):
        backend = view(**self.PREFILLING)
        assert prefill_backlog_s(backend, 10.0) == pytest.approx(self.TOTAL_S)
        assert prefill_backlog_s(backend, 10.3) == pytest.approx(self.TOTAL_S - 0.3)

    def test_is_never_negative_however_late_the_engine_is(self):
        assert prefill_backlog_s(view(**self.PREFILLING), 1e9) == 0.0

    def test_counts_the_attention_within_the_pending_prompts(self):
        cost = replace(FAST, pair_s=1e-8)
        backend = view(cost=cost, pending_prefill_pairs=8e6, **self.PREFILLING)
        assert prefill_backlog_s(backend, 10.0) == pytest.approx(self.TOTAL_S + 0.08)

    def test_is_nothing_when_nobody_prefills(self):
        assert prefill_backlog_s(view(**decoding(3)), 0.0) == 0.0

    def test_is_part_of_ttft(self):
        backend = view(**self.PREFILLING)
        own = 0.5 * 0.010 + 0.2048 + 2 * 0.010
        assert ttft_s(backend, 2_048, 10.0) == pytest.approx(self.TOTAL_S + own)


class TestKvWait:
    def test_is_nothing_while_the_prompt_fits(self):
        assert kv_wait_s(view(**decoding(4, kv_capacity_tokens=5_000)), 1_000) == 0.0

    def test_is_the_share_of_the_held_tokens_that_must_go_of_the_time_all_take(self):
        # 4 requests with 50 tokens to come on average, 14.8 ms each; 1,000 of 4,000 must go.
        backend = view(**decoding(4, kv_capacity_tokens=4_000))
        assert kv_wait_s(backend, 1_000) == pytest.approx(50 * 0.0148 * 1_000 / 4_000)

    def test_is_at_most_until_everybody_has_left(self):
        backend = view(**decoding(4, kv_capacity_tokens=4_000))
        assert kv_wait_s(backend, 10**7) == pytest.approx(50 * 0.0148)

    def test_is_nothing_in_an_empty_engine_whatever_the_prompt(self):
        assert kv_wait_s(view(), 10**9) == 0.0

    @pytest.mark.parametrize("held", [0.0, -1e-12])
    def test_survives_requests_that_hold_nothing(self, held: float):
        backend = view(in_flight=1, prefilling=1, context_tokens=held, kv_capacity_tokens=100)
        assert kv_wait_s(backend, 1_000) == 0.0
