"""Learning over real HTTP: a gateway, an emulated engine in a process of its own, real seconds."""

from __future__ import annotations

import asyncio

import pytest

from benchmarks.telemetry.bench_calibration import CHANGE, Live, live

PREFILL, DECODE = 0, 1
RIGHT = 0.15
"""The belief is linear and the engine not, and this machine may be busy with other tests."""


@pytest.mark.full
@pytest.mark.timeout(400)
def test_a_wrong_prior_and_a_step_change_are_learned_over_http() -> None:
    course, change_s = asyncio.run(live(Live(wrong=1.5, before_s=60.0, after_s=60.0)))
    assert len(course.points) > 200
    settled_s = change_s - 20.0
    for phase in (PREFILL, DECODE):
        assert course.level(phase, settled_s, change_s) == pytest.approx(1.5, rel=RIGHT)
        after = course.level(phase, change_s + 45.0, change_s + 75.0)
        assert after == pytest.approx(1.5 * CHANGE, rel=RIGHT)
