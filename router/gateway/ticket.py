"""One attempt's entry in the dispatcher's books: opened by ``Assign``, closed exactly once.

Every peer that counted requests by hand leaked counters on some exit path; here whoever ends an
attempt may call any closing verb, and only the first counts (I1, I2).
"""

from __future__ import annotations

from collections.abc import Callable

from router.dispatcher import Dispatcher
from router.domain.decision import Decision
from router.gateway.tally import Usage


class Ticket:
    """The guard of one attempt.

    Args:
        dispatcher: keeps the books.
        request_id: as dispatched.
        changed: called after every entry, since it may let a queued request go.
    """

    __slots__ = ("_changed", "_dispatcher", "_first_token", "_open", "_request_id")

    def __init__(
        self, dispatcher: Dispatcher, request_id: str, changed: Callable[[], None]
    ) -> None:
        self._dispatcher = dispatcher
        self._changed = changed
        self._request_id = request_id
        self._open = True
        self._first_token = False

    @property
    def open(self) -> bool:
        """Whether the attempt still counts as in flight."""
        return self._open

    def presume_first_token(self, now: float) -> None:
        """The answer is not streamed, and by now its prompt should be prefilled."""
        if self._open:
            self._dispatcher.presume_first_token(self._request_id, now)
            self._changed()

    def first_token(self, now: float) -> None:
        """The first token came; later calls do nothing."""
        if self._open and not self._first_token:
            self._first_token = True
            self._dispatcher.first_token(self._request_id, now)
            self._changed()

    def completed(self, now: float, *, output_tokens: int, usage: Usage | None) -> None:
        """The answer is complete."""
        if self._close():
            self._dispatcher.complete(
                self._request_id,
                now,
                output_tokens=output_tokens,
                prompt_tokens=usage.prompt if usage else None,
                cached_tokens=usage.cached if usage else None,
            )

    def failed(
        self,
        now: float,
        *,
        backpressure: bool = False,
        output_tokens: int = 0,
        prefill: bool = False,
    ) -> None:
        """The backend failed, or was too busy, and the client saw it.

        Args:
            now: the time.
            backpressure: it was busy, not broken.
            output_tokens: that the client has.
            prefill: of two backends that share the request, the one that computes the prompt.
        """
        if self._close():
            self._dispatcher.fail(
                self._request_id,
                now,
                backpressure=backpressure,
                output_tokens=output_tokens,
                prefill=prefill,
            )

    def moved(
        self,
        now: float,
        *,
        backpressure: bool = False,
        output_tokens: int = 0,
        prefill: bool = False,
    ) -> Decision:
        """The backend failed, after so many tokens that the client has: where else?

        Arguments as those of ``failed``.
        """
        self._close()
        return self._dispatcher.redispatch(
            self._request_id,
            now,
            backpressure=backpressure,
            output_tokens=output_tokens,
            prefill=prefill,
        )

    def prefilled(self, now: float) -> None:
        """The prompt is computed by the other of two backends."""
        if self._open:
            self._dispatcher.prefilled(self._request_id, now)
            self._changed()

    def committed(self, now: float) -> None:
        """The answer is about to reach the client: from here on nobody may take it back.

        For answers without a first token of their own: those that are not streamed, and those
        whose keep-alive comments came for so long that the status had to be passed on.
        """
        if self._open and self._dispatcher.recalls:
            self._dispatcher.presume_first_token(self._request_id, now)

    def void(self) -> None:
        """The dispatcher has closed the entry itself: the request was taken back."""
        self._open = False

    def refused(self, now: float) -> None:
        """The backend found fault with the request itself."""
        if self._close():
            self._dispatcher.refuse(self._request_id, now)

    def cancelled(self, now: float, *, output_tokens: int = 0) -> None:
        """The client left."""
        if self._close():
            self._dispatcher.cancel(self._request_id, now, output_tokens=output_tokens)

    def _close(self) -> bool:
        was_open, self._open = self._open, False
        if was_open:
            self._changed()
        return was_open
