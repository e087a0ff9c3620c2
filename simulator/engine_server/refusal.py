"""How an engine says no: one exception, put into words and envelope by the dialect."""

from __future__ import annotations


class Refusal(Exception):  # noqa: N818 - an answer to the client, not a fault
    """The engine refuses a request.

    Args:
        status: HTTP status.
        message: for the client.
        kind: the ``type`` field of the error body.
        param: the offending field, where the engine names it.
    """

    def __init__(self, status: int, message: str, kind: str, param: str | None = None) -> None:
        super().__init__(message)
        self.status, self.message, self.kind, self.param = status, message, kind, param


class InvalidBody(Exception):  # noqa: N818 - becomes a Refusal in the dialect.s words
    """A body that does not parse.

    Args:
        detail: what is wrong.
        param: path of the offending field ("body.messages"), or ``None`` if it is the header.
    """

    def __init__(self, detail: str, param: str | None = "body") -> None:
        super().__init__(detail)
        self.detail, self.param = detail, param
