"""What work costs and how fast a queue drains."""

from __future__ import annotations

import pytest

from router.domain.state import LinearCost
from router.queue.yardstick import Drain, Ruler, Yardstick
from tests.fakes import FAST, SLOW, view


def test_two_equal_backends_do_two_seconds_of_work_a_second():
    ruler = Ruler([view("a", 0), view("b", 1)])
    assert ruler.rate == pytest.approx(2.0)


def test_a_backend_twice_as_slow_counts_half():
    slow = LinearCost(
        2 * FAST.step_s, 2 * FAST.prefill_s, 2 * FAST.seq_s, 2 * FAST.context_s, 2 * FAST.pair_s
    )
    ruler = Ruler([view("a", 0), view("b", 1, cost=slow)])
    assert ruler.rate == pytest.approx(1.5 + 0.75), "against the average of 1 and 2"


def test_the_best_answer_is_the_fastest_backends_own():
    ruler = Ruler([view("slow", 0, cost=SLOW), view("fast", 1)])
    iterations = 1 + 1000 / 2048
    assert ruler.ttft_s(1000) == pytest.approx(0.1 + iterations * 0.010)
    assert ruler.tpot_s(1000, 200.0) == pytest.approx(0.0102 + 1e-6 * 1100)


def test_attention_of_a_prompt_with_itself_is_half_its_square():
    cost = LinearCost(0.010, 0.0001, seq_s=0.0002, context_s=1e-6, pair_s=1e-7)
    assert Ruler([view("a", cost=cost)]).work_s(1000, 100.0) == pytest.approx(0.2875 + 0.05)


def test_work_is_that_of_the_average_backend_part_by_part():
    one = LinearCost(0.010, 0.0001, seq_s=0.0002, context_s=1e-6, pair_s=1e-7)
    two = LinearCost(0.030, 0.0003, seq_s=0.0006, context_s=3e-6, pair_s=3e-7)
    mean = LinearCost(0.020, 0.0002, seq_s=0.0004, context_s=2e-6, pair_s=2e-7)
    both = Ruler([view("a", 0, cost=one), view("b", 1, cost=two)])
    for prompt, output in ((1_000, 1.0), (1, 100.0), (3_000, 50.0)):
        alone = Ruler([view("m", cost=mean)])
        assert both.work_s(prompt, output) == pytest.approx(alone.work_s(prompt, output))


def test_work_of_nothing_is_not_nothing():
    assert Ruler([view("a")]).work_s(0, 0.0) > 0


def test_a_ruler_is_kept_for_seconds_and_renewed_with_the_fleet():
    yardstick, fleet = Yardstick(), [view("a", 0)]
    first = yardstick.of("m", fleet, 0.0)
    assert yardstick.of("m", fleet, 4.0) is first
    assert yardstick.of("m", [*fleet, view("b", 1)], 4.0) is not first
    assert yardstick.of("m", fleet, 20.0) is not first


class TestDrain:
    """The rate is what was sent over the time in which somebody waited."""

    def test_believes_the_fleet_until_it_has_seen_something(self):
        assert Drain().rate(3.0) == 3.0

    def test_learns_the_real_rate(self):
        drain = Drain()
        drain.waits(0.0, somebody=True)
        for second in range(1, 200):
            drain.sent("interactive", 1.5, float(second), somebody=True)
            drain.sent("bulk", 0.5, float(second), somebody=True)
        assert drain.rate(10.0) == pytest.approx(2.0 + 8.0 * 5 / 35, rel=0.05)
        assert drain.rate_of("interactive") == pytest.approx(1.5 * 30 / 35, rel=0.05)

    def test_time_without_a_queue_teaches_nothing(self):
        drain = Drain()
        drain.waits(0.0, somebody=False)
        drain.sent("bulk", 100.0, 0.0, somebody=False)
        drain.waits(1000.0, somebody=True)
        assert drain.rate(3.0) == 3.0
