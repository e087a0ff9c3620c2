"""Works batches off through the relay engine, a few requests at a time, in the bulk class.

A line is done once it is in the output or the error file; after a restart the others are sent
again. Of several processes that share the folder one works, and another where that one ends. A
request that the fleet has no room for (429, 503) is tried again until the batch expires.
"""

from __future__ import annotations

import asyncio
import logging
import sqlite3
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path

import msgspec

from router.gateway.access.gate import Gate
from router.gateway.batch.lines import MOST_FAULTS, Fault, Task, answered, expired, read
from router.gateway.batch.output import append, resume
from router.gateway.batch.quota import FULL, Quota
from router.gateway.batch.store import Batch, Store
from router.gateway.door import HOT_PATHS
from router.gateway.engine import Engine
from router.gateway.problems import Problem
from router.gateway.request_id import request_id_of
from router.gateway.wire import Call, Headers

log = logging.getLogger("motley.batch")

LOOK_S = 1.0
"""How soon a batch that another process took, or cancelled, is seen."""
BUSY_S = 1.0
BUSY = (429, 503)
SAVE_EVERY = 20
KEY_GONE = Problem(
    401, "The key that began this batch was taken away or has expired.", code="invalid_api_key"
)


class _Reply:
    """A ``seams.Client`` that keeps the whole answer."""

    def __init__(self) -> None:
        self.status = 0
        self._parts: list[bytes] = []
        self.done: asyncio.Future[bool] = asyncio.get_running_loop().create_future()

    def start(self, status: int, headers: Headers) -> None:  # noqa: ARG002
        self.status = status

    def write(self, data: bytes) -> None:
        self._parts.append(data)

    def end(self) -> None:
        self._finish(True)

    def raw_sink(self) -> None:
        """Its answer is kept, not framed."""

    def cut(self) -> None:
        self._finish(False)

    def _finish(self, whole: bool) -> None:
        if not self.done.done():
            self.done.set_result(whole)

    @property
    def body(self) -> bytes:
        return b"".join(self._parts)


@dataclass(slots=True)
class Runner:
    """The chore.

    Attributes:
        store: files and batches.
        engine: relays the requests.
        gate: what owners may do and have used.
        quota: how much they may have stored.
        slo_class: class of the requests.
        concurrency: requests of all batches at once.
        unix_s: wall clock.
    """

    store: Store
    engine: Engine
    gate: Gate
    quota: Quota
    slo_class: str
    concurrency: int
    unix_s: Callable[[], float]
    live: dict[str, Batch] = field(default_factory=dict)
    _woken: asyncio.Event = field(default_factory=asyncio.Event)
    _stuck: set[str] = field(default_factory=set)

    def wake(self) -> None:
        """There is a new batch, or one to cancel."""
        self._woken.set()

    async def run(self) -> None:
        """Work until cancelled; what was under way is done again next time."""
        room = asyncio.Semaphore(self.concurrency)
        told = well = True
        async with asyncio.TaskGroup() as group:
            while True:
                told |= self._woken.is_set()
                self._woken.clear()
                try:
                    if self.store.claim() and (self.store.changed() or told):
                        for batch in self._news():
                            group.create_task(self._work(batch, room))
                        told = False
                    well = True
                except (OSError, sqlite3.Error) as error:
                    if well:
                        log.error("batch.directory: no batch can be begun: %s", error)
                    well = False
                with suppress(TimeoutError):
                    await asyncio.wait_for(self._woken.wait(), LOOK_S)

    def _news(self) -> list[Batch]:
        """Batches to begin; those that were cancelled elsewhere hear of it."""
        begun: list[Batch] = []
        for batch in self.store.unfinished():
            live = self.live.setdefault(batch.id, batch)
            if live is batch:
                begun.append(batch)
            elif batch.status == "cancelling":
                live.status = batch.status
        return begun

    async def _work(self, batch: Batch, room: asyncio.Semaphore) -> None:
        try:
            tasks = await self._tasks(batch)
            if tasks is not None:
                await self._all(batch, tasks, room)
        except* (OSError, sqlite3.Error) as errors:
            self._broke(batch, errors)
        finally:
            if batch.id not in self._stuck:
                self.live.pop(batch.id, None)

    def _broke(self, batch: Batch, errors: BaseExceptionGroup[Exception]) -> None:
        """The disk failed this batch; the others go on."""
        cause: BaseException = errors
        while isinstance(cause, BaseExceptionGroup):
            cause = cause.exceptions[0]
        log.error("batch %s: %s", batch.id, cause)
        what = f"The gateway cannot store its output: {cause}."
        self._tell(batch, Fault(0, "storage_failed", what))
        batch.status, batch.ended_unix_s = "failed", int(self.unix_s())
        try:
            self.store.save(batch)
        except sqlite3.Error as error:
            # Left alone, or it would be begun again at every look; a restart begins it again.
            self._stuck.add(batch.id)
            log.error("batch %s: not even that can be written: %s", batch.id, error)

    async def _tasks(self, batch: Batch) -> list[Task] | None:
        content = await asyncio.to_thread(self.store.path(batch.input_file_id).read_bytes)
        tasks, faults = await asyncio.to_thread(read, content, batch.endpoint, self.engine.serves)
        if faults:
            self._tell(batch, *faults)
            batch.status, batch.ended_unix_s = "failed", int(self.unix_s())
            self.store.save(batch)
            return None
        if batch.status == "validating":
            batch.status = "in_progress"
        batch.total = len(tasks)
        self.store.save(batch)
        return tasks

    async def _all(self, batch: Batch, tasks: list[Task], room: asyncio.Semaphore) -> None:
        done = await asyncio.to_thread(self._resume, batch)
        async with asyncio.TaskGroup() as group:
            left = [task for task in tasks if task.custom_id not in done]
            for number, task in enumerate(left):
                if number % SAVE_EVERY == 0:
                    await self._disk(batch)
                await room.acquire()
                if batch.status == "cancelling" or self._expired(batch):
                    room.release()
                    break
                one = group.create_task(self._one(batch, task))
                one.add_done_callback(lambda _: room.release())  # even if it never began
        if self._expired(batch) and batch.completed + batch.failed < batch.total:
            await self._expire(batch, tasks)
        batch.status = _END.get(batch.status, batch.status)
        batch.ended_unix_s = int(self.unix_s())
        for file_id in filter(None, (batch.output_file_id, batch.error_file_id)):
            with suppress(KeyError):  # its row is lost: the others go on
                self.store.resized(self.store.file(file_id, batch.owner))
        self.store.save(batch)

    async def _disk(self, batch: Batch) -> None:
        """Wait while its owner has too much stored already, and say so as long."""
        told = False
        while batch.status != "cancelling" and not self._expired(batch):
            problem = self.quota.no_more(self.store, batch.owner)
            if problem is None:
                self._tell(batch, instead_of=FULL)
                return
            fault = Fault(0, FULL, f"No more is sent while: {problem.message}")
            self._tell(batch, fault, instead_of=FULL)
            if not told:
                self.store.save(batch)
                told = True
            await asyncio.sleep(LOOK_S)

    def _resume(self, batch: Batch) -> set[str]:
        batch.completed, completed = self._written(batch, batch.output_file_id)
        batch.failed, failed = self._written(batch, batch.error_file_id)
        return completed | failed

    def _written(self, batch: Batch, file_id: str) -> tuple[int, set[str]]:
        if not file_id:
            return 0, set()
        found = resume(self.store.path(file_id))
        for number in found.damaged:
            message = (
                f"Line {number} of the file {file_id} could not be read, was taken out, and its "
                "request was done again."
            )
            log.error("batch %s: %s", batch.id, message)
            self._tell(batch, Fault(number, "damaged_line", message))
        return len(found.custom_ids), found.custom_ids

    def _tell(self, batch: Batch, *faults: Fault, instead_of: str = "") -> None:
        """Add to what its owner is told of it, less what was told under a code."""
        told = [one for one in msgspec.json.decode(batch.errors) or [] if one["code"] != instead_of]
        told += [fault.told() for fault in faults]
        batch.errors = msgspec.json.encode(told[:MOST_FAULTS] or None).decode()

    async def _one(self, batch: Batch, task: Task) -> None:
        request_id, status, body = await self._asked(batch, task)
        while status in BUSY and not self._expired(batch) and batch.status != "cancelling":
            await asyncio.sleep(BUSY_S)
            request_id, status, body = await self._asked(batch, task)
        if status in BUSY:
            return  # not done; expired or cancelled
        self._write(batch, answered(task, request_id, status, body), failed=status >= 400)

    async def _asked(self, batch: Batch, task: Task) -> tuple[str, int, bytes]:
        headers: Headers = [(b"content-type", b"application/json")]
        headers.append((b"x-motley-slo", self.slo_class.encode()))
        path = batch.endpoint.encode()
        request_id = request_id_of(None)
        call = Call(path, b"", headers, dict(headers), request_id, HOT_PATHS[path], task.body)
        call.caller = self.gate.caller_of(batch.owner, by_token=batch.by_token)
        if self.gate and call.caller is None:
            return request_id, KEY_GONE.status, KEY_GONE.body()
        reply = _Reply()
        exchange = self.engine.open(call, reply)
        try:
            whole = await reply.done
        finally:
            exchange.client_left()
        return request_id, reply.status if whole else 502, reply.body

    def _expired(self, batch: Batch) -> bool:
        return self.unix_s() >= batch.expires_unix_s

    async def _expire(self, batch: Batch, tasks: list[Task]) -> None:
        """Say of what is left that it was not done, in one piece: it may be all of it."""
        done = await asyncio.to_thread(self._resume, batch)
        left = [task for task in tasks if task.custom_id not in done]
        if left:
            path = self._output(batch, failed=True)
            await asyncio.to_thread(lambda: append(path, expired(left)))
        batch.failed += len(left)
        batch.status = "expired"

    def _write(self, batch: Batch, line: bytes, *, failed: bool) -> None:
        append(self._output(batch, failed=failed), line)
        batch.completed += not failed
        batch.failed += failed
        if (batch.completed + batch.failed) % SAVE_EVERY == 0:
            self.store.save(batch)

    def _output(self, batch: Batch, *, failed: bool) -> Path:
        """Where its answers or its errors are written; begun with the first of them."""
        file_id = batch.error_file_id if failed else batch.output_file_id
        if not file_id:
            kind = "errors" if failed else "output"
            name = f"{batch.id}_{kind}.jsonl"
            now_s = int(self.unix_s())
            file_id = self.store.add_file(batch.owner, name, "batch_output", b"", now_s).id
            if failed:
                batch.error_file_id = file_id
            else:
                batch.output_file_id = file_id
            self.store.save(batch)
        return self.store.path(file_id)


_END = {"in_progress": "completed", "cancelling": "cancelled"}
