"""When a canary has to go, by numbers from a textbook; and live, over a real gateway."""

from __future__ import annotations

from typing import Any

import pytest

from router.config.schema import CanarySection, PolicySection
from router.domain.slo import Slo
from router.gateway.trial_watch import (
    Arm,
    ShadowWindow,
    TrialWatch,
    costs_too_much,
    upper_difference,
)
from router.policies.trial import Comparison, Trial, is_canary
from tests.fakes import LimitPolicy, outcome
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import answer, chat

CANARY = CanarySection(name="random", share=0.5, margin=0.01, min_requests=50)


def arms(mine: tuple[int, int], others: tuple[int, int]) -> dict[str, Arm]:
    return {"canary": Arm(mine[1], mine[0]), "main": Arm(others[1], others[0])}


def test_newcombes_interval() -> None:
    # Newcombe (1998), example: 56/70 against 48/80, method 10, two-sided 95 %: 0.0524 to 0.3339.
    # The one-sided 95 % end with z = 1.645 lies inside that.
    upper = upper_difference(Arm(70, 56), Arm(80, 48))
    assert 0.2 < upper < 0.3339


@pytest.mark.parametrize(
    ("mine", "others", "goes"),
    [
        ((90, 100), (990, 1000), True),  # 9 points worse: no chance
        ((98, 100), (990, 1000), False),  # one more miss than expected: chance
        ((0, 49), (990, 1000), False),  # too few to say
        ((980, 1000), (9900, 10000), False),  # worse by less than the margin allows for
        ((900, 1000), (9900, 10000), True),
        ((100, 100), (0, 0), False),  # nobody to compare with
        ((100, 100), (900, 1000), False),  # better
    ],
)
def test_a_canary_goes_when_it_surely_costs_more_than_the_margin(
    mine: tuple[int, int], others: tuple[int, int], goes: bool
) -> None:
    assert bool(costs_too_much(CANARY, arms(mine, others))) == goes


def test_a_shadow_is_summed_up_over_the_decisions_both_made() -> None:
    window = ShadowWindow()
    for n in range(100):
        window.add(Comparison(float(n), "a", "b" if n % 4 else "a", 0.5, 0.25, 2.0, 1.0))
    window.add(Comparison(100.0, None, "b", None, 0.25, None, 1.0))
    found = window.figures(100.0)
    assert found.decisions == 100
    assert found.agreement == pytest.approx(25 / 101)
    assert found.regret_s == pytest.approx(1.0)
    assert found.shadow_e2e_p99_s == pytest.approx(1.0, rel=0.03)
    assert found.ttft_p99_s == pytest.approx(0.5, rel=0.03)


async def test_a_shadow_shows_up_in_metrics_and_on_the_page(
    engine: StartEngine, gateway: StartGateway
) -> None:
    policy = {"name": "round-robin", "shadow": {"name": "least-request"}}
    gate = await gateway(await engine(chat()), await engine(chat()), policy=policy)
    watch_now(gate)
    for _ in range(6):
        await gate.post()
    said = (await gate.get("/metrics")).text
    assert "motley_shadow_agreement_ratio" in said
    assert 'motley_shadow_predicted_p99_seconds{figure="e2e",policy="shadow"}' in said
    state = (await gate.get("/dashboard/state")).json()
    assert state["policy"] == "round-robin"


def watch_now(gate: object) -> None:
    """The gateway looks once a second; this looks at once."""
    runtime = gate.relay._rest.state.runtime  # type: ignore[attr-defined]
    chore = next(chore for chore in runtime.chores if chore.name == "trial")
    watch = chore.run.func.__self__
    watch.look(runtime.engine.dispatcher, runtime.engine.now())


async def test_a_canary_that_costs_slos_is_taken_back_by_itself(
    engine: StartEngine, gateway: StartGateway
) -> None:
    good, bad = await engine(chat()), await engine(answer(500, b"{}"))
    policy = {
        "name": "weighted-random",
        "canary": {"name": "round-robin", "share": 0.5, "min_requests": 10},
    }
    gate = await gateway(
        good,
        bad,
        policy=policy,
        reliability={"max_retries": 0, "breaker": {"failure_threshold": 10_000}},
    )
    core = gate.relay.engine.dispatcher
    trial = core.policy
    # Whatever the canary decides goes wrong; the rest goes well.
    trial.main.choose = lambda r, c, now: next(v for v in c if v.spec.name == "e0")
    trial.canary.choose = lambda r, c, now: next(v for v in c if v.spec.name == "e1")
    watch_now(gate)
    for n in range(60):
        await gate.post(**{"x-request-id": f"r{n}"})
    assert sum(is_canary(f"r{n}", 0.5) for n in range(60)) > 15
    watch_now(gate)
    assert core.policy is not trial
    assert type(core.policy).__name__ == "WeightedRandom"
    metrics = (await gate.get("/metrics")).text
    assert 'motley_canary_rollbacks_total{policy="round-robin"} 1.0' in metrics


@pytest.mark.parametrize(
    ("fields", "met"),
    [
        ({}, False),
        ({"model": "slow"}, True),
        ({"slo": Slo("interactive", ttft_s=2.0)}, True),
        ({"slo": Slo("interactive", ttft_s=2.0), "finished_s": 11.0, "status": "failed"}, False),
    ],
)
def test_a_canary_is_judged_by_the_targets_that_each_request_had(
    fields: dict[str, Any], met: bool
) -> None:
    """The first token came after a second, in time for a slow model and for who asked for less."""
    slow = Slo("interactive", ttft_s=2.0)
    slos = {"interactive": Slo("interactive", ttft_s=0.5, models={"slow": slow})}
    policy = PolicySection(name="motley", canary=CANARY)
    watch = TrialWatch(lambda: policy, lambda: slos, lambda: None)
    watch._renew(Trial(LimitPolicy(1), canary=LimitPolicy(1), share=0.5))
    one = outcome(**fields)
    watch.observe(one)
    arm = watch.arms(one.finished_s)["canary" if is_canary("r", 0.5) else "main"]
    assert (arm.judged, arm.met) == (1, int(met))
