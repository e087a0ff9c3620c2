"""An attempt whose stream is remembered, so that another can go on where it breaks."""

from __future__ import annotations

from router.gateway.attempt import Attempt
from router.gateway.continuation.transcript import Transcript
from router.gateway.limits import Stage
from router.gateway.tally import Usage, first_event
from router.gateway.wire import Headers


class RememberedAttempt(Attempt):
    """As ``Attempt``; but the client gets whole events only, and a stream that tells of a fault,
    or does not come to its end, has broken.

    Attributes:
        transcript: of the stream, shared by all attempts at it; set before the attempt begins.
    """

    __slots__ = ("transcript",)

    transcript: Transcript

    def on_head(self, status: int, headers: Headers) -> None:
        """A continuation must be a stream as well."""
        super().on_head(status, headers)
        if self.stage is Stage.PEEKING and not self._tally.events and self.transcript.continuations:
            self._setback("garbage", "answered with no stream where one was to go on")

    def on_data(self, data: bytes) -> None:
        """Relay what is whole and right."""
        if self.stage is not Stage.RELAYING or not self._tally.events:
            super().on_data(data)
            return
        told = self.transcript.read(data)
        if told:
            super().on_data(told)
        if self.transcript.fault and self.stage is Stage.RELAYING:
            self._break(502, f"said in mid-answer: {self.transcript.fault}")

    def _shorten(self, ending: bytes) -> None:
        """Every event is read."""

    def on_end(self) -> None:
        """A stream that says nothing of its end has broken off."""
        if not self._tally.events:
            super().on_end()
            return
        if self.stage is Stage.PEEKING and first_event(self._held, at_end=True):
            self._commit()
        if self.stage is Stage.RELAYING and not self.transcript.finished:
            if self.transcript.continuable:
                self._break(502, "ended its answer too early")
                return
            self._owner.answer_data(self.transcript.rest())
        if self.stage is not Stage.OVER:
            self._complete()

    def _break(self, status: int, message: str) -> None:
        """Where all of the text is there, its end is all that was lost."""
        if not self.transcript.finished:
            super()._break(status, message)
            return
        if self._connection is not None:
            self._connection.abort()
        self._complete()

    def _complete(self) -> None:
        closing = self.transcript.closing() if self.transcript.finished else b""
        if closing and self.stage is Stage.RELAYING:
            self._owner.answer_data(closing)
        super().on_end()

    def _close_books(self) -> Usage | None:
        """By the engine's own count, not by the one that the client sees."""
        transcript, now = self.transcript, self._clock()
        if not self._tally.events:
            return super()._close_books()
        end = self._tally.end()
        self.finish_reason = end.finish_reason
        tokens = transcript.fresh_tokens
        if end.in_error:
            self._ticket.failed(now, output_tokens=tokens)
        else:
            self._ticket.completed(now, output_tokens=tokens, usage=transcript.usage)
        return None if transcript.continuations else transcript.usage
