"""The added pain of a request on one backend, term by term.

The whole formula is worked out on paper in ``test_motley.py``.
"""

from __future__ import annotations

from typing import Any

import pytest

from router.domain.request import LengthForecast
from router.domain.state import LinearCost
from router.policies.ask import Ask, Weights
from router.policies.lane import Lane
from router.policies.motley import Motley
from router.policies.tail_scale import TailScale
from tests.fakes import FAST, ask, view
from tests.router.policies.picking import crowd, policy_of

PAIRS = LinearCost(step_s=0.010, prefill_s=0.0001, seq_s=0.0002, context_s=1e-6, pair_s=1e-8)


def lane(now: float = 0.0, **state: Any) -> Lane:
    """A refreshed lane of a backend in this state."""
    found = Lane(view(**state))
    found.refresh(now)
    return found


class TestOwn:
    FORECAST = LengthForecast(100.0, 200.0, square_tokens=25_000.0)

    def ask(self, **weights: float) -> Ask:
        given = {"ttft": 0.3, "externality": 1.0, "price": 0.0, **weights}
        return Ask(2_048, self.FORECAST, 0.5, 0.0, TailScale(), Weights(**given))

    # Nothing runs: a prompt of 2,048 tokens is one iteration, a token another.
    TTFT_S = 0.5 + 0.010 + 2_048 * 0.0001 + 0.010
    CONTEXT = 2_048 + 0.5 * 25_000.0 / 100
    TAU_S = 0.010 + 0.0002 + 1e-6 * CONTEXT

    def own(self, asked: Ask, tau_s: float = TAU_S) -> float:
        late = asked.per_late * (self.TTFT_S / asked.tail_ttft_s) ** 4
        spread = (25_000.0 - 100.0**2) * tau_s**2
        return late + ((self.TTFT_S + 100 * tau_s) ** 2 + spread) / asked.tail_e2e_s**2

    def test_of_an_idle_backend_is_the_requests_own(self):
        asked = self.ask()
        assert lane().pain(asked, 0) == pytest.approx(self.own(asked))

    def test_an_answer_that_may_be_late_adds_its_probability(self):
        asked = self.ask(overshoot=1.0)
        beyond = asked.exceeds((asked.tail_e2e_s - self.TTFT_S) / self.TAU_S)
        assert beyond > 0.0
        expected = self.own(asked) + asked.per_overshoot * beyond
        assert lane().pain(asked, 0) == pytest.approx(expected)

    def test_prompts_that_keep_coming_stretch_every_token(self):
        asked, busy = self.ask(), lane()
        busy.add_prefill(20_000, 0, 0.0)  # two seconds of work, of ten
        assert busy.pain(asked, 0) == pytest.approx(self.own(asked, self.TAU_S / 0.8))

    def test_what_is_cached_is_not_computed_again(self):
        asked, half = self.ask(), lane(cost=PAIRS)
        fresh_s = half.prompt_s(2_048, 1_024)
        assert fresh_s == pytest.approx(1_024 * (0.0001 + 0.010 / 2_048) + 1e-8 * 1_024 * 1_536)
        own = (0.5 + 0.010 + fresh_s) / self.TTFT_S
        cached = replaced(asked, late=own)
        e2e_s = 0.5 + 0.010 + fresh_s + 100 * self.TAU_S
        spread = (25_000.0 - 100.0**2) * self.TAU_S**2
        expected = cached + (e2e_s**2 + spread) / asked.tail_e2e_s**2
        assert half.pain(asked, 1_024) == pytest.approx(expected)

    def test_a_price_is_paid_for_the_engine_seconds(self):
        asked, dear = self.ask(price=1.0), lane(price=3.0)
        engine_s = 2_048 * 0.0001 + 100 * (0.0002 + 1e-6 * self.CONTEXT + 0.010)
        e2e_s = self.TTFT_S + 100 * self.TAU_S
        price = 2.0 * e2e_s * 3.0 * engine_s / asked.tail_e2e_s**2
        assert dear.pain(asked, 0) == pytest.approx(self.own(asked) + price)

    def test_nobody_asks_by_how_much_it_is_above_the_least(self):
        asked, crowded = self.ask(), lane(**crowd(3))
        whole = crowded.pain(asked, 0)
        asked.least = 0.0
        assert 0.0 < crowded.pain(asked, 0) < whole


def replaced(asked: Ask, *, late: float) -> float:
    """The pain of a first token so many times as late as ``TestOwn``'s."""
    return asked.per_late * (late * TestOwn.TTFT_S / asked.tail_ttft_s) ** 4


def test_between_tail_and_mean_the_others_delay_counts_in_proportion():
    """What is inflicted on each is weighed by what is left to it, or as if all were alike."""
    crowded = lane(**crowd(3, pending_output_tokens=30.0))

    def pain(tail: float) -> float:
        weights = Weights(0.3, 1.0, 0.0, tail=tail)
        forecast = LengthForecast(100.0, 200.0)  # of no spread, which the weight is also of
        return crowded.pain(Ask(1_000, forecast, 0.0, 0.0, TailScale(), weights), 0)

    assert pain(1.0) < pain(0.0), "10 tokens are left to each, not 100"
    assert pain(0.5) == pytest.approx((pain(1.0) + pain(0.0)) / 2)


def test_the_longer_the_others_are_there_the_more_their_delay_counts_from_the_first_moment_on():
    def pain(since_s: float) -> float:
        """With three there that arrived so long before 10 s."""
        there = lane(10.0, **crowd(3), arrivals_s=3 * (10.0 - since_s))
        forecast, weights = LengthForecast(100.0, 200.0), Weights(0.3, 1.0, 0.0)
        return there.pain(Ask(1_000, forecast, 0.0, 10.0, TailScale(), weights), 0)

    a_moment, half, one = (pain(since_s) - pain(0.0) for since_s in (0.1, 0.5, 1.0))
    assert 0.0 < a_moment == pytest.approx(0.2 * half)
    assert half == pytest.approx(0.5 * one)
    assert pain(-1.0) == pain(0.0), "a clock that was set back"


def test_coefficients_follow_the_state():
    seen = lane(**crowd(3))
    before = seen.prompt_s(1_000, 0)
    seen.view.cost = FAST.scaled(prefill=2.0, decode=1.0)  # type: ignore[misc]
    assert seen.prompt_s(1_000, 0) == before, "until it is refreshed"
    seen.refresh(0.0)
    assert seen.prompt_s(1_000, 0) == pytest.approx(before + 0.1)


class TestPromptsSentLately:
    """A card that has computed many prompts is dearer to whoever is to decode there."""

    LONG = ask("long", prompt_tokens=120_000)

    def told(self, policy: Motley, now: float) -> float:
        """The explanation's own E2E there, of a request that comes now."""
        asked = ask(forecast=100.0, arrival_s=now)
        return policy.explain(asked, [self.there], now)["a"].terms["e2e"]

    @pytest.fixture(autouse=True)
    def _there(self) -> None:
        self.there = view("a", 0)

    @pytest.mark.parametrize("began_s", [0.0, 1e6])
    def test_are_in_the_explanation_until_they_fade_whatever_the_clock_says(self, began_s: float):
        policy = motley()
        calm = self.told(policy, began_s)
        policy.dispatched(self.LONG, self.there, began_s)
        after = [self.told(policy, began_s + passed_s) for passed_s in (0.0, 10.0, 1_000.0)]
        assert after[0] > 1.3 * calm
        assert after[0] > after[1] > 1.1 * calm
        assert after[2] == pytest.approx(calm)

    def test_are_in_every_term_but_that_of_the_first_token(self):
        policy, asked = policy_of("motley", price_weight=1.0), ask()
        asked.forecast = LengthForecast(200.0, 400.0, square_tokens=70_000.0)
        there = [view("a", 0, price=3.0, **crowd(3))]
        before = policy.explain(asked, there, 0.0)["a"].terms  # type: ignore[attr-defined]
        policy.dispatched(self.LONG, there[0], 0.0)  # type: ignore[attr-defined]
        after = policy.explain(asked, there, 0.0)["a"].terms  # type: ignore[attr-defined]
        assert after["ttft"] == pytest.approx(before["ttft"])
        for term in ("e2e", "overshoot", "externality", "price"):
            assert after[term] > before[term], term

    def test_make_it_five_times_as_slow_at_most(self):
        policy = motley()
        calm = self.told(policy, 0.0)
        for n in range(1_000):
            policy.dispatched(ask(str(n), prompt_tokens=120_000), self.there, 0.0)
        assert self.told(policy, 0.0) < 25.0 * calm

    def test_are_forgotten_of_a_backend_that_left_and_came_back(self):
        policy = motley()
        policy.dispatched(self.LONG, self.there, 0.0)
        policy.lost("a")
        assert self.told(policy, 0.0) == self.told(motley(), 0.0)


def motley() -> Motley:
    """A fresh one."""
    policy = policy_of("motley")
    assert isinstance(policy, Motley)
    return policy
