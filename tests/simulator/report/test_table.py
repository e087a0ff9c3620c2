"""The table in the terminal: fits in 80 columns, marks the best, tells the losses."""

from __future__ import annotations

import io
from dataclasses import replace

import numpy as np
from rich.console import Console

from simulator.compare import RANKING, compare
from simulator.options import ReplayOptions
from simulator.report.table import average_seeds, results_table
from simulator.report.words import seconds
from simulator.results import RunResult
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.synthetic import builtin_trace
from simulator.traces.transform import assign
from tests.simulator.builders import fleet_config


def results(*, seconds_long: float = 30.0, **options: object) -> list[RunResult]:
    trace = builtin_trace("azure-conv-like", duration_s=seconds_long, seed=1)
    chosen = ReplayOptions(**options)  # type: ignore[arg-type]
    return [run_policy(trace, fleet_config(), name, chosen) for name in ("motley", "round-robin")]


def classed_results() -> list[RunResult]:
    trace = builtin_trace("azure-conv-like", duration_s=30.0, seed=1)
    shares = {"interactive": 3.0, "throughput": 1.0}
    classed = assign(trace, "slo_class", shares, np.random.default_rng(0))
    return [run_policy(classed, fleet_config(), name) for name in ("motley", "round-robin")]


def shown(runs: list[RunResult], width: int) -> list[str]:
    console = Console(file=io.StringIO(), width=width)
    summaries = [summarize(run) for run in runs]
    console.print(results_table(summaries, compare(runs, [RANKING]), wide=width > 130))
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue().splitlines()


def test_eighty_columns_show_every_figure_uncut() -> None:
    lines = shown(results(), 80)

    assert not any("…" in line for line in lines)
    assert any(line.strip().startswith("motley") and "best" in line for line in lines)


def test_eighty_columns_show_every_figure_of_every_class_uncut() -> None:
    lines = shown(classed_results(), 80)

    assert not any("…" in line for line in lines)
    assert sum("throughput" in line for line in lines) == 2
    assert any("wait" in line for line in shown(classed_results(), 140))


def test_a_wide_terminal_shows_intervals() -> None:
    text = "\n".join(shown(results(), 160))

    assert "[+" in text
    assert "good" in text


def test_lost_requests_get_a_column_and_a_reason() -> None:
    text = "\n".join(shown(results(client_timeout_s=1.0), 100))

    assert "lost" in text
    assert "client_timeout" in text


def test_seeds_are_averaged_figure_by_figure() -> None:
    first, second = (summarize(results(seed=seed)[0]) for seed in (0, 1))
    (average,) = average_seeds([first, second])

    for name in ("ttft_s", "e2e_s"):
        expected = (first[name]["p99"] + second[name]["p99"]) / 2
        assert average[name]["p99"] == expected


def test_seconds_have_three_digits_that_matter() -> None:
    assert [seconds(v) for v in (None, 0.01234, 1.234, 99.99, 123.4)] == [
        "-",
        "0.012",
        "1.23",
        "99.99",
        "123",
    ]


def test_the_footnote_claims_noise_only_where_there_is_some() -> None:
    runs = results()
    twin = replace(runs[0], policy="motley-again")

    assert "Every difference is more than noise" in footnotes(runs)
    assert "noise: the 95 % interval of the difference holds zero" in footnotes([runs[0], twin])


def test_of_a_few_requests_no_difference_is_called_more_than_noise() -> None:
    text = footnotes(results(seconds_long=2.0))

    assert "more than noise" not in text
    assert "fewer than 40 requests" in text


def footnotes(runs: list[RunResult]) -> str:
    table = results_table([summarize(run) for run in runs], compare(runs, [RANKING]), wide=False)
    console = Console(file=io.StringIO(), width=200)
    console.print(table)
    assert isinstance(console.file, io.StringIO)
    return console.file.getvalue()
