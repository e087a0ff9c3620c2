"""Energy and money: what is spent equals what is booked, and whose it was is by the work."""

from __future__ import annotations

import pytest

from router.domain.outcome import Outcome
from router.domain.state import LinearCost
from telemetry.metering import IDLE, MOST_TENANTS, NOBODY, Meter, Metered, work_s
from telemetry.power import PowerPrior

COST = LinearCost(step_s=0.01, prefill_s=1e-4, seq_s=0.0, context_s=0.0)
FACTS = Metered("m", "a100-80", 3.6, COST, PowerPrior(idle_w=60.0, limit_w=400.0))


def outcome(tenant: str = "", *, prompt: int = 100, output: int = 10, **more: object) -> Outcome:
    known: dict[str, object] = {
        "request_id": "r",
        "model": "m",
        "slo_class": "interactive",
        "tenant": tenant,
        "backend": "b",
        "status": "completed",
        "arrival_s": 0.0,
        "dispatched_s": 0.0,
        "first_token_s": 0.1,
        "finished_s": 1.0,
        "prompt_tokens": prompt,
        "output_tokens": output,
        "cached_tokens": None,
        "max_tokens": None,
        "prefilling_at_dispatch": 0,
        "decoding_at_dispatch": 0,
        "predicted_ttft_s": 0.1,
        "predicted_tpot_s": 0.01,
        "predicted_output_tokens": 10.0,
    }
    return Outcome(**(known | more))  # type: ignore[arg-type]


class Busy:
    """How many run, set by the test."""

    def __init__(self, running: float = 1.0) -> None:
        self.running = running
        self.measured: tuple[float, str] | None = None
        self.meter = Meter(lambda _: self.running, lambda _: self.measured)
        self.meter.add("b", FACTS, 0.0)

    def seconds(self, start: float, end: float) -> None:
        for now in range(int(start) + 1, int(end) + 1):
            self.meter.sample(float(now))


def test_rent_is_booked_to_those_who_used_it_by_their_work() -> None:
    busy = Busy()
    busy.meter.observe(outcome("big", output=30))
    busy.meter.observe(outcome("small", output=9, prompt=200))
    busy.seconds(0, 21)
    shares = {tenant: bill.usd for (tenant, _, _), bill in busy.meter.bills.items()}
    assert shares["big"] / shares["small"] == pytest.approx((0.01 + 0.3) / (0.02 + 0.09))
    assert sum(shares.values()) <= 3.6 * 21 / 3600
    assert sum(shares.values()) >= 3.6 * 1 / 3600


def test_the_sum_over_tenants_is_what_was_spent() -> None:
    busy = Busy()
    for start in range(0, 100, 10):
        busy.meter.observe(outcome(f"t{start % 3}"))
        busy.seconds(start, start + 10)
    busy.running = 0
    busy.seconds(100, 141)
    busy.meter.remove("b", 141.0)
    booked = busy.meter.bills.values()
    assert sum(bill.usd for bill in booked) == pytest.approx(3.6 * 141 / 3600)
    assert busy.meter.bills[IDLE, "m", "a100-80"].usd > 3.6 * 30 / 3600
    spent = 100 * FACTS.power.watts(1) + 41 * 60.0
    assert sum(bill.joules for bill in booked) == pytest.approx(spent, rel=0.02)


def test_a_long_request_is_waited_for() -> None:
    busy = Busy()
    busy.seconds(0, 60)
    assert busy.meter.bills == {}, "it runs: nobody else is to pay for it, nor is it idle"
    busy.meter.observe(outcome("t"))
    busy.seconds(60, 75)
    assert busy.meter.bills["t", "m", "a100-80"].usd > 3.6 * 60 / 3600


def test_measured_power_beats_the_prior_and_is_told_apart() -> None:
    busy = Busy()
    busy.seconds(0, 10)
    busy.measured = (250.0, "dcgm")
    busy.seconds(10, 30)
    assert list(busy.meter.watts()) == [("b", "dcgm", 250.0)]
    joules = {source: j for _, _, source, j in busy.meter.energy()}
    assert joules["dcgm"] == pytest.approx(20 * 250.0)
    assert joules["prior"] == pytest.approx(10 * 0.43 * 400)


def test_ratios_are_those_of_ml_energy() -> None:
    busy = Busy()
    busy.measured = (200.0, "dcgm")
    busy.meter.sample(0.0)
    for _ in range(4):
        busy.meter.observe(outcome("t", prompt=600, output=25))
    busy.seconds(0, 10)
    (bill,) = busy.meter.described()
    assert bill["joules_per_output_token"] == pytest.approx(2000 / 100)
    assert bill["joules_per_request"] == pytest.approx(2000 / 4)
    assert bill["usd_per_million_tokens"] == pytest.approx(1e6 * 0.01 / 2500)


def test_a_clock_that_jumps_books_nothing() -> None:
    busy = Busy(running=0)
    busy.seconds(0, 11)
    before = sum(bill.usd for bill in busy.meter.bills.values())
    busy.meter.sample(1e9)
    busy.meter.sample(5.0)
    after = sum(bill.usd for bill in busy.meter.bills.values())
    assert after - before <= 3.6 * 11 / 3600


def test_tenants_are_capped() -> None:
    busy = Busy()
    for n in range(MOST_TENANTS + 50):
        busy.meter.observe(outcome(f"t{n}"))
    busy.meter.observe(outcome(""))
    tenants = {tenant for tenant, _, _ in busy.meter.bills}
    assert len(tenants) == MOST_TENANTS + 2
    assert {"other", NOBODY} <= tenants


def test_work_is_prefill_and_a_share_of_each_iteration() -> None:
    assert work_s(COST, outcome(prompt=100, output=10)) == pytest.approx(0.01 + 0.1)
    shared = outcome(prompt=100, output=10, decoding_at_dispatch=4)
    assert work_s(COST, shared) == pytest.approx(0.01 + 0.02)
    assert work_s(COST, outcome(prompt=100, cached_tokens=100)) == pytest.approx(0.1)
    lost = outcome(output=0, status="failed", first_token_s=None)
    assert work_s(COST, lost) == 0.0


def test_a_backend_that_is_not_known_costs_nothing() -> None:
    busy = Busy()
    busy.meter.observe(outcome("t", backend="gone"))
    busy.meter.remove("gone", 1.0)
    assert busy.meter.bills == {}
