"""A short soak (``make soak`` runs a long one), and what the verdict would catch."""

from __future__ import annotations

from collections import Counter

import pytest

from tests.fire.soak import Sample, Soak, judge


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_two_minutes_of_churn_leave_everything_flat() -> None:
    soak = Soak(120.0)
    verdict = await soak.run()
    # Two minutes are too short for the slope of memory: the allocator still settles.
    assert [fault for fault in verdict.faults if fault != "memory grows"] == []
    assert verdict.rss_growth_per_min < 0.05
    assert set(soak.ends) == {"ok", "error", "cut", "left"}


def samples(**leak: float) -> list[Sample]:
    """Twenty minutes, a sample every 5 s, and a leak per minute."""
    found = []
    for n in range(240):
        minutes = n / 12
        found.append(
            Sample(
                n * 5.0,
                int(200e6 + leak.get("rss", 0.0) * minutes),
                int(60 + leak.get("fds", 0.0) * minutes) + n % 3,
                10,
                0.002 + leak.get("latency", 0.0) * minutes,
                n * 100,
            )
        )
    return found


@pytest.mark.parametrize(
    ("leak", "faults"),
    [
        ({}, []),
        ({"rss": 4e6}, ["memory grows"]),
        ({"fds": 10.0}, ["file descriptors grow"]),
        ({"latency": 0.0004}, ["added latency grows"]),
    ],
)
def test_leaks_are_caught(leak: dict[str, float], faults: list[str]) -> None:
    assert judge(samples(**leak), Counter(ok=1), 20.0).faults == faults
