"""One request of a trace, and the account of what a reader left out."""

from __future__ import annotations

import math
from dataclasses import dataclass, field

from router.domain.errors import TraceError

_KEPT_MESSAGES = 5


@dataclass(slots=True)
class TraceRecord:
    """One request as a trace tells it.

    Attributes:
        arrival_s: seconds; readers may yield any origin, ``read.stream_trace`` starts it at 0.
        input_tokens: prompt length.
        output_tokens: length of the answer that was served. The truth of the simulator: it
            never reaches a policy (I6).
        model: model asked for; empty means the fleet's first.
        slo_class: service class; empty means the default.
        tenant: who asked; empty when the trace does not say.
        session: conversation; empty when the trace does not say.
        max_tokens: limit the client set; ``None`` when the trace does not say.
        prefix_hashes: chained hashes of the leading *full* blocks of the prompt.
        prefix_block_tokens: tokens per entry of ``prefix_hashes``; 0 when there are none.
    """

    arrival_s: float
    input_tokens: int
    output_tokens: int
    model: str = ""
    slo_class: str = ""
    tenant: str = ""
    session: str = ""
    max_tokens: int | None = None
    prefix_hashes: tuple[int, ...] = ()
    prefix_block_tokens: int = 0


@dataclass(slots=True)
class ReadReport:
    """What happened while a trace was read; complete once its records are exhausted.

    Attributes:
        path: the file, for messages.
        strict: stop at the first malformed line instead of counting it.
        timed: whether the file says when requests arrived.
        records: requests yielded.
        malformed: lines that could not be read.
        unanswered: well-formed lines without an output token: requests that failed when the
            trace was recorded, of which nobody knows how long they would have been.
        messages: the first few complaints, each with its line number.
    """

    path: str = ""
    strict: bool = False
    timed: bool = True
    records: int = 0
    malformed: int = 0
    unanswered: int = 0
    messages: list[str] = field(default_factory=list)

    def bad(self, line: int, problem: str) -> None:
        """Count one malformed line.

        Raises:
            TraceError: in strict mode.
        """
        error = TraceError(problem, path=self.path, line=line)
        if self.strict:
            raise error
        self.malformed += 1
        if len(self.messages) < _KEPT_MESSAGES:
            self.messages.append(str(error))

    def summary(self) -> str:
        """One sentence for people; empty when nothing was left out."""
        parts = []
        if self.malformed:
            parts.append(f"{self.malformed} malformed line(s) skipped")
        if self.unanswered:
            parts.append(f"{self.unanswered} request(s) without an answer skipped")
        if not parts:
            return ""
        first = f" First: {self.messages[0]}" if self.messages else ""
        return f"{' and '.join(parts)} in {self.path}.{first}"


MOST_TOKENS = 2**31 - 1


def check_record(record: TraceRecord) -> str | None:
    """Return what is wrong with a record's numbers, or ``None``."""
    if not math.isfinite(record.arrival_s):
        return f"the arrival time is not a finite number ({record.arrival_s})"
    if record.input_tokens < 1:
        return f"the prompt must have at least 1 token, not {record.input_tokens}"
    if record.output_tokens < 0:
        return f"the answer cannot have {record.output_tokens} tokens"
    if max(record.input_tokens, record.output_tokens, record.max_tokens or 0) > MOST_TOKENS:
        return f"no request has more than {MOST_TOKENS:,} tokens"
    if record.max_tokens is not None and record.max_tokens < 1:
        return f"max_tokens must be at least 1, not {record.max_tokens}"
    return None
