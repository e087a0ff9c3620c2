"""What a search in a process of its own may do besides searching. Light to import: each child
starts from nothing."""

from __future__ import annotations

import time
from multiprocessing.connection import Connection

import numpy as np

from router.domain.errors import SolverError
from solver.search import Found, Task


def finds_then_hangs(task: Task, results: Connection) -> None:
    results.send("ready")
    results.send(Found(np.array([1, 2]), 5.0, 4.0))
    time.sleep(600)


def dies(task: Task, results: Connection) -> None:
    results.send("ready")
    raise SystemExit(3)


def fails(task: Task, results: Connection) -> None:
    results.send(SolverError("the solver HiGHS is missing"))
