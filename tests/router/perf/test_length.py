"""Length predictors: what they know before data, how they learn, what they forget."""

from __future__ import annotations

import math
import random
from dataclasses import replace

import pytest

from router.domain.outcome import Outcome
from router.domain.protocols import LengthPredictor
from router.domain.request import LengthForecast, Request
from router.perf.length import (
    AZURE_CONVERSATION,
    BucketLengthPredictor,
    ConstantLengthPredictor,
)


def ask(
    prompt: int = 1000,
    limit: int | None = None,
    tenant: str = "",
    model: str = "m",
    name: str = "r",
) -> Request:
    return Request(name, model, 0.0, prompt, max_tokens=limit, tenant=tenant)


def done(
    tokens: int,
    prompt: int = 1000,
    limit: int | None = None,
    tenant: str = "",
    status: str = "completed",
) -> Outcome:
    return Outcome(
        *("r", "m", "interactive", tenant, "b", status),
        *(0.0, 0.0, 0.1, 1.0, prompt, tokens, None, limit, 0, 0, 0.1, 0.01, 100.0),
    )


@pytest.mark.parametrize("predictor", [ConstantLengthPredictor(), BucketLengthPredictor()])
def test_before_data_both_say_what_the_azure_conversations_say(predictor: LengthPredictor):
    assert predictor.forecast(ask()) == AZURE_CONVERSATION


@pytest.mark.parametrize("predictor", [ConstantLengthPredictor(), BucketLengthPredictor()])
def test_no_forecast_exceeds_the_clients_limit(predictor: LengthPredictor):
    assert predictor.forecast(ask(limit=16)) == LengthForecast(16, 16, 256)
    capped = predictor.forecast(ask(limit=300))
    assert (capped.mean_tokens, capped.p90_tokens) == (AZURE_CONVERSATION.mean_tokens, 300)


def test_the_constant_predictor_learns_nothing():
    predictor = ConstantLengthPredictor(LengthForecast(50, 80, 3_000))
    for _ in range(100):
        predictor.observe(done(1000))
    assert predictor.forecast(ask()) == LengthForecast(50, 80, 3_000)


def test_mean_and_p90_converge_to_the_distribution():
    # Log-normal, median 100, sigma 0.8: mean = 100 exp(0.32), P90 = 100 exp(0.8 * 1.2816).
    predictor, rng = BucketLengthPredictor(), random.Random(7)
    for _ in range(3000):
        predictor.observe(done(round(rng.lognormvariate(math.log(100), 0.8))))
    forecast = predictor.forecast(ask())
    assert forecast.mean_tokens == pytest.approx(137.7, rel=0.10)
    assert forecast.p90_tokens == pytest.approx(278.8, rel=0.15)


def test_nine_of_ten_stay_below_the_p90():
    predictor, rng = BucketLengthPredictor(), random.Random(3)
    below = 0
    for n in range(6000):
        prompt = rng.choice((100, 1000, 8000))
        tokens = max(1, round(rng.expovariate(1 / (prompt / 10))))
        below += n >= 1000 and tokens <= predictor.forecast(ask(prompt)).p90_tokens
        predictor.observe(done(tokens, prompt))
    assert below / 5000 == pytest.approx(0.90, abs=0.02)


def test_one_observation_moves_a_leaf_by_its_share():
    # Each of model, tenant, bucket, leaf holds one value x and weighs 1 against 10 of the parent:
    # the estimate is x + (prior - x) (10/11)^4.
    predictor = BucketLengthPredictor(strength=10)
    predictor.observe(done(1000))
    expected = 1000 + (211.1 - 1000) * (10 / 11) ** 4
    assert predictor.forecast(ask()).mean_tokens == pytest.approx(expected)


def test_prompt_buckets_are_told_apart_and_a_new_one_speaks_for_its_tenant():
    predictor = BucketLengthPredictor()
    for _ in range(300):
        predictor.observe(done(20, prompt=100))
        predictor.observe(done(400, prompt=4000))
    assert predictor.forecast(ask(100)).mean_tokens == pytest.approx(20, rel=0.3)
    assert predictor.forecast(ask(4000)).mean_tokens == pytest.approx(400, rel=0.1)
    assert predictor.forecast(ask(700)).mean_tokens == pytest.approx(210, rel=0.1)


def test_a_new_tenant_speaks_for_its_model():
    predictor = BucketLengthPredictor()
    for _ in range(300):
        predictor.observe(done(900, tenant="a"))
    assert predictor.forecast(ask(tenant="b")).mean_tokens == pytest.approx(900, rel=0.05)
    assert predictor.forecast(ask(model="other")) == AZURE_CONVERSATION


def test_old_observations_fade():
    predictor = BucketLengthPredictor(memory=100)
    for tokens in [1000] * 1000 + [50] * 500:
        predictor.observe(done(tokens))
    # 500 observations at 1/100 each leave exp(-5) of the old 1,000.
    forecast = predictor.forecast(ask())
    assert forecast.mean_tokens == pytest.approx(50 + 950 * math.exp(-5), rel=0.1)


def test_answers_cut_off_by_their_own_limit_do_not_drag_the_others_down():
    predictor = BucketLengthPredictor()
    for _ in range(200):
        predictor.observe(done(500))
        predictor.observe(done(8, limit=8))
    assert predictor.forecast(ask(limit=8)) == LengthForecast(8, 8, 64)
    assert predictor.forecast(ask(prompt=50)).mean_tokens > 450


@pytest.mark.parametrize("status", ["failed", "cancelled"])
def test_only_completed_requests_teach(status: str):
    predictor = BucketLengthPredictor()
    for _ in range(50):
        predictor.observe(done(3, status=status))
    predictor.observe(done(0))
    assert predictor.forecast(ask()) == AZURE_CONVERSATION


def test_invented_tenants_cannot_fill_the_memory():
    predictor = BucketLengthPredictor(max_leaves=50)
    for _ in range(100):
        predictor.observe(done(900, tenant="regular"))
    for n in range(1000):
        predictor.forecast(ask(tenant=f"invented-{n}"))
        predictor.observe(done(900, tenant="regular"))
    assert len(predictor) == 50
    assert predictor.forecast(ask(tenant="regular")).mean_tokens == pytest.approx(900, rel=0.1)


@pytest.mark.parametrize("prompt", [0, 1, 2, 3, 10**9])
def test_any_prompt_length_has_a_bucket(prompt: int):
    assert BucketLengthPredictor().forecast(ask(prompt)) == AZURE_CONVERSATION


def test_the_p90_is_never_below_the_mean():
    predictor, rng = BucketLengthPredictor(), random.Random(1)
    for _ in range(500):
        predictor.observe(done(rng.choice((1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 1, 5000))))
        forecast = predictor.forecast(ask())
        assert forecast.p90_tokens >= forecast.mean_tokens


def test_the_same_is_said_until_something_is_learned_and_then_anew():
    predictor = BucketLengthPredictor()
    first = predictor.forecast(ask(limit=300))
    assert predictor.forecast(ask(limit=300)) is first
    assert predictor.forecast(ask(limit=301)) != first, "another limit in the same bucket"
    predictor.observe(done(40, limit=300))
    assert predictor.forecast(ask(limit=300)).mean_tokens < first.mean_tokens


def test_short_answers_that_are_over_first_do_not_pass_for_all():
    """Half are 20 tokens and half 400; when traffic begins, only the short ones are over soon."""
    predictor, of_the_finished = BucketLengthPredictor(), BucketLengthPredictor()
    for n in range(40):
        request = ask(name=str(n))
        request.forecast = predictor.forecast(request)
        predictor.begun(request)
    for n in range(20):
        predictor.observe(replace(done(20), request_id=str(n)))
        of_the_finished.observe(done(20))
    assert of_the_finished.forecast(ask()).mean_tokens < 30
    assert predictor.forecast(ask()).mean_tokens > 100
    for n in range(20, 40):
        predictor.observe(replace(done(400), request_id=str(n)))
        of_the_finished.observe(done(400))
    assert predictor.forecast(ask()) == of_the_finished.forecast(ask())


def test_whatever_ends_an_attempt_it_counts_as_under_way_no_more():
    predictor = BucketLengthPredictor()
    request = ask()
    request.forecast = LengthForecast(5_000.0, 9_000.0, 3e7)
    predictor.begun(request)
    assert predictor.forecast(ask()).mean_tokens > 1_000
    predictor.observe(done(0, status="cancelled"))
    assert predictor.forecast(ask()) == AZURE_CONVERSATION


# -- over a restart ---------------------------------------------------------------------------


def taught(tokens: float = 300.0, n: int = 400, seed: int = 1) -> BucketLengthPredictor:
    """One that has seen answers of two tenants, short and long prompts."""
    rng = random.Random(seed)
    predictor = BucketLengthPredictor()
    for _ in range(n):
        length = max(1, int(rng.lognormvariate(math.log(tokens) - 0.5, 1.0)))
        prompt, limit = rng.choice((100, 1000, 3000)), rng.choice((None, 4096))
        predictor.observe(done(length, prompt, limit, rng.choice(("", "t"))))
    return predictor


def asks() -> list[Request]:
    return [
        ask(prompt, limit, tenant)
        for prompt in (10, 100, 1000, 3000, 9000)
        for limit in (None, 100, 4096)
        for tenant in ("", "t", "new")
    ]


def test_after_a_restart_it_says_what_it_said():
    before, after = taught(), BucketLengthPredictor()
    assert after.restore(before.cells()) == len(before.cells())
    assert {c.key: c for c in after.cells()} == {c.key: c for c in before.cells()}
    for request in asks():
        assert after.forecast(request) == before.forecast(request)


def test_what_is_under_way_is_not_kept():
    before, after = taught(), BucketLengthPredictor()
    told = before.forecast(ask())
    request = ask(name="under way")
    request.forecast = LengthForecast(9000.0, 9000.0, 8.1e7)
    before.begun(request)
    after.restore(before.cells())
    assert after.forecast(ask()) == told


def test_half_the_weight_gives_way_to_new_answers_twice_as_fast():
    shares = []
    for keep in (1.0, 0.5):
        after = BucketLengthPredictor()
        after.restore(taught(n=2000).cells(), keep=keep)
        old = after.forecast(ask()).mean_tokens
        for _ in range(20):
            after.observe(done(1))
        shares.append(after.forecast(ask()).mean_tokens / old)
    assert shares[1] < shares[0] < 1.0


def test_what_was_learned_since_is_not_touched():
    after = BucketLengthPredictor()
    for _ in range(50):
        after.observe(done(7))
    known = {cell.key: cell for cell in after.cells()}
    after.restore(taught().cells())
    assert {cell.key: cell for cell in after.cells() if cell.key in known} == known
    assert len(after.cells()) > len(known)


def test_cells_without_a_leaf_below_them_are_left_out():
    parents = [cell for cell in taught().cells() if len(cell.key) < 4]
    after = BucketLengthPredictor()
    assert after.restore(parents) == 0
    assert after.forecast(ask()) == AZURE_CONVERSATION


def test_no_more_leaves_are_kept_than_there_is_room_for():
    after = BucketLengthPredictor(max_leaves=2)
    after.restore(taught().cells())
    assert len(after) == 2


def test_the_same_traffic_goes_on_and_is_hardly_ever_taken_for_another():
    """A false alarm costs what was kept of one model, as if the start had been cold."""
    forgot = 0
    for seed in range(20):
        after = BucketLengthPredictor()
        after.restore(taught(seed=seed).cells())
        weight = max(cell.weight for cell in after.cells())
        rng = random.Random(seed + 1000)
        for _ in range(400):
            length = max(1, int(rng.lognormvariate(math.log(300.0) - 0.5, 1.0)))
            after.observe(done(length, rng.choice((100, 1000, 3000))))
        forgot += max(cell.weight for cell in after.cells()) <= weight
    assert forgot <= 2


@pytest.mark.parametrize("seed", range(20))
def test_longer_answers_than_ever_are_believed_after_twenty(seed: int):
    """Learned on completions of code, restarted into conversations."""
    after = BucketLengthPredictor()
    after.restore(taught(tokens=28.0, seed=seed).cells())
    rng = random.Random(seed)
    for _ in range(20):
        after.observe(done(max(1, int(rng.lognormvariate(math.log(211.0) - 0.5, 1.0)))))
    assert after.forecast(ask()).mean_tokens > 100.0


def test_shorter_answers_are_no_reason_to_forget_as_short_ones_are_over_first():
    after = BucketLengthPredictor()
    after.restore(taught().cells())
    for _ in range(12):
        after.observe(done(5))
    assert after.forecast(ask()).mean_tokens > 150.0
