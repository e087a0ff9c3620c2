"""Where runs and trials happen: in processes of this machine, or on Ray."""

from __future__ import annotations

import multiprocessing
import signal
import socket
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import FIRST_COMPLETED, Future, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from typing import Any, Generic, TypeVar

from router.domain.errors import ConfigError
from simulator.summary import Summary
from simulator.sweep.cell import Cell

Work = TypeVar("Work")
Made = TypeVar("Made")

Done = tuple[Work, Made | None, str]
"""A piece of work, its result or ``None``, and what went wrong."""

Outcome = Done[Cell, Summary]
Executor = Callable[[Sequence[Cell]], Iterator[Outcome]]

_REACH_S = 5.0


class LocalPool(Generic[Work, Made]):
    """Processes of this machine, started afresh so that no state leaks in.

    A worker that dies (out of memory, a signal) takes the pool with it. The cells it may have
    died of are then run one by one, so that the guilty one is known and the others are kept.

    Args:
        jobs: processes.
        run: what a worker does with a piece of work.
    """

    def __init__(self, jobs: int, run: Callable[[Work], Made]) -> None:
        self._jobs = jobs
        self._run = run

    def __call__(self, cells: Sequence[Work]) -> Iterator[Done[Work, Made]]:
        """Run cells; yields each as it ends, whatever the order."""
        todo, suspects = deque(cells), deque[Work]()
        while todo:
            yield from self._round(todo, suspects, self._jobs)
        while suspects:
            alone = deque([suspects.popleft()])
            dead = deque[Work]()
            yield from self._round(alone, dead, 1)
            for cell in dead:
                yield cell, None, "the worker process died (out of memory?)"

    def _round(
        self, todo: deque[Work], suspects: deque[Work], jobs: int
    ) -> Iterator[Done[Work, Made]]:
        """Run until all is done or the pool breaks; no more is handed out than runs at once."""
        context = multiprocessing.get_context("spawn")
        pool = ProcessPoolExecutor(jobs, mp_context=context, initializer=_die_of_ctrl_c)
        running: dict[Future[Made], Work] = {}
        try:
            while todo or running:
                while todo and len(running) < jobs:
                    running[pool.submit(self._run, todo[0])] = todo[0]
                    todo.popleft()
                done, _ = wait(running, return_when=FIRST_COMPLETED)
                for future in done:
                    cell = running.pop(future)
                    error = future.exception()
                    if isinstance(error, BrokenProcessPool):
                        suspects.extend([cell, *running.values()])
                        return
                    made = future.result() if error is None else None
                    yield cell, made, f"{type(error).__name__}: {error}" if error else ""
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _die_of_ctrl_c() -> None:
    """Ctrl-C reaches the workers too: let them go at once and without a word."""
    signal.signal(signal.SIGINT, signal.SIG_DFL)


class RayPool(Generic[Work, Made]):
    """Tasks on a Ray cluster; files must be visible under the same paths on every machine.

    Args:
        address: of the cluster; ``None`` starts one on this machine.
        jobs: tasks at once; ``None`` lets Ray decide by its CPUs.
        run: what a task does with a piece of work; it travels to the cluster once.

    Attributes:
        jobs: tasks at once.

    Raises:
        ConfigError: Ray is not installed, does not start, or the cluster cannot be reached.
    """

    def __init__(self, address: str | None, jobs: int | None, run: Callable[[Work], Made]) -> None:
        try:
            import ray  # noqa: PLC0415 - an extra, not a dependency
        except ImportError:
            raise ConfigError("--ray needs Ray: pip install 'motley-router[ray]'") from None
        _check_reachable(address)
        self._ray: Any = ray
        self._run = run
        self._owned = not ray.is_initialized()
        if self._owned:
            try:
                ray.init(address=address, log_to_driver=False, include_dashboard=False)
            except Exception as error:  # noqa: BLE001 - what Ray raises where a node is late
                ray.shutdown()
                if address is not None:
                    raise ConfigError(f"no Ray cluster at {address!r}: {error}") from None
                raise ConfigError(
                    f"Ray could not start on this machine: {error} If it is only busy, start Ray "
                    "first (ray start --head) and give its address, as in --ray auto"
                ) from None
        self.jobs = jobs or 2 * max(1, int(ray.cluster_resources().get("CPU", 1)))

    def __call__(self, cells: Sequence[Work]) -> Iterator[Done[Work, Made]]:
        """Run cells; yields each as it ends, whatever the order."""
        ray, run = self._ray, self._run

        def on_a_worker(piece: Work) -> Made:  # Ray takes functions only, no bound methods
            return run(piece)

        task = ray.remote(num_cpus=1, max_retries=0)(on_a_worker)
        todo, running = deque(cells), dict[Any, Work]()
        while todo or running:
            while todo and len(running) < self.jobs:
                cell = todo.popleft()
                running[task.remote(cell)] = cell
            (done, *_), _ = ray.wait(list(running), num_returns=1)
            cell = running.pop(done)
            try:
                yield cell, ray.get(done), ""
            except ray.exceptions.RayError as error:
                cause = getattr(error, "cause", None) or error
                yield cell, None, f"{type(cause).__name__}: {cause}"

    def close(self) -> None:
        """Leave the cluster, or stop it if it was started here."""
        if self._owned:
            self._ray.shutdown()


def _check_reachable(address: str | None) -> None:
    """Ray itself would try a dead address for minutes.

    Raises:
        ConfigError: nothing listens there.
    """
    host, _, port = (address or "").removeprefix("ray://").rpartition(":")
    if not host or not port.isdigit():
        return  # none, or a word such as "auto"
    try:
        socket.create_connection((host, int(port)), timeout=_REACH_S).close()
    except OSError as error:
        raise ConfigError(f"no Ray cluster at {address!r}: {error}") from None
