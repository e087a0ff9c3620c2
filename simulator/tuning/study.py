"""The unattended search for weights: Optuna, kept in SQLite so that it can be resumed."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from router.domain.errors import ConfigError, InfeasiblePlanError, PlanError, SolverError
from simulator.tuning.choose import MISSED_USD, Goal
from simulator.tuning.trial import Measured, Trials
from solver.options import Weights

RANGES: Mapping[str, tuple[float, float]] = {"cost": (1e-3, 30.0), "energy": (1e-3, 100.0)}
"""What is searched, on a logarithmic scale; ``latency`` is the unit and stays at 1."""

Progress = Callable[[int, int, float], object]
"""Told (trials done, trials in all, the best score so far)."""


Together = Callable[
    [Sequence[Mapping[str, float]]], Iterator[tuple[Mapping[str, float], Measured | None, str]]
]
"""Measures several sets of weights at once, in whatever order: ``simulator.sweep.executors``."""


@dataclass(frozen=True, slots=True)
class Tuned:
    """The outcome.

    Attributes:
        best: measured on the slice that was chosen by.
        trials: in all, earlier runs included.
        resumed: of those, from earlier runs.
        placements: different ones that were simulated here and now.
    """

    best: Measured
    trials: int
    resumed: int
    placements: int


def tune(
    trials: Trials,
    goal: Goal,
    *,
    count: int,
    current: Mapping[str, float],
    path: Path,
    name: str,
    seed: int = 0,
    progress: Progress | None = None,
    together: Together | None = None,
    jobs: int = 1,
) -> Tuned:
    """Search until there are ``count`` trials, earlier runs of the same name included.

    Args:
        trials: measures weights on the slice to choose by.
        goal: how they are scored.
        count: trials in all.
        current: weights in force, tried first.
        path: of the SQLite file.
        name: of the study: the same question must have the same name.
        seed: of the sampler.
        progress: told after every trial.
        together: measures trials elsewhere, ``jobs`` of them at once; they are chosen without
            knowing of each other, so that the search takes a few more of them.
        jobs: how many.

    Raises:
        ConfigError: Optuna is missing, or the file cannot be used.
        PlanError: no weights lead to a plan that can be simulated.
    """
    study = _open(path, name, seed, jobs)
    resumed = len(study.trials)
    if not resumed:
        defaults = Weights()
        for first in ({**_plain(defaults), **current}, _plain(defaults)):
            study.enqueue_trial({k: _within(k, first[k]) for k in RANGES}, skip_if_exists=True)
    while len(study.trials) < count:
        asked = [study.ask() for _ in range(min(jobs, count - len(study.trials)))]
        for trial, measured, failure in _measured(trials, together, asked):
            _tell(study, goal, trial, measured, failure)
            if progress is not None:
                progress(len(study.trials), max(count, resumed), study.best_value)
    found = study.best_trial.user_attrs.get("measured")
    if found is None:
        failure = study.best_trial.user_attrs.get("failure", "every trial failed")
        raise PlanError(f"no weights lead to a plan: {failure}")
    return Tuned(Measured(**found), len(study.trials), resumed, trials.simulated)


def _weights_of(trial: Any) -> dict[str, float]:
    return {k: trial.suggest_float(k, *bounds, log=True) for k, bounds in RANGES.items()}


def _measured(
    trials: Trials, together: Together | None, asked: Sequence[Any]
) -> Iterator[tuple[Any, Measured | None, str]]:
    """(trial, what it comes to, or why it comes to nothing), as they end."""
    weighted = {tuple(sorted(_weights_of(trial).items())): trial for trial in asked}
    if together is not None:
        for weights, measured, failure in together([dict(key) for key in weighted]):
            yield weighted[tuple(sorted(weights.items()))], measured, failure
        return
    for key, trial in weighted.items():
        try:
            yield trial, trials.measure(dict(key)), ""
        except (InfeasiblePlanError, SolverError, PlanError) as error:
            yield trial, None, str(error)


def _tell(study: Any, goal: Goal, trial: Any, measured: Measured | None, failure: str) -> None:
    if measured is None:
        trial.set_user_attr("failure", failure)
        study.tell(trial, 10.0 * MISSED_USD)
        return
    trial.set_user_attr("measured", asdict(measured))
    study.tell(trial, goal.score(measured))


def _plain(weights: Weights) -> dict[str, float]:
    return asdict(weights)


def _within(name: str, value: float) -> float:
    low, high = RANGES[name]
    return min(high, max(low, value))


def _open(path: Path, name: str, seed: int, jobs: int) -> Any:
    try:
        import optuna  # noqa: PLC0415 - an extra
        from sqlalchemy.exc import SQLAlchemyError  # noqa: PLC0415 - comes with it
    except ImportError as error:
        raise ConfigError(
            "motley tune needs an extra: pip install 'motley-router[tune]'"
        ) from error
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    try:
        return optuna.create_study(
            study_name=name,
            storage=f"sqlite:///{path}",
            direction="minimize",
            sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=jobs > 1),
            load_if_exists=True,
        )
    except SQLAlchemyError as error:
        raise ConfigError(
            f"cannot keep the study in {path}: {str(error).splitlines()[0]}"
        ) from error
