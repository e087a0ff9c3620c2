"""The rolling planner: prices for the live router, whatever happens."""

from __future__ import annotations

from dataclasses import dataclass, field

import pytest

from router.domain.outcome import Outcome
from router.domain.protocols import Planner
from router.domain.slo import Slo
from router.domain.state import LinearCost
from solver import planner as module
from solver.options import Limits
from solver.planner import RollingPlanner
from tests.solver.tiny import MODEL, backends, fleet

FLEET = fleet(backends("a100-80", 1), backends("t4", 1, tensor_parallel=2)).backends
A100, T4 = FLEET[0].group, FLEET[1].group


@dataclass
class Settings:
    interval_s: float = 30.0
    window_s: float = 100.0
    weights: dict[str, float] = field(default_factory=dict)


def _traffic(
    per_s: float, *, now: float = 100.0, model: str = MODEL, slo: str = "bulk"
) -> list[Outcome]:
    """Requests that finished at an even pace over the 100 s before ``now``."""
    count = int(100 * per_s)
    ends = [now - 100 + 100 * (n + 1) / count for n in range(count)]
    return [
        Outcome(
            request_id=str(n),
            model=model,
            slo_class=slo,
            tenant="",
            backend=FLEET[0].name,
            status="completed",
            arrival_s=max(now - 100, end - 3.0),
            dispatched_s=end - 3.0,
            first_token_s=end - 2.5,
            finished_s=end,
            prompt_tokens=400 if n % 2 else 1500,
            output_tokens=100 if n % 3 else 300,
            cached_tokens=None,
            max_tokens=None,
            prefilling_at_dispatch=0,
            decoding_at_dispatch=0,
            predicted_ttft_s=0.0,
            predicted_tpot_s=0.0,
            predicted_output_tokens=0.0,
        )
        for n, end in enumerate(ends)
    ]


def test_it_is_a_planner() -> None:
    planner: Planner = RollingPlanner(Settings())
    assert planner.prices(_traffic(5.0), FLEET, 100.0)


def test_prices_rise_with_the_traffic() -> None:
    planner = RollingPlanner(Settings())
    prices = [planner.prices(_traffic(rate), FLEET, 100.0)[A100] for rate in (1.0, 4.0, 8.0)]
    assert prices == sorted(prices)
    assert 0 <= prices[0] < prices[-1] < float("inf")


def test_the_whole_price_is_more_than_the_unseen_part() -> None:
    toll = RollingPlanner(Settings()).prices(_traffic(8.0), FLEET, 100.0)
    dual = RollingPlanner(Settings(), kind="dual").prices(_traffic(8.0), FLEET, 100.0)
    assert dual[A100] > toll[A100] > 0


def test_without_traffic_nothing_is_dear() -> None:
    planner = RollingPlanner(Settings())
    assert planner.prices([], FLEET, 0.0) == {}
    assert planner.prices(_traffic(5.0, now=100.0), FLEET, 1000.0) == {}
    assert planner.failures == 0


def test_a_round_keeps_its_demand_shares_and_prices() -> None:
    """I7."""
    planner = RollingPlanner(Settings())
    planner.prices(_traffic(5.0), FLEET, 100.0)
    assert planner.last is not None
    assert planner.last.workload.rate_per_s == pytest.approx(5.0, rel=0.05)
    for one in planner.last.workload.classes:
        total = sum(s.share for s in planner.last.shares if s.work_class == one.name)
        assert total == pytest.approx(1.0)


def test_a_failed_round_keeps_the_last_prices_until_they_are_stale() -> None:
    planner = RollingPlanner(Settings(), limits=Limits(slos={"bulk": Slo("bulk")}))
    good = planner.prices(_traffic(5.0), FLEET, 100.0)
    unknown = _traffic(5.0, now=130.0, slo="urgent")
    assert planner.prices(unknown, FLEET, 130.0) == good
    assert planner.failures == 1
    assert "urgent" in planner.last_failure
    assert planner.prices(_traffic(5.0, now=300.0, slo="urgent"), FLEET, 300.0) == {}
    assert planner.failures == 2


def test_traffic_for_models_that_left_is_a_failed_round_not_a_crash() -> None:
    planner = RollingPlanner(Settings())
    assert planner.prices(_traffic(5.0, model="gone"), FLEET, 100.0) == {}
    assert planner.failures == 1


def test_overload_has_a_price_and_no_failure() -> None:
    planner = RollingPlanner(Settings())
    prices = planner.prices(_traffic(60.0), FLEET, 100.0)
    assert planner.failures == 0
    assert prices[A100] > 100


def test_the_problem_is_stated_once(monkeypatch: pytest.MonkeyPatch) -> None:
    """Stating takes a hundred times as long as solving; classes that fall silent stay in it."""
    planner = RollingPlanner(Settings())
    planner.prices(_traffic(5.0), FLEET, 100.0)
    stated = planner._model
    mostly_short = [one for one in _traffic(5.0, now=130.0) if one.prompt_tokens == 400]
    planner.prices(mostly_short, FLEET, 130.0)
    assert planner._model is stated


def test_it_forgets_silent_classes_before_they_pile_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "_MOST_KNOWN", 3)
    planner = RollingPlanner(Settings())
    planner.prices(_traffic(5.0), FLEET, 100.0)
    assert planner.last is not None
    assert len(planner.last.workload.classes) == 4
    short = [one for one in _traffic(5.0, now=130.0) if one.prompt_tokens == 400]
    planner.prices(short, FLEET, 130.0)
    assert len(planner.last.workload.classes) == 2


def test_a_throttled_card_is_dearer_once_the_router_believes_so() -> None:
    nominal = LinearCost(0.009, 7e-5, 1e-5, 1e-7)

    def costs(throttled: float) -> dict[str, float]:
        belief = {FLEET[0].name: nominal.scaled(prefill=throttled, decode=throttled)}
        planner = RollingPlanner(Settings(), costs=lambda spec: belief.get(spec.name))
        return dict(planner.prices(_traffic(6.0), FLEET[:1], 100.0))

    assert costs(1.6)[A100] > costs(1.0)[A100]


def test_a_backend_that_leaves_takes_its_price_with_it() -> None:
    planner = RollingPlanner(Settings())
    assert set(planner.prices(_traffic(5.0), FLEET, 100.0)) == {A100, T4}
    assert set(planner.prices(_traffic(5.0, now=130.0), FLEET[:1], 130.0)) == {A100}
