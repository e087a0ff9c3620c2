"""Every plan that was made: what for, what came out, and the delay it expected against the actual.

SQLite, one row a plan. A plan's actual delay is known once the next one is made, and written
into its row then. Writing happens in a thread of its own; a disk that fails costs history, never
a request.
"""

from __future__ import annotations

import json
import logging
import sqlite3
import threading
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any

from router.domain.errors import ConfigError
from router.gateway.placement.control import Placed
from router.gateway.planning import Finished

log = logging.getLogger("motley.planner")

MOST_ROWS = 100_000
"""The oldest go beyond; a month of rounds every 30 s."""
_PRUNE_EVERY = 1000

_SCHEMA = """
CREATE TABLE IF NOT EXISTS plans (
    id INTEGER PRIMARY KEY,
    at_unix_s REAL NOT NULL,
    kind TEXT NOT NULL,
    reason TEXT NOT NULL,
    outcome TEXT NOT NULL,
    failure TEXT NOT NULL,
    solve_s REAL,
    expected_e2e_s REAL,
    actual_e2e_s REAL,
    inputs TEXT NOT NULL,
    result TEXT NOT NULL
)
"""


@dataclass(frozen=True, slots=True)
class PlanRow:
    """One plan.

    Attributes:
        at_unix_s: when it was made.
        kind: "prices" (a round over the running placement) or "placement".
        reason: "period", "drift" or "membership".
        outcome: "ok" or "failed"; of placements "kept", "applied", "partly", "written"
            (dry run) or "failed".
        failure: why it failed, or empty.
        solve_s: how long it took.
        expected_e2e_s, actual_e2e_s: mean E2E it expected, and of the requests that were
            completed until the next plan; ``None`` while unknown.
        inputs, result: demand and fleet; shares, prices, replicas and steps (JSON values).
    """

    at_unix_s: float
    kind: str
    reason: str
    outcome: str
    failure: str = ""
    solve_s: float | None = None
    expected_e2e_s: float | None = None
    actual_e2e_s: float | None = None
    inputs: Mapping[str, Any] = field(default_factory=dict)
    result: Mapping[str, Any] = field(default_factory=dict)


_COLUMNS = tuple(spec.name for spec in fields(PlanRow))


class PlanHistory:
    """Writes plans to a file.

    Args:
        path: of the SQLite file; made if missing.
        unix_s: wall clock, seconds.

    Raises:
        ConfigError: the file cannot be opened or is no SQLite file.
    """

    def __init__(self, path: str | Path, unix_s: Callable[[], float]) -> None:
        self._unix_s = unix_s
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="plan-history")
        self._lock = threading.Lock()
        self._last: dict[str, int] = {}
        self._written = 0
        self._closed = False
        try:
            self._file = sqlite3.connect(path, check_same_thread=False)
            self._file.execute("PRAGMA journal_mode=WAL")
            self._file.execute(_SCHEMA)
            self._file.commit()
        except sqlite3.Error as error:
            raise ConfigError(
                f"planner.history: cannot keep plans in {path} ({error}); give a path that can be "
                "written to, or null to keep none"
            ) from error

    def finished(self, done: Finished) -> None:
        """A round of prices is over; returns at once."""
        made = done.round
        self.keep(
            PlanRow(
                self._unix_s(),
                "prices",
                done.reason,
                "failed" if done.failure else "ok",
                done.failure,
                made.solve_s if made else None,
                made.e2e_s if made else None,
                None,
                {"fleet": dict(done.fleet), **(made.asked() if made else {})},
                made.answered() if made else {"prices": dict(done.prices)},
            ),
            actual_e2e_s=done.actual_e2e_s,
        )

    def placed(self, done: Placed) -> None:
        """A placement was planned; returns at once."""
        plan = done.plan
        result = plan.to_json() if plan else {}
        self.keep(
            PlanRow(
                self._unix_s(),
                "placement",
                done.reason,
                done.outcome,
                done.failure,
                plan.solve_s if plan else None,
                plan.e2e_s if plan else None,
                None,
                done.asked,
                {
                    **result,
                    "steps": [asdict(step) for step in done.steps],
                    "preview": list(done.preview),
                },
            ),
            actual_e2e_s=done.actual_e2e_s,
        )

    def keep(self, row: PlanRow, *, actual_e2e_s: float | None = None) -> None:
        """Write a row, and into the one before of its kind what came of it; returns at once."""
        if not self._closed:  # a round may end after the gateway did
            self._writer.submit(self._write, row, actual_e2e_s)

    def _write(self, row: PlanRow, actual_e2e_s: float | None) -> None:
        values = [getattr(row, name) for name in _COLUMNS[:-2]]
        marks = ", ".join("?" * len(_COLUMNS))
        try:
            with self._lock, self._file:
                if actual_e2e_s is not None and row.kind in self._last:
                    self._file.execute(
                        "UPDATE plans SET actual_e2e_s = ? WHERE id = ?",
                        (actual_e2e_s, self._last[row.kind]),
                    )
                made = self._file.execute(
                    f"INSERT INTO plans ({', '.join(_COLUMNS)}) VALUES ({marks})",
                    (*values, json.dumps(row.inputs), json.dumps(row.result)),
                )
                self._last[row.kind] = made.lastrowid or 0
                self._written += 1
                if self._written % _PRUNE_EVERY == 0:
                    self._file.execute(
                        "DELETE FROM plans WHERE id <= (SELECT max(id) FROM plans) - ?",
                        (MOST_ROWS,),
                    )
        except sqlite3.Error as error:
            log.warning("a plan was not kept: %s", error)

    def close(self) -> None:
        """Write what is pending and let go of the file."""
        self._closed = True
        self._writer.shutdown(wait=True)
        self._file.close()


def read_history(path: Path, *, newest: int = 20) -> list[PlanRow]:
    """The newest plans of a file, oldest first.

    Raises:
        ConfigError: no such file, or not a history of plans.
    """
    if not path.is_file():
        raise ConfigError(f"there is no history of plans at {path}")
    try:
        with closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as file:
            found = list(_rows(file, newest))
    except sqlite3.Error as error:
        raise ConfigError(f"{path} is not a history of plans: {error}") from error
    return found[::-1]


def _rows(file: sqlite3.Connection, newest: int) -> Iterator[PlanRow]:
    query = f"SELECT {', '.join(_COLUMNS)} FROM plans ORDER BY id DESC LIMIT ?"
    for row in file.execute(query, (newest,)):
        values: dict[str, Any] = dict(zip(_COLUMNS, row, strict=True))
        for name in ("inputs", "result"):
            values[name] = json.loads(values[name])
        yield PlanRow(**values)
