"""The search in a process of its own: it can be stopped whatever the solver is doing.

The gateway must not share an interpreter with minutes of branch and bound, and HiGHS now and
then overruns its time limit. The child needs NumPy and HiGHS only, not CVXPY.
"""

from __future__ import annotations

import multiprocessing
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from multiprocessing.connection import Connection
from typing import Any

from router.domain.errors import MotleyError, SolverError
from solver.answer import Plan
from solver.capacity import Believed
from solver.options import Limits, Weights
from solver.search import Clock, Found, Task, search
from solver.stock import Stock
from solver.workload import Workload

START_UP_S = 60.0
"""Longest time to start an interpreter and import the solver on a busy machine."""
OVERRUN_S = 2.0
"""How long past its time limit a search may go on before it is stopped."""

_LOOK_S = 0.1

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
    with _child(target, task) as receiver:
        best = _listen(receiver, clock, task.time_limit_s)
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


PlanWork = Callable[["PlanTask", Connection], None]


@dataclass(frozen=True, slots=True)
class PlanTask:
    """A whole plan to make; travels to another process."""

    workload: Workload
    stock: Stock
    weights: Weights
    limits: Limits
    believed: Believed


def plan_work(task: PlanTask, results: Connection) -> None:
    """Plan and send the answer, or why there is none; runs in the child."""
    from solver.plan import plan_stock  # noqa: PLC0415 - in the child only

    results.send("ready")
    try:
        results.send(
            plan_stock(task.workload, task.stock, task.weights, task.limits, believed=task.believed)
        )
    except MotleyError as error:
        results.send(error)
    finally:
        results.close()


def plan_apart(
    task: PlanTask,
    *,
    stopped: Callable[[], bool] = lambda: False,
    clock: Clock = time.perf_counter,
    target: PlanWork = plan_work,
) -> Plan:
    """Make a plan in a child process: stating the problem takes the interpreter, too.

    Args:
        task: what to plan.
        stopped: asked now and then whether nobody wants the plan any more.
        clock: seconds; only differences matter.
        target: what the child does.

    Raises:
        PlanError: there is no plan, or none in time.
        WorkloadError: demand or limits that make no sense.
    """
    with _child(target, task) as receiver:
        _next(receiver, clock() + START_UP_S, stopped, clock)
        allowed_s = START_UP_S + task.limits.time_limit_s + OVERRUN_S
        found = _next(receiver, clock() + allowed_s, stopped, clock)
    assert isinstance(found, Plan)
    return found


def _next(
    receiver: Connection, deadline: float, stopped: Callable[[], bool], clock: Clock
) -> object:
    """The next message of the child, an error raised."""
    while not receiver.poll(_LOOK_S):
        if stopped():
            raise SolverError("planning was stopped")
        if clock() > deadline:
            raise SolverError("no plan in time; raise planner.placement.time_limit_s")
    try:
        message = receiver.recv()
    except EOFError:
        raise SolverError("the planning process ended without an answer") from None
    if isinstance(message, MotleyError):
        raise message
    return message


@contextmanager
def _child(target: Callable[[Any, Connection], None], task: object) -> Iterator[Connection]:
    """A process that works on a task, and is ended whatever it does."""
    context: Any = multiprocessing.get_context("spawn")
    receiver, sender = context.Pipe(duplex=False)
    child = context.Process(target=target, args=(task, sender), daemon=True)
    child.start()
    sender.close()
    try:
        yield receiver
    finally:
        receiver.close()
        child.terminate()
        child.join(5.0)
        if child.is_alive():
            child.kill()
