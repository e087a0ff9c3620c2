"""A sweep: resumable, failures kept apart, the frontier where the SLO stops to hold."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from router.domain.errors import ConfigError
from simulator.options import ReplayOptions
from simulator.summary import Summary
from simulator.sweep.cell import Cell, run_cell
from simulator.sweep.executors import LocalPool, Outcome, RayPool
from simulator.sweep.frontier import Frontier, frontiers, midpoint
from simulator.sweep.spec import SweepSpec
from simulator.sweep.store import Store
from simulator.sweep.sweep import Sweep, SweepResult, grid, sweep_json
from simulator.workload import TraceSpec

FLEET = "backends: [{gpu: a100-80, model: llama-3.1-8b}]\n"


def small_spec(folder: Path, **changes: Any) -> SweepSpec:
    (folder / "fleet.yaml").write_text(FLEET)
    spec = SweepSpec(
        name="test",
        traces=(TraceSpec("azure-conv-like", duration_s=10.0),),
        fleets=(folder / "fleet.yaml",),
        policies=("motley", "random"),
        loads=(1.0, 2.0, 4.0),
        seeds=(0, 1),
        slo_attainment=0.9,
        refine=0,
        options=ReplayOptions(),
        faults=None,
    )
    return replace(spec, **changes)


def pretend(attainment: Callable[[Cell], float]) -> Callable[[Cell], Summary]:
    """A run that costs nothing: the SLO attainment is a formula."""

    def run(cell: Cell) -> Summary:
        met = attainment(cell)
        return {
            "policy": cell.policy,
            "offered_per_s": 5.0 * cell.load,
            "goodput_per_s": 5.0 * cell.load * met,
            "slo_attainment": met,
            "e2e_s": {"p99": 10.0 * cell.load + cell.seed},
        }

    return run


class Here:
    """An executor without processes that counts what it was asked."""

    def __init__(self, run: Callable[[Cell], Summary]) -> None:
        self._run = run
        self.asked: Counter[Cell] = Counter()

    def __call__(self, cells: Sequence[Cell]) -> Iterator[Outcome]:
        for cell in cells:
            self.asked[cell] += 1
            try:
                yield cell, self._run(cell), ""
            except ZeroDivisionError as error:
                yield cell, None, str(error)


def sweep(spec: SweepSpec, folder: Path, execute: Any, **more: Any) -> SweepResult:
    return Sweep(spec, Store(folder / "out"), execute, **more).run()


def test_a_cell_s_name_on_disk_depends_on_all_that_it_depends_on(tmp_path: Path) -> None:
    cell = grid(small_spec(tmp_path))[0]
    others = [
        replace(cell, seed=9),
        replace(cell, policy="random"),
        replace(cell, trace=replace(cell.trace, rate_scale=3.0)),
        replace(cell, trace=replace(cell.trace, classes={"bulk": 1.0})),
        replace(cell, options=replace(cell.options, model_error=0.5)),
    ]
    keys = {cell.key(), *(other.key() for other in others)}
    assert len(keys) == 1 + len(others)

    before = cell.key()
    cell.fleet.write_text(FLEET.replace("a100-80", "l4"))
    os.utime(cell.fleet, ns=(1, 1))
    assert cell.key() != before


def test_what_is_finished_is_not_run_again(tmp_path: Path) -> None:
    spec = small_spec(tmp_path)
    first, second = Here(pretend(lambda cell: 1.0)), Here(pretend(lambda cell: 1.0))

    before = sweep(spec, tmp_path, first)
    wider = replace(spec, loads=(1.0, 2.0, 4.0, 8.0))
    after = sweep(wider, tmp_path, second)

    assert len(before.results) == 12
    assert {cell.load for cell in second.asked} == {8.0}
    assert after.resumed == 12
    assert list(after.results) == grid(wider)


def test_an_interrupted_sweep_loses_nothing_finished(tmp_path: Path) -> None:
    def interrupt(cells: Sequence[Cell]) -> Iterator[Outcome]:
        yield from list(Here(pretend(lambda cell: 1.0))(cells))[:5]
        raise KeyboardInterrupt

    spec = small_spec(tmp_path)
    with pytest.raises(KeyboardInterrupt):
        sweep(spec, tmp_path, interrupt)
    again = Here(pretend(lambda cell: 1.0))
    result = sweep(spec, tmp_path, again)

    assert (result.resumed, sum(again.asked.values())) == (5, 7)


def test_a_torn_result_file_is_run_again(tmp_path: Path) -> None:
    spec = small_spec(tmp_path, loads=(1.0,), seeds=(0,), policies=("motley",))
    sweep(spec, tmp_path, Here(pretend(lambda cell: 1.0)))
    (path,) = (tmp_path / "out" / "cells").iterdir()
    path.write_bytes(path.read_bytes()[:20])
    again = Here(pretend(lambda cell: 1.0))

    sweep(spec, tmp_path, again)

    assert sum(again.asked.values()) == 1


def test_a_failed_cell_is_retried_reported_and_the_others_kept(tmp_path: Path) -> None:
    def run(cell: Cell) -> Summary:
        if cell.policy == "random" and cell.load == 2.0 and cell.seed == 1:
            raise ZeroDivisionError("no luck")
        return pretend(lambda cell: 1.0)(cell)

    here = Here(run)
    result = sweep(small_spec(tmp_path), tmp_path, here, retries=2)

    ((cell, problem),) = result.failures.items()
    assert (problem, here.asked[cell]) == ("no luck", 3)
    assert len(result.results) == 11
    assert sweep_json(result)["failed"][0]["problem"] == "no luck"


def test_the_frontier_is_the_last_load_before_the_first_that_fails(tmp_path: Path) -> None:
    """Noise above the first failure does not count as holding."""
    curve = {1.0: 0.99, 2.0: 0.95, 4.0: 0.5, 8.0: 0.93}
    spec = small_spec(tmp_path, loads=tuple(curve), policies=("motley",))
    (frontier,) = sweep(spec, tmp_path, Here(pretend(lambda c: curve[c.load]))).frontiers()

    assert frontier.holds is not None
    assert frontier.fails is not None
    assert (frontier.holds.load, frontier.fails.load) == (2.0, 4.0)
    assert midpoint(frontier) == 3.0
    assert frontier.text == "10.00"


def test_refinement_halves_towards_the_true_frontier(tmp_path: Path) -> None:
    """The SLO holds up to load 2.7; five halvings of [2, 4] come within 1/16."""
    run = pretend(lambda cell: 1.0 if cell.load <= 2.7 else 0.2)
    result = sweep(small_spec(tmp_path, refine=5), tmp_path, Here(run))

    for frontier in result.frontiers():
        assert frontier.holds is not None
        assert 2.7 - 2 / 32 <= frontier.holds.load <= 2.7


def test_a_frontier_outside_the_loads_says_so(tmp_path: Path) -> None:
    def of(met: float) -> Frontier:
        run = pretend(lambda cell: met)
        return frontiers({cell: run(cell) for cell in grid(small_spec(tmp_path))}, 0.9)[0]

    always, never = of(1.0), of(0.1)

    assert always.text == "at least 20.00"
    assert never.text == "below 5.00"
    assert midpoint(always) is midpoint(never) is None


# --- processes ---------------------------------------------------------------------------------


def misbehave(cell: Cell) -> Summary:
    """Runs in a worker: dies, raises or works, by its seed."""
    if cell.seed == 1:
        os._exit(9)
    if cell.seed == 2:
        raise ZeroDivisionError("in the worker")
    return pretend(lambda cell: 1.0)(cell)


def test_a_worker_that_dies_takes_only_its_own_cell_with_it(tmp_path: Path) -> None:
    spec = small_spec(tmp_path, loads=(1.0,), policies=("motley",), seeds=(0, 1, 2, 3))
    result = sweep(spec, tmp_path, LocalPool(2, misbehave), retries=0)

    assert {cell.seed for cell in result.results} == {0, 3}
    problems = {cell.seed: problem for cell, problem in result.failures.items()}
    assert "died" in problems[1]
    assert problems[2] == "ZeroDivisionError: in the worker"


def test_real_cells_in_processes_are_the_same_as_here(tmp_path: Path) -> None:
    spec = small_spec(tmp_path, loads=(1.0,), seeds=(0,))
    result = sweep(spec, tmp_path, LocalPool(2, run_cell))

    for cell, summary in result.results.items():
        expected = run_cell(cell)
        for name in ("ttft_s", "e2e_s", "slo_attainment", "share_by_gpu", "trace", "seed"):
            assert summary[name] == expected[name]


def started_ray() -> RayPool[Cell, Summary]:
    """Ray gives its own processes 30 s to come up, which a busy machine may not; then once more."""
    for _ in range(4):
        try:
            return RayPool(None, 2, run_cell)
        except ConfigError as error:
            if "could not start on this machine" not in str(error):
                raise
    return RayPool(None, 2, run_cell)


def test_a_ray_that_does_not_start_says_what_to_do(monkeypatch: pytest.MonkeyPatch) -> None:
    ray = pytest.importorskip("ray", reason="Ray is an extra: pip install 'motley-router[ray]'")

    class NodeIsLateError(Exception):
        """Ray raises a plain Exception."""

    def late(**_: object) -> None:
        raise NodeIsLateError("The current node timed out during startup.")

    monkeypatch.setattr(ray, "init", late)
    with pytest.raises(ConfigError, match=r"timed out.*ray start --head"):
        RayPool(None, 2, run_cell)


@pytest.mark.timeout(600)
def test_ray_runs_the_same_cells(tmp_path: Path) -> None:
    pytest.importorskip("ray", reason="Ray is an extra: pip install 'motley-router[ray]'")
    spec = small_spec(tmp_path, loads=(1.0,), seeds=(0, 2))
    pool = started_ray()
    try:
        good = sweep(spec, tmp_path, pool)
    finally:
        pool.close()

    assert len(good.results) == 4
    assert all(summary["completed"] > 0 for summary in good.results.values())
