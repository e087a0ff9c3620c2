"""Heads of requests that have been read before need not be parsed again.

A client says the same at the head of every request but for the length of the body. What the parser
makes of a head depends on its bytes alone, so one that differs from a head it has accepted only in
those digits is taken as read, and the lines that go on to the engine are kept ready.

Only requests that come whole, in one read, are looked at; everything else is parsed as ever. Heads
hold credentials: they stay in memory only, whoever comes is asked for them every time, nothing is
kept of who is refused, and the oldest heads make room for new ones.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from router.gateway.wire import Headers

MOST = 256
MOST_BYTES = 4_096
_SPELLINGS = (b"\r\ncontent-length: ", b"\r\nContent-Length: ")
_NAME = b"content-length"
_NEVER_AGAIN = (b"x-request-id", b"traceparent", b"transfer-encoding", b"expect", b"upgrade")
"""Headers of heads that do not come twice, and of those that ask for more than to be read."""


@dataclass(slots=True)
class Head:
    """What the parser made of a head with a body of some length.

    Attributes:
        path, query: of the target.
        headers, named: names in lower case; without the length.
        keep_alive: whether the client wants to go on with the connection.
        passed: lines that go on to an engine, ready to be sent, by the names left out of them.
    """

    path: bytes
    query: bytes
    headers: Headers
    named: Mapping[bytes, bytes]
    keep_alive: bool
    passed: dict[frozenset[bytes], bytes] = field(default_factory=dict)


def known_by(data: bytes) -> tuple[bytes, int]:
    """Of one whole request: its head less the digits of the length, and where the body begins.

    Nothing and 0 for whatever is not one whole request with a length.
    """
    end = data.find(b"\r\n\r\n") + 4
    if not 4 <= end <= MOST_BYTES:
        return b"", 0
    at = data.find(_SPELLINGS[0], 0, end)
    if at < 0:
        at = data.find(_SPELLINGS[1], 0, end)
        if at < 0:
            return b"", 0
    start = at + len(_SPELLINGS[0])
    stop = data.find(b"\r\n", start)
    digits = data[start:stop]
    if not digits.isdigit() or stop - start > 9 or int(digits) != len(data) - end:
        return b"", 0
    return data[:start] + data[stop:end], end


class KnownHeads:
    """Heads by their bytes."""

    def __init__(self) -> None:
        self._heads: dict[bytes, Head] = {}
        self.get = self._heads.get

    def __len__(self) -> int:
        return len(self._heads)

    def learn(self, key: bytes, head: Head) -> None:
        """Keep a head that was read, if the next one like it can be told by its bytes.

        Args:
            key: see ``known_by``.
            head: as parsed, the length included.
        """
        names = [name for name, _ in head.headers]
        if names.count(_NAME) != 1 or any(name in head.named for name in _NEVER_AGAIN):
            return
        head.headers = [pair for pair in head.headers if pair[0] != _NAME]
        head.named = {name: value for name, value in head.named.items() if name != _NAME}
        if len(self._heads) >= MOST:
            del self._heads[next(iter(self._heads))]
        self._heads[key] = head
