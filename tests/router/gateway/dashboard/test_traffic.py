"""A minute of traffic, counted off the path of requests."""

from __future__ import annotations

import pytest

from router.domain.outcome import Outcome
from router.gateway.dashboard.traffic import RECENT, Traffic


def outcome(n: int, backend: str, finished_s: float, status: str = "completed") -> Outcome:
    return Outcome(
        f"r{n}",
        "m",
        "interactive",
        "",
        backend,
        status,  # type: ignore[arg-type]
        finished_s - 2.0,
        finished_s - 2.0,
        finished_s - 1.5,
        finished_s,
        100,
        11,
        None,
        None,
        0,
        0,
        0.4,
        0.05,
        11.0,
    )


def test_rates_and_flow_are_those_of_the_last_minute() -> None:
    traffic = Traffic()
    for n in range(120):  # one a second, to the two backends in turn
        traffic.observe(outcome(n, "ab"[n % 2], float(n)))
        traffic.advance(float(n))
    rates = traffic.rates(uptime_s=120.0)
    assert rates["a"] == pytest.approx((0.5, 5.5))
    cells = list(traffic.flow({"a": "g1", "b": "g2"}))
    assert [(c.slo_class, c.group, c.requests) for c in cells] == [
        ("interactive", "g1", 30),
        ("interactive", "g2", 30),
    ]


def test_totals_are_those_of_the_fleet_as_it_is_and_what_is_over_is_not_kept() -> None:
    traffic = Traffic()
    for n in range(120):
        traffic.observe(outcome(n, "ab"[n % 2], float(n)))
        traffic.advance(float(n))
    assert traffic.totals({"a", "b"}, uptime_s=120.0) == pytest.approx((1.0, 11.0))
    assert traffic.totals({"a"}, uptime_s=120.0) == pytest.approx((0.5, 5.5))
    traffic.advance(300.0)
    assert traffic.totals({"a", "b"}, uptime_s=300.0) == (0.0, 0.0)
    assert traffic.rates(uptime_s=300.0) == {}


def test_a_young_gateway_is_not_divided_by_a_whole_minute() -> None:
    traffic = Traffic()
    traffic.observe(outcome(0, "a", 10.0))
    traffic.advance(10.0)
    assert traffic.rates(uptime_s=10.0)["a"][0] == pytest.approx(0.1)


def test_percentiles_are_good_to_two_per_cent() -> None:
    traffic = Traffic()
    traffic.observe(outcome(0, "a", 10.0))
    traffic.advance(10.0)
    assert traffic.p99(traffic.ttft, 10.0) == pytest.approx(0.5, rel=0.02)
    assert traffic.p99(traffic.tpot, 10.0) == pytest.approx(0.15, rel=0.02)
    assert traffic.p99(traffic.e2e, 10.0) == pytest.approx(2.0, rel=0.02)
    assert traffic.p99(traffic.e2e, 200.0) is None


def test_failures_are_shown_and_not_counted_as_served() -> None:
    traffic = Traffic()
    traffic.observe(outcome(0, "a", 10.0, "failed"))
    traffic.advance(10.0)
    assert traffic.rates(60.0) == {}
    assert [row.status for row in traffic.recent(11.0)] == ["failed"]


def test_requests_to_a_backend_that_left_are_not_lost() -> None:
    traffic = Traffic()
    traffic.observe(outcome(0, "gone", 10.0))
    traffic.advance(10.0)
    assert [cell.group for cell in traffic.flow({})] == ["(gone)"]


def test_recent_requests_come_newest_first_and_are_few() -> None:
    traffic = Traffic()
    for n in range(500):
        traffic.observe(outcome(n, "a", float(n)))
    traffic.advance(500.0)
    rows = list(traffic.recent(500.0))
    assert len(rows) == RECENT
    assert rows[0].request_id == "r499"
    assert rows[0].predicted_e2e_s == pytest.approx(0.4 + 10 * 0.05)
