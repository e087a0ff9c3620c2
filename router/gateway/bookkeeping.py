"""Who is told of every request that is over: the traffic record, the access log, the traces.

Each is off unless the configuration asks for it; with all of them off an exchange makes no
account at all. What they write is facts, never content.
"""

from __future__ import annotations

import asyncio
import logging
import secrets
import time
from collections.abc import Callable, Coroutine
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from router.config.load import MotleyConfig
from router.config.schema import RecordSection
from router.domain.errors import ConfigError
from router.domain.fleet import BackendSpec
from router.domain.protocols import Clock
from router.gateway.access_log import AccessLog
from router.gateway.account import Account, Accounts, Reader
from router.gateway.engine import Engine
from router.gateway.seams import LEFT_EARLY
from router.gateway.wire import Call
from telemetry.record_rows import RowMaker
from telemetry.recorder import Recorder, RecorderLimits

SALT_FILE = ".salt"
WORKER_FOLDER = "worker-"
"""Beginning of the name of a worker's own folder in the record."""
FLUSH_S = 1.0
log = logging.getLogger("motley.telemetry")

Work = Callable[[], Coroutine[Any, Any, None]]


@dataclass(slots=True)
class Books:
    """Everything that is told of requests.

    Attributes:
        accounts: joins and tells; ``None`` if nobody wants to know.
        recorder: the traffic record, if there is one.
        begin_span: called with every call, if requests are traced.
        chores: (name, work) to run beside the requests.
        closing: called when the last request is over.
    """

    accounts: Accounts | None = None
    recorder: Recorder | None = None
    begin_span: Callable[[Call], None] | None = None
    chores: list[tuple[str, Work]] = field(default_factory=list)
    closing: list[Callable[[], None]] = field(default_factory=list)

    def attach(self, engine: Engine) -> None:
        """Let the engine tell."""
        engine.begin_span = self.begin_span
        if self.accounts is not None:
            engine.ended = self.accounts.ended


def build_books(
    config: MotleyConfig, clock: Clock, spec_of: Callable[[str], BackendSpec | None]
) -> Books:
    """What the configuration asks for.

    Args:
        config: as loaded.
        clock: the gateway's.
        spec_of: a backend by name; ``None`` if it has left.

    Raises:
        ConfigError: the record's directory cannot be written, or the extra for traces is missing.
    """
    books, readers = Books(), list[Reader]()
    epoch_s = time.time() - clock.now()
    telemetry = config.telemetry
    if telemetry.record is not None:
        readers.append(_keep_record(books, config, telemetry.record, clock, epoch_s))
    if config.server.access_log:
        access = AccessLog(epoch_s)
        books.chores.append(("access log", access.keep_writing))
        books.closing.append(access.write)
        readers.append(access.note)
    if telemetry.otlp_endpoint is not None:
        readers.append(_trace(books, config, epoch_s, spec_of))
    if readers:
        books.accounts = Accounts(readers)
    return books


def _keep_record(
    books: Books, config: MotleyConfig, section: RecordSection, clock: Clock, epoch_s: float
) -> Reader:
    directory = Path(section.directory)
    limits = RecorderLimits(
        file_rows=section.file_rows,
        file_age_s=section.file_age_s,
        total_bytes=section.total_bytes,
    )
    salt = section.salt.encode() if section.salt else _kept_salt(directory)
    rows = RowMaker(salt=salt, policy=config.policy.name, epoch_s=epoch_s)
    recorder = books.recorder = Recorder(directory, rows, limits)

    def note(account: Account) -> None:
        if account.request is None:
            return
        outcome = account.outcome
        if outcome is not None:
            # Its last attempt failed, and its client left while it waited for another one.
            if account.status == LEFT_EARLY and outcome.status == "failed":
                outcome = replace(outcome, status="cancelled")
            recorder.finished(account.request, outcome, len(account.tried), account.finish_reason)
        else:
            recorder.unserved(account.request, _why(account), account.ended_s)

    async def keep_flushing() -> None:
        while True:
            await asyncio.sleep(FLUSH_S)
            await asyncio.to_thread(recorder.flush, clock.now())

    books.chores.append(("traffic record", keep_flushing))
    books.closing.append(lambda: recorder.close(clock.now()))
    return note


def _why(account: Account) -> str:
    return f"rejected:{account.reason}" if account.reason else "cancelled"


def _kept_salt(directory: Path) -> bytes:
    """The directory's own salt, made once: the same tenant has the same hash after a restart.

    Workers that write a folder each share the salt of the folder above.

    Raises:
        ConfigError: the directory cannot be made or written to.
    """
    home = directory.parent if directory.name.startswith(WORKER_FOLDER) else directory
    path = home / SALT_FILE
    try:
        directory.mkdir(parents=True, exist_ok=True)
        if not path.exists():
            fresh = home / f"{SALT_FILE}-{secrets.token_hex(4)}"
            fresh.touch(mode=0o600)
            fresh.write_bytes(secrets.token_hex(16).encode())
            with suppress(FileExistsError):  # another worker was faster: it is everybody's
                path.hardlink_to(fresh)
            fresh.unlink()
        return path.read_bytes()
    except OSError as error:
        raise ConfigError(f"traffic record: cannot write to {directory}: {error}") from error


def _trace(
    books: Books,
    config: MotleyConfig,
    epoch_s: float,
    spec_of: Callable[[str], BackendSpec | None],
) -> Reader:
    from router.gateway.spans import Spans  # noqa: PLC0415 - an extra
    from telemetry.tracing import make_tracing  # noqa: PLC0415 - an extra

    assert config.telemetry.otlp_endpoint is not None
    tracing = make_tracing(config.telemetry.otlp_endpoint, config.telemetry.trace_ratio)
    spans = Spans(tracing, config.policy.name, epoch_s, spec_of)
    books.begin_span = spans.begin
    books.closing.append(tracing.close)
    return spans.end
