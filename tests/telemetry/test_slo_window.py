"""What each class has got in the last minutes."""

from __future__ import annotations

import pytest

from router.domain.slo import Slo
from telemetry.slo_window import MOST_CLASSES, SloWindow
from tests.telemetry.tiny_engine import outcome

SLOS = {"interactive": Slo("interactive", ttft_s=0.5, tpot_s=0.1)}


def test_attainment_and_goodput_count_requests_that_kept_every_target() -> None:
    window = SloWindow(SLOS, window_s=100.0)
    window.observe(outcome(first_s=0.1, finished_s=1.0, output=50))  # kept both
    window.observe(outcome(first_s=0.6, finished_s=1.0, output=50))  # late first token
    window.observe(outcome(first_s=0.1, finished_s=9.0, output=50))  # 180 ms a token
    window.missed("interactive", 9.0)
    report = window.report(9.0)["interactive"]
    assert report.finished == 3
    assert report.attainment == 0.25
    assert report.goodput_per_s == pytest.approx(1 / 100.0)
    assert report.ttft.p50 == pytest.approx(0.1, rel=0.02)
    assert report.e2e.p99 == pytest.approx(9.0, rel=0.9)


def test_goodput_just_after_the_start_is_over_the_time_there_was() -> None:
    window = SloWindow(SLOS, window_s=100.0, began_s=50.0)
    for _ in range(20):
        window.observe(outcome(dispatched_s=50.0, first_s=50.1, finished_s=51.0, output=50))
    goodput = {at_s: window.report(at_s)["interactive"].goodput_per_s for at_s in (50.5, 60.0)}
    assert goodput == {50.5: 20.0, 60.0: 2.0}
    assert window.report(149.0)["interactive"].goodput_per_s == pytest.approx(20 / 99)


def test_a_class_without_targets_is_met_by_finishing() -> None:
    window = SloWindow({})
    window.observe(outcome(slo_class="bulk", finished_s=1000.0, first_s=900.0))
    assert window.report(1000.0)["bulk"].attainment == 1.0


def test_failed_attempts_and_clients_that_left_are_not_judged() -> None:
    window = SloWindow(SLOS)
    window.observe(outcome(status="failed"))
    window.observe(outcome(status="cancelled"))
    assert window.report(1.0) == {}


def test_without_a_first_token_of_its_own_the_whole_answer_counts() -> None:
    window = SloWindow(SLOS)
    window.observe(outcome(first_s=None, finished_s=0.4))
    window.observe(outcome(first_s=None, finished_s=0.6))
    assert window.report(1.0)["interactive"].attainment == 0.5


def test_classes_that_clients_invent_share_one_row() -> None:
    window = SloWindow(SLOS)
    for n in range(100):
        window.observe(outcome(slo_class=f"x{n}"))
    assert len(window.report(1.0)) <= MOST_CLASSES
    assert window.report(1.0)["other"].finished > 60
    window.observe(outcome(slo_class="interactive"))
    assert "interactive" in window.report(1.0)
