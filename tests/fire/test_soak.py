"""A short soak (``make soak`` runs a long one), and what the verdict would catch."""

from __future__ import annotations

import random
from collections import Counter

import pytest

from tests.fire.soak import Sample, Soak, judge


@pytest.mark.full
@pytest.mark.timeout(300)
async def test_two_minutes_of_churn_leave_everything_flat() -> None:
    soak = Soak(120.0)
    verdict = await soak.run()
    # Two minutes are too short for the slope of memory: the allocator still settles.
    assert [fault for fault in verdict.faults if not fault.startswith("memory")] == []
    assert verdict.trends["memory"].per_min < 0.05 * verdict.trends["memory"].median
    # All backends are away at once less than once a minute: only then is there an error.
    assert {"ok", "cut", "left"} <= set(soak.ends) <= {"ok", "cut", "left", "error"}


def samples(noise_s: float = 0.0, **leak: float) -> list[Sample]:
    """Twenty minutes, a sample every 5 s, and a leak per minute."""
    found, rng = [], random.Random(1)
    for n in range(240):
        minutes = n / 12
        busy_s = noise_s * minutes  # a machine that others use more and more
        direct = [0.001 + rng.expovariate(1000) + busy_s for _ in range(30)]
        grown_s = leak.get("latency", 0.0) * minutes
        through = [0.003 + rng.expovariate(1000) + busy_s + grown_s for _ in range(30)]
        found.append(
            Sample(
                n * 5.0,
                int(200e6 + leak.get("rss", 0.0) * minutes),
                int(60 + leak.get("fds", 0.0) * minutes) + n % 3,
                10,
                through,
                direct,
                n * 100,
            )
        )
    return found


@pytest.mark.parametrize(
    ("leak", "faults"),
    [
        ({}, []),
        ({"noise_s": 0.002}, []),
        ({"rss": 1e6}, ["memory: grows"]),
        ({"fds": 1.0}, ["file descriptors: grows"]),
        ({"latency": 0.0004}, ["added latency, P50: grows", "added latency, P99: grows"]),
    ],
)
def test_leaks_are_caught_and_a_busy_machine_is_none(
    leak: dict[str, float], faults: list[str]
) -> None:
    assert judge(samples(**leak), Counter(ok=1), 20.0).faults == faults
