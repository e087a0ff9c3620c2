"""From observations back to the seconds that made them."""

from dataclasses import replace

import numpy as np
import pytest

from router.domain.errors import WorkloadError
from router.perf.measured import MeasuredCost
from router.perf.measurements import Term, prefill_terms
from simulator.live.fit import COEFFICIENTS, fit_cost, predict_s
from simulator.live.observe import Observation

LINE = MeasuredCost(
    step_s=0.02, prefill_s=3e-4, seq_s=8e-4, context_s=4e-7, pair_s=2e-8, api_s=0.009
)
ROOFLINE = replace(LINE, step_s=0.002, knee_tokens=120.0)


def observations(truth, noise=0.0, seed=0):
    """A small probe of an engine whose iteration is ``truth``."""
    rng = np.random.default_rng(seed)
    shapes = [("prefill", prefill_terms(n, 2_048), 1) for n in (16, 64, 128, 512, 1_024, 3_000)]
    shapes += [("decode", (Term(0, b, b * c),), 0) for b in (1, 2, 4, 8, 16) for c in (40.0, 900.0)]
    shapes += [("mixed", (Term(n, 4, 160.0, n * n / 2),), 0) for n in (128, 512)]
    for kind, terms, requests in shapes * 3:
        seen = Observation(kind, terms, 1.0, requests)
        factor = float(np.exp(noise * rng.standard_normal()))
        yield replace(seen, time_s=predict_s(truth, seen) * factor)


def fitted(seen):
    return fit_cost(list(seen), np.random.default_rng(1))


def test_an_observation_costs_what_its_iterations_cost():
    model = ROOFLINE.iteration_model()
    seen = Observation("prefill", prefill_terms(3_000, 2_048), 1.0, 1)
    expected = model.iteration_s(2_048, 0, 0, 2_048**2 / 2)
    expected += model.iteration_s(952, 0, 0, 952 * (2_048 + 476)) + ROOFLINE.api_s
    assert predict_s(ROOFLINE, seen) == pytest.approx(expected)


@pytest.mark.parametrize("truth", [LINE, ROOFLINE], ids=["line", "roofline"])
def test_every_coefficient_is_found_again(truth):
    found = fitted(observations(truth)).cost
    for name in COEFFICIENTS:
        assert getattr(found, name) == pytest.approx(getattr(truth, name), rel=0.03), name
    assert found.knee_tokens == pytest.approx(truth.knee_tokens, rel=0.03)


def test_noise_widens_the_intervals_and_they_hold_the_truth():
    quiet, noisy = fitted(observations(LINE, 0.01)), fitted(observations(LINE, 0.1))
    assert noisy.cost.knee_tokens == 0.0
    for name in ("step_s", "prefill_s"):
        low, high = noisy.intervals[name]
        assert low < getattr(LINE, name) < high
        narrow = quiet.intervals[name]
        assert narrow[1] - narrow[0] < (high - low) / 3


def test_a_few_hiccups_do_not_move_the_fit():
    seen = list(observations(LINE, 0.01))
    for k in range(0, len(seen), 9):
        seen[k] = replace(seen[k], time_s=5.0 * seen[k].time_s)
    found = fitted(seen).cost
    assert found.step_s == pytest.approx(LINE.step_s, rel=0.05)
    assert found.prefill_s == pytest.approx(LINE.prefill_s, rel=0.05)


def test_no_work_is_paid_for_taking_place():
    free_context = replace(LINE, context_s=0.0, pair_s=0.0)
    found = fitted(observations(free_context, 0.05)).cost
    assert min(getattr(found, name) for name in COEFFICIENTS) >= 0.0


def test_what_is_held_back_is_predicted_and_not_fitted():
    seen = list(observations(LINE))
    wrong = replace(seen[0], time_s=seen[0].time_s / 2, held_back=True)
    found = fitted([*seen, wrong])
    assert found.held_back["prefill"].points == 1
    assert found.held_back["prefill"].bias == pytest.approx(100.0, rel=0.01)
    assert found.fitted["prefill"].median < 0.1


def test_too_little_to_go_by_is_an_error():
    only_prompts = [o for o in observations(LINE) if o.kind == "prefill"]
    with pytest.raises(WorkloadError, match="more --seconds"):
        fitted(only_prompts)
