"""Differences are paired, and noise is called noise."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from simulator.compare import METRICS, RANKING, best_policy, bootstrap, compare, t_interval
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.synthetic import builtin_trace
from tests.simulator.builders import fleet_config


def test_the_t_interval_is_the_textbook_s() -> None:
    """Mean 3, standard deviation 1.5811, n 5: half-width 2.776 * 1.5811 / sqrt(5)."""
    low, high = t_interval([1.0, 2.0, 3.0, 4.0, 5.0])

    assert (low, high) == pytest.approx((3 - 1.9629, 3 + 1.9629), abs=1e-3)


def test_the_bootstrap_covers_a_true_difference_and_not_zero() -> None:
    rng = np.random.default_rng(1)
    theirs = rng.exponential(5.0, 4000)
    mine = theirs + 2.0

    low, high = bootstrap(RANKING, mine, theirs)

    assert low <= 2.0 <= high
    assert low > 1.5


def test_the_bootstrap_calls_equal_distributions_noise_about_nineteen_times_in_twenty() -> None:
    mean = next(metric for metric in METRICS if metric.name == "E2E mean")
    noise = 0
    for seed in range(60):
        rng = np.random.default_rng(seed)
        low, high = bootstrap(mean, rng.exponential(5.0, 800), rng.exponential(5.0, 800))
        noise += low <= 0 <= high

    assert noise >= 52


def test_a_handful_of_requests_tells_nothing_of_a_difference() -> None:
    """Of one request every draw is that request: an interval of no width, that never holds 0."""
    few, enough = np.arange(1.0, 40.0), np.arange(1.0, 41.0)

    assert np.isnan(bootstrap(RANKING, few, few + 1.0)).all()
    assert bootstrap(RANKING, enough + 1.0, enough)[0] > 0.0


def test_requests_that_never_finished_do_not_count_as_fast() -> None:
    values = np.array([1.0, np.nan, 3.0, np.nan])

    assert RANKING.of(values) == pytest.approx(2.98)
    assert np.isnan(RANKING.of(np.array([np.nan])))


def test_round_robin_is_worse_than_motley_and_motley_is_not_worse_than_itself() -> None:
    config = fleet_config()
    options = ReplayOptions()
    results = []
    for seed in range(3):
        trace = builtin_trace("azure-conv-like", duration_s=60, seed=seed)
        results += [
            run_policy(trace, config, policy, replace(options, seed=seed))
            for policy in ("motley", "round-robin")
        ]

    assert best_policy(results) == "motley"
    (difference,) = compare(results, [RANKING])
    assert (difference.policy, difference.method) == ("round-robin", "seeds")
    assert difference.verdict == "worse"
    alone = [result for result in results if result.policy == "motley"]
    assert compare(alone) == []
