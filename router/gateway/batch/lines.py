"""The lines of a batch: read and judged before anything is sent, answered one by one."""

from __future__ import annotations

import codecs
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Any

import msgspec

from router.gateway.batch.store import new_id

ENDPOINTS = (
    "/v1/chat/completions",
    "/v1/completions",
    "/v1/responses",
    "/v1/embeddings",
    "/v1/rerank",
    "/v1/score",
)
MOST_LINES = 50_000
MOST_FAULTS = 20


class _Line(msgspec.Struct):
    custom_id: str
    body: msgspec.Raw
    url: str
    method: str = "POST"


class _Body(msgspec.Struct):
    model: str
    stream: bool | None = None


@dataclass(frozen=True, slots=True)
class Task:
    """One request of a batch: the client's own id for it, and its body byte for byte."""

    custom_id: str
    body: bytes


@dataclass(frozen=True, slots=True)
class Fault:
    """What is wrong with one line, counted from 1; 0 for the file."""

    line: int
    code: str
    message: str

    def told(self) -> dict[str, Any]:
        """As OpenAI tells it."""
        return {"line": self.line, "code": self.code, "message": self.message, "param": None}


def read(
    content: bytes, endpoint: str, served: Callable[[str], bool]
) -> tuple[list[Task], list[Fault]]:
    """The requests of a file, or what is wrong with it.

    Args:
        content: JSONL.
        endpoint: which every line must name.
        served: whether a model may be asked for.
    """
    tasks: list[Task] = []
    faults: list[Fault] = []
    seen: set[str] = set()
    for number, raw in enumerate(content.removeprefix(codecs.BOM_UTF8).splitlines(), 1):
        if not raw.strip():
            continue
        found = _judged(raw, endpoint, served)
        if isinstance(found, Task) and found.custom_id in seen:
            found = ("duplicate_custom_id", f"The custom_id {found.custom_id!r} is used twice.")
        if isinstance(found, Task):
            seen.add(found.custom_id)
            tasks.append(found)
        else:
            faults.append(Fault(number, *found))
        if len(tasks) > MOST_LINES:
            faults.append(Fault(0, "too_many_tasks", f"A batch may have {MOST_LINES} requests."))
        if len(faults) >= MOST_FAULTS or len(tasks) > MOST_LINES:
            break
    if not tasks and not faults:
        faults.append(Fault(0, "empty_file", "The file holds no request."))
    return tasks, faults


def _judged(raw: bytes, endpoint: str, served: Callable[[str], bool]) -> Task | tuple[str, str]:
    try:
        line = msgspec.json.decode(raw, type=_Line)
        body = msgspec.json.decode(line.body, type=_Body)
    except (msgspec.MsgspecError, UnicodeDecodeError, RecursionError) as error:
        return "invalid_json_line", f"This line is no request: {error}."
    if line.url != endpoint or line.method != "POST":
        return "mismatched_endpoint", f"Every line must be a POST to {endpoint}."
    if body.stream:
        return "stream_not_supported", "A batch cannot stream; leave out 'stream'."
    if not served(body.model):
        return "model_not_found", f"The model {body.model!r} does not exist here."
    return Task(line.custom_id, bytes(line.body))


def answered(task: Task, request_id: str, status: int, body: bytes) -> bytes:
    """One line of the output or error file."""
    try:
        document: object = msgspec.json.decode(body)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        document = body.decode("utf-8", "replace")
    response = {"status_code": status, "request_id": request_id, "body": document}
    return _line(task, response, None)


def expired(tasks: Iterable[Task]) -> bytes:
    """Lines of the error file, for requests that were not answered in time."""
    message = "This request could not be executed before the batch expired."
    error = {"code": "batch_expired", "message": message}
    return b"\n".join(_line(task, None, error) for task in tasks)


def _line(task: Task, response: dict[str, Any] | None, error: dict[str, str] | None) -> bytes:
    line = {
        "id": new_id("batch").replace("batch-", "batch_req_"),
        "custom_id": task.custom_id,
        "response": response,
        "error": error,
    }
    return msgspec.json.encode(line)
