"""Placing replicas within a time budget: branch and bound, then improving what it found.

HiGHS alone proves small problems optimal within a second, and leaves a few per cent on the table
on larger ones. What is left of the budget goes into re-solving the problem with most replicas
kept: around the columns where the placement disagrees with the linear relaxation (RINS, Danna et
al. 2005), and over a few pools of cards at a time. Measured (``benchmarks/solver_scaling.py``): on
1000 GPUs this is ahead of branch and bound alone, on 100 within a per cent of it and behind.
"""

from __future__ import annotations

import random
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field

import numpy as np

from solver.highs import Answer, Highs
from solver.problem import Floats, Ints
from solver.standard import StandardForm

Clock = Callable[[], float]

_KEPT_BACK = 0.15
"""Share of the budget that is left alone: HiGHS looks at its clock now and then only, and on a
thousand GPUs goes on for a second after its time is up."""

_SHARE_OF_ROUNDING = 0.2
_SHARE_OF_BRANCHING = 0.5
_STEP_S = 1.5
_NEIGHBOURS_GAP = 2e-3
_WORTHWHILE = 1e-6


@dataclass(frozen=True, slots=True)
class Task:
    """A placement to search for; plain data, so that it can travel to another process.

    Attributes:
        form: the problem; its unknown "replicas" holds the integers.
        pool_of: (J,) pool of each replica column.
        running: points worth starting from, as (J,) replicas; those that do not fit are ignored.
        time_limit_s: for the whole search.
        gap: relative optimality gap at which to stop.
        seed: of the choice of neighbourhoods (I5; a time limit still depends on the machine).
    """

    form: StandardForm
    pool_of: Ints
    running: tuple[Ints, ...] = ()
    time_limit_s: float = 30.0
    gap: float = 1e-3
    seed: int = 0


@dataclass(slots=True)
class Found:
    """The best placement so far.

    Attributes:
        replicas: (J,) integers; empty as long as nothing feasible is known.
        objective: of the placement with its best routing.
        bound: no placement can be better.
        infeasible: proven that no placement exists.
    """

    replicas: Ints = field(default_factory=lambda: np.array([], dtype=np.int64))
    objective: float = np.inf
    bound: float = -np.inf
    infeasible: bool = False

    @property
    def gap(self) -> float:
        """Relative distance to the bound; infinite while nothing is known."""
        if not np.isfinite(self.objective):
            return float("inf")
        return max(0.0, self.objective - self.bound) / max(1e-9, abs(self.objective))


Report = Callable[[Found], None]


def ignore(found: Found) -> None:
    """Report to nobody."""


def search(task: Task, *, clock: Clock = time.perf_counter, report: Report = ignore) -> Found:
    """Look for the best placement.

    Args:
        task: what to look for.
        clock: seconds; only differences matter.
        report: told of every improvement.

    Raises:
        SolverError: HiGHS is missing or failed.
    """
    return _Search(task, clock, report).run()


class _Search:
    def __init__(self, task: Task, clock: Clock, report: Report) -> None:
        self._task, self._clock, self._report = task, clock, report
        self._deadline = clock() + (1.0 - _KEPT_BACK) * task.time_limit_s
        self._place = task.form.columns["replicas"]
        self._rng = random.Random(task.seed)
        self.found = Found()

    def run(self) -> Found:
        relaxation = Highs(self._task.form, relaxed=True).solve(time_limit_s=self._left())
        if relaxation.status == "infeasible":
            self.found.infeasible = True
            return self.found
        if relaxation.usable:
            self.found.bound = relaxation.objective
        for replicas in self._task.running:
            self._try(replicas)
        if relaxation.usable:
            self._round(relaxation.x[self._place])
        if self.found.gap > self._task.gap:
            self._branch()
        if self.found.gap > self._task.gap and len(self.found.replicas) and relaxation.usable:
            self._improve(relaxation.x[self._place])
        return self.found

    def _left(self) -> float:
        return self._deadline - self._clock()

    def _try(self, replicas: Ints) -> None:
        """Take a placement if it can be completed to a feasible point that is better."""
        given = replicas.astype(float)
        form = self._task.form.bounded("replicas", given, given)
        self._take(Highs(form, relaxed=True).solve(time_limit_s=self._left()))

    def _take(self, answer: Answer) -> bool:
        enough = self.found.objective - _WORTHWHILE * abs(self.found.objective)
        if not answer.usable or not (
            answer.objective < enough or not np.isfinite(self.found.objective)
        ):
            return False
        self.found.replicas = np.round(answer.x[self._place]).astype(np.int64)
        self.found.objective = answer.objective
        self._report(self.found)
        return True

    def _round(self, relaxed: Floats) -> None:
        """Search the few placements next to the relaxation: its own columns, one up or down.

        Naive rounding can leave a rare model without any replica; this keeps every rule.
        """
        used = relaxed > _WORTHWHILE
        lower = np.where(used, np.maximum(0.0, np.floor(relaxed) - 1.0), 0.0)
        upper = np.where(used, np.ceil(relaxed) + 1.0, 0.0)
        solver = Highs(self._task.form.bounded("replicas", lower, upper))
        limit = self._left() * _SHARE_OF_ROUNDING
        self._take(solver.solve(time_limit_s=limit, gap=_NEIGHBOURS_GAP))

    def _branch(self) -> None:
        solver = Highs(self._task.form)
        if len(self.found.replicas):
            self._offer(solver)
        limit = self._left() * _SHARE_OF_BRANCHING
        answer = solver.solve(time_limit_s=limit, gap=self._task.gap)
        self.found.infeasible = answer.status == "infeasible"
        self.found.bound = max(self.found.bound, answer.bound)
        self._take(answer)
        if not len(self.found.replicas) and not self.found.infeasible:
            # Nothing yet: all the time that is left goes into finding anything at all.
            answer = solver.solve(time_limit_s=self._left(), gap=self._task.gap)
            self.found.infeasible = answer.status == "infeasible"
            self._take(answer)

    def _offer(self, solver: Highs) -> None:
        given = self.found.replicas.astype(float)
        form = self._task.form.bounded("replicas", given, given)
        answer = Highs(form, relaxed=True).solve(time_limit_s=self._left())
        if answer.usable:
            solver.start(answer.x)

    def _improve(self, relaxed: Floats) -> None:
        solver = Highs(self._task.form)
        upper = self._task.form.upper[self._place]
        freedom, overrun_s = 2.0, 0.0
        # HiGHS looks at its clock now and then only: no step begins that could end too late.
        while self._left() > overrun_s and self.found.gap > self._task.gap:
            free = self._neighbourhood(relaxed, freedom)
            kept = self.found.replicas.astype(float)
            solver.bound("replicas", np.where(free, 0.0, kept), np.where(free, upper, kept))
            began = self._clock()
            limit = min(_STEP_S, self._left() - overrun_s)
            better = self._take(solver.solve(time_limit_s=limit, gap=_NEIGHBOURS_GAP))
            took = self._clock() - began
            overrun_s = max(overrun_s, took - limit)
            if took > 0.95 * limit:
                freedom = max(1.0, freedom - 1.0)
            elif not better:
                freedom += 1.0

    def _neighbourhood(self, relaxed: Floats, freedom: float) -> np.ndarray:
        """Which columns may change: half of the time by disagreement, half of it by pool."""
        columns = len(relaxed)
        if self._rng.random() < 0.5:
            chance = 0.05 * freedom
            lucky = np.array([self._rng.random() < chance for _ in range(columns)])
            return np.asarray((np.abs(relaxed - self.found.replicas) > 0.3) | lucky)
        pools = sorted(set(self._task.pool_of.tolist()))
        chosen = self._rng.sample(pools, min(len(pools), round(freedom)))
        return np.isin(self._task.pool_of, chosen)


def best_of(founds: Sequence[Found]) -> Found:
    """The placement with the lowest objective, with the highest bound of all."""
    best = min(founds, key=lambda found: found.objective)
    return Found(
        best.replicas,
        best.objective,
        max(found.bound for found in founds),
        all(found.infeasible for found in founds),
    )
