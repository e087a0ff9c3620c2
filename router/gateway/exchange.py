"""One client request, from its bytes to its end: decide, wait, try, try elsewhere, answer.

Driven by callbacks: the front end hands in a ``Call`` and a ``Client``; backends answer through
``Attempt``; the dispatcher's queue answers through ``decided``. Whatever happens, it ends once.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from router.domain.decision import Assign, Decision, Reject
from router.domain.request import Request
from router.gateway.continuation.going_on import going_on
from router.gateway.multipart import fields_of
from router.gateway.problems import DEFECT, Problem, from_reject, model_gone
from router.gateway.seams import LEFT_EARLY, NO_MODEL
from router.gateway.tally import Usage
from router.gateway.told import LOAD, NOT_FOR_CLIENTS
from router.gateway.trying import Trying
from router.gateway.wire import (
    BadRequestError,
    Headers,
    end_to_end,
    prompt_bytes,
)

if TYPE_CHECKING:
    pass

MOST_GAPS = 256
"""Of a stream that is longer, they are counted as they come: memory is for those who wait."""


class Exchange(Trying):
    """Implements ``seams.Owner``."""

    __slots__ = ()

    # Driven by the front end and the queue

    def begin(self) -> None:
        """Understand the request and ask the dispatcher for a backend."""
        engine, call = self.engine, self._call
        try:
            fields = fields_of(call.body, call.content_type, engine.max_json_depth)
            size_bytes = prompt_bytes(call.body)
            request = self.request = engine.request_of(call, fields, size_bytes)
        except BadRequestError as error:
            engine.events.rejected(NO_MODEL, error.problem.code or "bad_request")
            self._answer(error.problem)
            return
        self._asked = fields.model or ""
        refusal = engine.enter(call, self._asked, request) if call.caller is not None else None
        if refusal is not None:
            self._reason = refusal.code or "forbidden"
            engine.events.rejected(self._label(unknown=True), self._reason)
            self._answer(refusal)
            return
        # Base64 costs tokens by no ratio: such a body teaches nothing.
        whole = len(call.body)
        self._size_bytes = whole if size_bytes == whole else 0
        self._streams = fields.stream is True
        self._give_up_s = request.arrival_s + engine.limits.total_s
        try:
            if engine.continuation is not None:
                self._going_on = going_on(self, call, fields, engine.continuation)
            self._dispatch(request)
        except Exception:
            self.fell()
            raise

    def _dispatch(self, request: Request) -> None:
        engine = self.engine
        dispatcher = engine.dispatcher
        decision = dispatcher.dispatch(request, request.arrival_s, booked=False)
        decided_s = engine.now()
        try:
            self._follow(decision, decided_s)
        finally:
            dispatcher.book()
        if not self._over:
            engine.joined(self, request.request_id)
        engine.events.worked("dispatch", decided_s - request.arrival_s)

    def fell(self, problem: Problem | None = None) -> None:
        """An error of ours: nothing stays under way that nobody would watch.

        Args:
            problem: what to answer; ``None`` where whoever asked hears of the error itself.
        """
        if self._over:
            return
        request, engine = self.request, self.engine
        if self.attempt is not None:
            self.attempt.cancel()
        elif request is not None and engine.dispatcher.holds(request):
            engine.dispatcher.cancel(request.request_id, engine.now())
            engine.poke()
        try:
            if problem is None:
                self._answered(500)
            else:
                self._answer(problem)
        finally:
            if not self._over:
                self._close()

    def decided(self, decision: Decision) -> None:
        """The dispatcher's queue let the request go."""
        if self._over:
            return
        try:
            self._follow(decision, self.engine.now())
        except Exception:
            self.fell(DEFECT)
            raise

    def recalled(self) -> None:
        """The dispatcher took the request back before its first byte; it waits again."""
        attempt, self.attempt = self.attempt, None
        if self._race is not None:
            self._race.end()
        if attempt is not None:
            self._tried.pop()
            self._backend = None
            attempt.recalled()

    def client_left(self) -> None:
        """The client is gone; does nothing once the answer is complete."""
        if self._over:
            return
        if self.attempt is not None:
            self.attempt.cancel()
        elif self.request is not None:
            engine = self.engine
            engine.dispatcher.cancel(self.request.request_id, engine.now())
            engine.poke()
        self._answered(LEFT_EARLY)
        if self._going_on is not None:
            self._going_on.ended("cancelled")
        self._close()

    def cut(self) -> None:
        """The gateway stops: end it and let the client see that."""
        self.client_left()
        self._client.cut()

    def look(self, now: float) -> None:
        """See whether the backend is late."""
        attempt = self.attempt
        if attempt is not None:
            if len(attempt.gaps) >= MOST_GAPS and self.request is not None:
                self.engine.events.gapped(self.request.model, self._tried[-1], attempt.gaps)
                del attempt.gaps[:]
            attempt.look(now)
        if self._race is not None and self._race.second is not None:
            self._race.second.attempt.look(now)
        if self._halves is not None:
            self._halves.look(now)

    def pause(self) -> None:
        """The client reads slowly."""
        self._paused = True
        if self.attempt is not None:
            self.attempt.pause()

    def resume(self) -> None:
        """The client caught up."""
        self._paused = False
        if self.attempt is not None:
            self.attempt.resume()

    # Decisions

    def _follow(self, decision: Decision, now: float) -> None:
        engine = self.engine
        if isinstance(decision, Assign):
            if decision.recalled:
                engine.recall(decision)
            self._try(decision.backend, now, decision.prefill)
        elif isinstance(decision, Reject) and self._status:
            self._break_off(from_reject(decision))
        elif isinstance(decision, Reject):
            unknown = decision.reason == "unknown_model"
            if unknown and self.request is not None and engine.awaits(self.request.model, now):
                decision, unknown = model_gone(self.request.model), False
            self._reason = decision.reason
            engine.events.rejected(self._label(unknown=unknown), decision.reason)
            self._answer(from_reject(decision))
        else:
            engine.queued()

    # What the attempt reports (``seams.Owner``)

    def answer_begins(self, status: int, headers: Headers) -> None:
        """Pass status and headers on, ours added."""
        if self._race is not None and self.request is not None and self._backend is not None:
            self._race.first_answers(self.request.request_id, self._backend.name)
        told = self.engine.load_told
        if told is not None and self._backend is not None:
            load = dict(headers).get(LOAD)
            if load is not None:
                told(self._backend.name, load, self.engine.now())
        if self._status:  # the stream goes on
            if self._paused:
                self.pause()
            return
        self._answered(status)
        self._call.body = b""
        self._client.start(status, end_to_end(headers, NOT_FOR_CLIENTS) + self._own_headers())

    def answer_ends(self, usage: Usage | None) -> None:
        """All of it has been passed on; learn how long the prompt really was."""
        self._client.end()
        if self._going_on is not None:
            self._going_on.ended("completed")
        if usage is not None and self.request is not None:
            self.engine.learn(self.request.model, self._size_bytes, usage)
        attempt = self.attempt
        if attempt is not None and self.request is not None:
            self._finish_reason = attempt.finish_reason
            self.engine.events.ended(
                self.request.model, self._tried[-1], attempt.gaps, attempt.finish_reason
            )
        self._close()

    def answer_breaks(self, problem: Problem, *, at_boundary: bool, output_tokens: int) -> None:
        """Say why where a stream can carry it, then cut, so that nobody takes it for whole."""
        assert self._ticket is not None
        going = self._going_on
        if going is not None:
            output_tokens = going.transcript.fresh_tokens
            if going.broke(self._ticket, late=self.engine.now() >= self._give_up_s):
                return
        self._ticket.failed(self.engine.now(), output_tokens=output_tokens)
        self._break_off(problem, at_boundary=at_boundary or going is not None)

    # The end

    def _close(self) -> None:
        self._over = True
        self.attempt = None
        if self._race is not None:
            self._race.end()
        if self._halves is not None:
            self._halves.end()
        if self.request is not None:
            self.engine.left(self.request.request_id)
        if self._going_on is not None and self._going_on.outcome is not None:
            self.engine.events.continued(self._going_on.outcome)
        if self.engine.ended is not None:
            self.engine.ended(self._account())
