"""SLO feasibility: stricter with load, silent without targets, honest about memory."""

from __future__ import annotations

import math
from collections.abc import Callable

import pytest

from router.domain.slo import Slo
from solver.congestion import Congestion, congestion
from solver.latency import p99_slot_wait_s, p99_tpot_s, p99_ttft_s, slo_excess
from solver.service import Service, service
from tests.solver.tiny import engine, linear_model

ONE = service(engine(linear_model(step_s=0.02, seq_s=0.001, prefill_token_s=1e-4)), 500, 100)
SHARED = congestion([(1.0, ONE)])
LOADS = (0.0, 0.3, 0.5, 0.7, 0.85, 0.95)


@pytest.mark.parametrize("tail", [p99_ttft_s, p99_tpot_s, p99_slot_wait_s])
def test_tails_grow_with_load(tail: Callable[[Service, Congestion, float], float]) -> None:
    few_slots = Congestion(2.0, 4.0)
    values = [tail(ONE, few_slots, rho) for rho in LOADS]
    assert values == sorted(values)
    assert values[0] < values[-1]


def test_an_empty_engine_has_no_queue() -> None:
    assert p99_slot_wait_s(ONE, SHARED, 0.0) == 0.0
    assert p99_ttft_s(ONE, SHARED, 0.0) == ONE.ttft_s


def test_many_slots_hide_the_queue_and_few_do_not() -> None:
    """The card whose KV memory holds few requests queues at loads that others do not notice."""
    assert p99_slot_wait_s(ONE, Congestion(30.0, 300.0), 0.7) == 0.0
    assert p99_slot_wait_s(ONE, Congestion(1.5, 2.0), 0.7) > ONE.alone_s
    assert p99_slot_wait_s(ONE, Congestion(1.0, 1.0), 1.0) == math.inf


def test_the_worst_missed_target_is_named() -> None:
    slo = Slo("s", ttft_s=10.0, tpot_s=0.001, e2e_s=1000.0)
    name, factor = slo_excess(ONE, SHARED, slo, 100, 0.0)
    assert name == "tpot"
    assert factor == pytest.approx(1.5 * ONE.tpot_s / 0.001)


def test_the_end_to_end_target_counts_every_token() -> None:
    name, factor = slo_excess(ONE, SHARED, Slo("s", e2e_s=1.0), 101, 0.0)
    assert name == "e2e"
    assert factor == pytest.approx(ONE.ttft_s + 100 * 1.5 * ONE.tpot_s)


def test_no_target_is_never_missed() -> None:
    assert slo_excess(ONE, SHARED, Slo("bulk"), 100, 0.9) == ("", 0.0)
