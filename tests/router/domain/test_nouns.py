from __future__ import annotations

import pytest

from router.domain.fleet import Fleet
from router.domain.slo import DEFAULT_SLOS, Slo
from router.domain.state import LinearCost
from tests.fakes import FAST, MODEL, outcome, spec


class TestGroup:
    """Identical backends share a group: the planner's columns and price keys."""

    def test_is_gpu_engine_and_model(self):
        assert spec("a").group == f"a100-80/vllm/{MODEL}"
        assert spec("a").group == spec("b", url="http://b", weight=2.0).group

    @pytest.mark.parametrize(
        ("fields", "group"),
        [
            ({"gpu": "t4", "tensor_parallel": 2}, f"t4x2/vllm/{MODEL}"),
            ({"quantization": "awq"}, f"a100-80/vllm/{MODEL}:awq"),
            ({"zone": "rack-1"}, f"a100-80/vllm/{MODEL}@rack-1"),
            ({"engine": "sglang"}, f"a100-80/sglang/{MODEL}"),
        ],
    )
    def test_and_what_else_makes_a_difference(self, fields: dict[str, object], group: str):
        assert spec("a", **fields).group == group

    def test_a_fleet_lists_groups_in_the_order_of_the_file(self):
        fleet = Fleet((spec("t", gpu="t4"), spec("a"), spec("u", gpu="t4"), spec("b")))
        assert [[b.name for b in members] for members in fleet.groups().values()] == [
            ["t", "u"],
            ["a", "b"],
        ]
        assert fleet.models == {MODEL}


class TestSlo:
    def test_is_met_up_to_and_including_every_target(self):
        slo = Slo("tight", ttft_s=1.0, tpot_s=0.1, e2e_s=10.0)
        assert slo.met(ttft_s=1.0, tpot_s=0.1, e2e_s=10.0)
        assert not slo.met(ttft_s=1.01, tpot_s=0.1, e2e_s=10.0)
        assert not slo.met(ttft_s=1.0, tpot_s=0.11, e2e_s=10.0)
        assert not slo.met(ttft_s=1.0, tpot_s=0.1, e2e_s=10.01)

    def test_without_a_target_is_always_met(self):
        assert DEFAULT_SLOS["bulk"].met(ttft_s=1e9, tpot_s=1e9, e2e_s=1e9)

    def test_classes_carry_their_own_names(self):
        assert all(name == slo.name for name, slo in DEFAULT_SLOS.items())


class TestOutcome:
    def test_latencies_count_from_the_arrival(self):
        told = outcome(
            arrival_s=10.0,
            dispatched_s=11.0,
            first_token_s=12.0,
            finished_s=22.0,
            output_tokens=101,
        )
        assert (told.ttft_s, told.e2e_s, told.tpot_s) == (2.0, 12.0, 0.1)

    def test_without_a_first_token_there_is_no_ttft(self):
        told = outcome(first_token_s=None)
        assert (told.ttft_s, told.tpot_s) == (None, None)

    @pytest.mark.parametrize("tokens", [0, 1])
    def test_time_per_output_token_needs_two(self, tokens: int):
        assert outcome(output_tokens=tokens).tpot_s is None


class TestLinearCost:
    def test_an_iteration_is_the_sum_of_its_parts(self):
        cost = LinearCost(step_s=1.0, prefill_s=0.1, seq_s=0.01, context_s=0.001)
        assert cost.iteration_s(2, 3, 4) == pytest.approx(1.0 + 0.2 + 0.03 + 0.004)

    def test_a_long_prompt_also_pays_for_its_attention(self):
        cost = LinearCost(step_s=1.0, prefill_s=0.1, seq_s=0.0, context_s=0.0, pair_s=0.001)
        assert cost.iteration_s(0, 0, 0, 50) == pytest.approx(1.0 + 0.05)
        # 10 tokens with 5 before each on average; then the last 4, with 6 cached and 2 more.
        assert cost.prompt_s(10) == pytest.approx(1.0 + 0.001 * 10 * 5)
        assert cost.prompt_s(10, 6) == pytest.approx(0.4 + 0.001 * 4 * (6 + 2))
        assert cost.scaled(prefill=2.0, decode=1.0).prompt_s(10) == pytest.approx(
            2 * cost.prompt_s(10)
        )

    def test_scaling_decode_scales_all_but_prefill(self):
        slower = FAST.scaled(prefill=1.0, decode=2.0)
        assert slower.prefill_s == FAST.prefill_s
        assert slower.iteration_s(0, 7, 900) == pytest.approx(2 * FAST.iteration_s(0, 7, 900))
