"""The hit ratio of the last minute, from counters that only grow, until they do not."""

from __future__ import annotations

import pytest

from router.domain.state import EngineSignals
from telemetry.engine_metrics import Reading
from telemetry.hit_window import HALF_LIFE_S, HitWindow


def reading(at_s: float, hits: float | None, queries: float | None, **more: float) -> Reading:
    given = hits / queries if hits is not None and queries else None
    return Reading(
        EngineSignals(at_s, prefix_hit_ratio=given),
        prefix_hits=hits,
        prefix_queries=queries,
        **more,  # type: ignore[arg-type]
    )


def test_a_week_of_hits_does_not_hide_a_minute_of_misses() -> None:
    window = HitWindow()
    assert window.update(reading(0.0, 9e6, 1e7)) == (0.9, False)
    assert window.update(reading(1.0, 9e6, 1e7 + 1000))[0] == 0.0


def test_older_traffic_weighs_half_after_a_half_life() -> None:
    window = HitWindow()
    window.update(reading(0.0, 0, 100))
    window.update(reading(1.0, 100, 200))  # 100 of 100 hit
    ratio, _ = window.update(reading(1.0 + HALF_LIFE_S, 100, 300))  # then 0 of 100
    assert ratio == pytest.approx(50 / 150)


def test_without_traffic_the_last_known_ratio_stays() -> None:
    window = HitWindow()
    window.update(reading(0.0, 0, 100))
    window.update(reading(1.0, 50, 200))
    assert window.update(reading(2.0, 50, 200))[0] == 0.5


def test_counters_that_fall_are_a_restart_and_no_negative_traffic() -> None:
    window = HitWindow()
    window.update(reading(0.0, 500, 1000))
    assert window.update(reading(1.0, 3, 10)) == (0.3, True)
    assert window.update(reading(2.0, 13, 20)) == (1.0, False)


def test_a_new_start_time_is_a_restart() -> None:
    window = HitWindow()
    window.update(reading(0.0, 0, 0, started_s=100.0))
    assert window.update(reading(1.0, 0, 0, started_s=100.0))[1] is False
    assert window.update(reading(2.0, 0, 0, started_s=200.0))[1] is True


def test_an_engine_without_counters_is_taken_at_its_word() -> None:
    window = HitWindow()
    said = Reading(EngineSignals(0.0, prefix_hit_ratio=0.7))
    assert window.update(said) == (0.7, False)
    assert window.update(said) == (0.7, False)
