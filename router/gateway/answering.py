"""The client's side of an exchange: what it is answered, once, and what is counted of that."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable
from typing import TYPE_CHECKING

from router.domain.fleet import BackendSpec
from router.domain.request import Request
from router.gateway.account import Account
from router.gateway.anthropic_errors import spoken
from router.gateway.problems import Problem
from router.gateway.seams import NO_MODEL, Client
from router.gateway.told import all_tried, own_headers
from router.gateway.wire import Call, Headers

if TYPE_CHECKING:
    from router.gateway.engine import Engine

_TURNED_AWAY = frozenset(("slo_unattainable", "wait_too_long", "shed"))


class Answering(ABC):
    """What an exchange knows of its client; ``Exchange`` adds the backends' side.

    Attributes:
        engine: shared by all exchanges.
        request: as dispatched; ``None`` until it is understood.
        answer_data: the client's own ``write``: one call less for every chunk.
    """

    __slots__ = (
        "_backend",
        "_call",
        "_client",
        "_finish_reason",
        "_prefill",
        "_reason",
        "_status",
        "_tried",
        "answer_data",
        "engine",
        "request",
    )

    def __init__(self, engine: Engine, call: Call, client: Client) -> None:
        self.engine = engine
        self.request: Request | None = None
        self.answer_data = client.write
        self._call = call
        self._client = client
        self._backend: BackendSpec | None = None
        self._prefill: BackendSpec | None = None
        self._tried: list[str] = []
        self._reason = ""
        self._finish_reason = ""
        self._status = 0

    def raw_sink(self) -> Callable[[bytes], None] | None:
        """See ``seams.Owner``."""
        return self._client.raw_sink()

    @abstractmethod
    def _close(self) -> None:
        """Nothing more will happen: let go of everything, and tell who wants to know."""

    def _answer(self, problem: Problem) -> None:
        if self._status:  # of a stream that could not be gone on with
            self._break_off(problem)
            return
        problem = spoken(problem, self._call.path)
        self._answered(problem.status, unknown=problem.status == 404 and not self._tried)
        self._client.start(problem.status, problem.headers() + self._own_headers())
        self._client.write(problem.body())
        self._client.end()
        self._close()

    def _answered(self, status: int, *, unknown: bool = False) -> None:
        """Count the answer, once: what the client saw first is what it got."""
        if self._status:
            return
        self._status = status
        slo_class = self.request.slo_class if self.request is not None else ""
        self.engine.events.answered(self._label(unknown=unknown), slo_class, status)
        if status >= 500 or self._reason in _TURNED_AWAY:
            self._missed()

    def _missed(self) -> None:
        """The request got no answer, and not by a fault of its own."""
        if self.engine.missed is not None and self.request is not None:
            self.engine.missed(self.request.slo_class, self.engine.now())

    def _label(self, *, unknown: bool) -> str:
        return NO_MODEL if unknown or self.request is None else self.request.model

    def _own_headers(self) -> Headers:
        return own_headers(self.engine, self._call, self.request, self._backend, self._prefill)

    def _break_off(self, problem: Problem, *, at_boundary: bool = True) -> None:
        if at_boundary:
            told = spoken(all_tried(problem, self._tried), self._call.path)
            self._client.write(told.event())
        self._missed()
        self._client.cut()
        self._close()

    def _account(self) -> Account:
        return Account(
            self._call,
            self.request,
            self._status,
            self.engine.now(),
            self._tried,
            self._reason,
            self._finish_reason,
        )
