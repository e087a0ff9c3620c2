"""The search in a process of its own: it can be stopped whatever the solver is doing.

The gateway must not share an interpreter with minutes of branch and bound, and HiGHS now and
then overruns its time limit. The child needs NumPy and HiGHS only, not CVXPY.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable
from multiprocessing.connection import Connection
from typing import Any

from router.domain.errors import MotleyError, SolverError
from solver.search import Clock, Found, Task, search

START_UP_S = 60.0
"""Longest time to start an interpreter and import the solver on a busy machine."""
OVERRUN_S = 2.0
"""How long past its time limit a search may go on before it is stopped."""

Work = Callable[[Task, Connection], None]


def work(task: Task, results: Connection) -> None:
    """Search, sending every improvement and at last ``None``; runs in the child."""
    results.send("ready")
    try:
        results.send(search(task, report=results.send))
        results.send(None)
    except MotleyError as error:
        results.send(error)
    finally:
        results.close()


def search_apart(task: Task, *, clock: Clock = time.perf_counter, target: Work = work) -> Found:
    """As ``search``, in a child process that is ended once its time is up.

    Raises:
        SolverError: the child failed, or ended without having found anything.
    """
    context: Any = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=target, args=(task, sender), daemon=True)
    child.start()
    sender.close()
    try:
        best = _listen(receiver, clock, task.time_limit_s)
    finally:
        receiver.close()
        child.terminate()
        child.join(5.0)
        if child.is_alive():
            child.kill()
    if best is None:
        raise SolverError(
            f"the solver process found nothing in {task.time_limit_s:g} s; raise the time limit"
        )
    return best


def _listen(receiver: Connection, clock: Clock, time_limit_s: float) -> Found | None:
    """Keep the last thing found until the child is done or its time is up."""
    best: Found | None = None
    deadline = clock() + START_UP_S
    while receiver.poll(max(0.0, deadline - clock())):
        try:
            message = receiver.recv()
        except EOFError:
            return best
        if message is None:
            return best
        if isinstance(message, MotleyError):
            raise message
        if message == "ready":
            deadline = clock() + time_limit_s + OVERRUN_S
        else:
            best = message
    return best
