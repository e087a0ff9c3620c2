"""The anytime search: as good as branch and bound, and stoppable from outside."""

from __future__ import annotations

import numpy as np
import pytest

from router.domain.errors import SolverError
from solver import background
from solver.assemble import build_problem
from solver.background import search_apart
from solver.highs import Highs
from solver.model import Model
from solver.options import Limits, Weights
from solver.search import Task, search
from solver.stock import stock_of
from tests.solver import children
from tests.solver.tiny import backends, demand, fleet, work


def _task(**fields: object) -> Task:
    mixed = fleet(backends("a100-80", 2), backends("l4", 4), backends("t4", 2, tensor_parallel=2))
    classes = [
        work(rate, prompt=prompt, model=model, slo=slo)
        for model in ("llama-3.1-8b", "llama-3.2-3b")
        for rate, prompt, slo in ((2.0, 300, "interactive"), (0.5, 3000, "bulk"))
    ]
    given = build_problem(demand(*classes), stock_of(mixed, {"llama-3.2-3b"}), Limits())
    form = Model(given, placing=True).fill(given, Weights())
    pools = [given.bases[column.base].candidate.pool for column in given.columns]
    return Task(form, np.array(pools, dtype=np.int64), **fields)  # type: ignore[arg-type]


def test_it_finds_the_optimum_and_proves_it() -> None:
    task = _task(gap=1e-6)
    exact = Highs(task.form).solve(time_limit_s=60, gap=1e-6)
    found = search(task)
    assert found.objective == pytest.approx(exact.objective, rel=1e-5)
    assert found.gap < 1e-5
    assert not found.infeasible


def test_improvements_are_reported_in_falling_order() -> None:
    seen: list[float] = []
    search(_task(), report=lambda found: seen.append(found.objective))
    assert seen
    assert seen == sorted(seen, reverse=True)


def test_neighbourhoods_alone_reach_the_optimum(monkeypatch: pytest.MonkeyPatch) -> None:
    """Branch and bound gets no time, so that what is found is what improving found."""
    monkeypatch.setattr("solver.search._SHARE_OF_BRANCHING", 1e-9)
    task = _task(gap=1e-3, time_limit_s=4.0)
    exact = Highs(task.form).solve(time_limit_s=60, gap=1e-6)
    assert search(task).objective <= exact.objective * 1.05


def test_it_is_never_worse_than_where_it_starts() -> None:
    best = search(_task(gap=1e-6))
    again = search(_task(running=(best.replicas,), time_limit_s=5.0))
    assert again.objective <= best.objective * (1 + 1e-6)


def test_a_start_that_breaks_the_rules_is_ignored() -> None:
    task = _task()
    absurd = np.full(len(task.pool_of), 1000, dtype=np.int64)
    assert search(_task(running=(absurd,))).replicas.max() < 1000


def test_an_impossible_problem_is_told_so() -> None:
    task = _task()
    nothing = np.zeros(len(task.pool_of))
    impossible = Task(task.form.bounded("replicas", nothing, nothing), task.pool_of)
    assert search(impossible).infeasible


def test_out_of_time_nothing_is_found_and_nothing_is_claimed() -> None:
    found = search(_task(time_limit_s=1e-9))
    assert len(found.replicas) == 0
    assert not found.infeasible
    assert found.gap == float("inf")


def test_a_process_of_its_own_finds_the_same() -> None:
    task = _task(gap=1e-6)
    assert search_apart(task).objective == pytest.approx(search(task).objective, rel=1e-5)


def test_a_search_that_overruns_is_stopped_and_its_best_kept(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(background, "OVERRUN_S", 0.2)
    found = search_apart(_task(time_limit_s=0.2), target=children.finds_then_hangs)
    assert found.objective == 5.0
    assert found.replicas.tolist() == [1, 2]


def test_a_search_that_dies_says_so() -> None:
    with pytest.raises(SolverError, match="found nothing in 5 s"):
        search_apart(_task(time_limit_s=5.0), target=children.dies)


def test_an_error_in_the_child_is_the_callers_error() -> None:
    with pytest.raises(SolverError, match="HiGHS is missing"):
        search_apart(_task(), target=children.fails)
