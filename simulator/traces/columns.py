"""A loaded trace: columns of plain machine numbers, about 40 bytes a request.

A million requests as objects take half a gigabyte; as columns 40 MB (and 8 bytes per prefix
hash). The replay reads them by index, so ``array`` is used: it hands out Python numbers, which
NumPy does not.
"""

from __future__ import annotations

from array import array
from collections.abc import Iterable, Iterator
from copy import copy

import numpy as np
import numpy.typing as npt

from simulator.traces.record import TraceRecord

Floats = npt.NDArray[np.float64]
Ints = npt.NDArray[np.int64]


class Labels:
    """A column of repeated strings: one small number each."""

    def __init__(self) -> None:
        self.names: list[str] = []
        self.codes = array("i")
        self._code_of: dict[str, int] = {}

    def append(self, name: str) -> None:
        """Add one entry."""
        self.codes.append(self.code(name))

    def code(self, name: str) -> int:
        """Return the number of a name, new names included."""
        code = self._code_of.get(name)
        if code is None:
            code = self._code_of[name] = len(self.names)
            self.names.append(name)
        return code

    def __getitem__(self, i: int) -> str:
        return self.names[self.codes[i]]

    def __len__(self) -> int:
        return len(self.codes)

    def used(self) -> list[str]:
        """Names that occur, in the order they first did."""
        return [self.names[code] for code in dict.fromkeys(self.codes)]


class Trace:
    """Requests in order of arrival.

    Attributes:
        name: for reports.
        timed: whether ``arrival_s`` means anything; an arrival process must be applied if not.
        arrival_s: seconds from the start.
        input_tokens, output_tokens: lengths; the outputs are the truth (I6).
        max_tokens: the client's limit; 0 when unknown.
        model, slo_class, tenant, session: labels, empty when unknown.
    """

    def __init__(self, name: str = "") -> None:
        self.name = name
        self.timed = True
        self.arrival_s = array("d")
        self.input_tokens = array("i")
        self.output_tokens = array("i")
        self.max_tokens = array("i")
        self.model, self.slo_class = Labels(), Labels()
        self.tenant, self.session = Labels(), Labels()
        self.prefix_block_tokens = array("i")
        self._prefix_start = array("q", [0])
        self._prefix_ids = array("q")

    def __len__(self) -> int:
        return len(self.arrival_s)

    def append(self, record: TraceRecord) -> None:
        """Add one request."""
        self.arrival_s.append(record.arrival_s)
        self.input_tokens.append(record.input_tokens)
        self.output_tokens.append(record.output_tokens)
        self.max_tokens.append(record.max_tokens or 0)
        self.model.append(record.model)
        self.slo_class.append(record.slo_class)
        self.tenant.append(record.tenant)
        self.session.append(record.session)
        self.prefix_block_tokens.append(record.prefix_block_tokens)
        self._prefix_ids.extend(record.prefix_hashes)
        self._prefix_start.append(len(self._prefix_ids))

    def extend(self, records: Iterable[TraceRecord]) -> Trace:
        """Add requests; returns itself."""
        for record in records:
            self.append(record)
        return self

    def prefix_hashes(self, i: int) -> tuple[int, ...]:
        """Hashes of the leading full blocks of request ``i``."""
        start = self._prefix_start
        return tuple(self._prefix_ids[start[i] : start[i + 1]])

    @property
    def all_prefixes(self) -> array[int]:
        """Prefix hashes of all requests, one after the other."""
        return self._prefix_ids

    def with_prefixes(self, ids: array[int]) -> Trace:
        """Return the trace with these prefix hashes in the places of its own."""
        changed = copy(self)
        changed._prefix_ids = ids
        return changed

    @property
    def has_prefixes(self) -> bool:
        """Whether any request says what it shares with others."""
        return len(self._prefix_ids) > 0

    @property
    def span_s(self) -> float:
        """From 0 to the last arrival."""
        return self.arrival_s[-1] if len(self) else 0.0

    def record(self, i: int) -> TraceRecord:
        """Return request ``i`` as an object of its own."""
        return TraceRecord(
            arrival_s=self.arrival_s[i],
            input_tokens=self.input_tokens[i],
            output_tokens=self.output_tokens[i],
            model=self.model[i],
            slo_class=self.slo_class[i],
            tenant=self.tenant[i],
            session=self.session[i],
            max_tokens=self.max_tokens[i] or None,
            prefix_hashes=self.prefix_hashes(i),
            prefix_block_tokens=self.prefix_block_tokens[i],
        )

    def records(self) -> Iterator[TraceRecord]:
        """All requests as objects, one at a time."""
        return (self.record(i) for i in range(len(self)))

    def in_order(self) -> Trace:
        """Return the trace ordered by arrival (itself if it is); ties keep their order."""
        arrivals = np.array(self.arrival_s, dtype=np.float64)
        if len(self) < 2 or not bool(np.any(np.diff(arrivals) < 0)):
            return self
        return self.select(np.argsort(arrivals, kind="stable").tolist())

    def from_zero(self) -> Trace:
        """Return the trace, in order of arrival, with none before 0 (itself if none is)."""
        if not len(self) or self.arrival_s[0] >= 0.0:
            return self
        shifted, first_s = copy(self), self.arrival_s[0]
        shifted.arrival_s = array("d", [at - first_s for at in self.arrival_s])
        return shifted

    def select(self, order: Iterable[int]) -> Trace:
        """Return a new trace of the requests with these indices, in this order."""
        chosen = Trace(self.name).extend(self.record(i) for i in order)
        chosen.timed = self.timed
        return chosen

    def arrivals(self) -> Floats:
        """Arrivals as a NumPy copy, for statistics."""
        return np.array(self.arrival_s, dtype=np.float64)

    def lengths(self) -> tuple[Ints, Ints]:
        """Input and output tokens as NumPy copies, for statistics."""
        return (
            np.array(self.input_tokens, dtype=np.int64),
            np.array(self.output_tokens, dtype=np.int64),
        )
