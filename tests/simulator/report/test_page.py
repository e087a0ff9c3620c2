"""The HTML page: self-contained, the same bytes for the same runs, honest about noise."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from simulator.options import ReplayOptions
from simulator.report.page import comparison_page
from simulator.results import RunResult
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.synthetic import builtin_trace
from tests.simulator.builders import fleet_config, make_trace

pytest.importorskip("matplotlib")


def runs(names: Sequence[str]) -> list[RunResult]:
    trace = builtin_trace("azure-conv-like", duration_s=30, seed=1)
    return [run_policy(trace, fleet_config(), name, ReplayOptions()) for name in names]


def test_the_same_runs_give_the_same_bytes() -> None:
    results = runs(["motley"])

    assert comparison_page(results) == comparison_page(results)


def test_a_tie_is_called_noise_by_name() -> None:
    """The same policy under another name differs by nothing at all."""
    first, second = runs(["motley", "motley"])
    second.policy = "motley-again"

    page = comparison_page([first, second])

    assert "The difference to motley-again is <strong>noise</strong>" in page


def test_a_real_difference_is_called_more_than_noise() -> None:
    page = comparison_page(runs(["motley", "round-robin"]))

    assert "The difference to every other policy is more than noise." in page


def test_one_run_alone_needs_no_comparison() -> None:
    page = comparison_page(runs(["motley"]))

    assert page.count("<svg") == 4  # distributions, ranges, shares, engines over time
    assert "Differences" not in page


def test_many_policies_do_not_make_many_timelines() -> None:
    result = runs(["random"])[0]
    many = [replace(result, policy=f"p{k}") for k in range(14)]

    assert comparison_page(many).count("Engines over time") == 6


def test_names_from_the_user_cannot_break_the_page() -> None:
    result = runs(["motley"])[0]
    result.trace.name = "<script>alert(1)</script>"

    assert "<script>" not in comparison_page([result])


def test_runs_in_which_nothing_finished_still_make_a_page() -> None:
    config = fleet_config()
    trace = make_trace([(0.0, 900_000, 5), (1.0, 900_000, 5)])
    results = [run_policy(trace, config, name, ReplayOptions()) for name in ("motley", "random")]

    assert "Lost, over all runs: context_too_long 4." in comparison_page(results)
    assert summarize(results[0])["e2e_s"]["p99"] is None
