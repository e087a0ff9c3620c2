"""A TCP proxy that makes a network ill: late, cut in two, deaf, torn down. On loopback only."""

from __future__ import annotations

import asyncio
from typing import Self


class ToxicProxy:
    """Stands in front of one TCP server; every illness may begin and end at any time.

    Args:
        port: of the server on loopback.

    Attributes:
        latency_s: how long every read is kept back, in both directions.
        slice_bytes: pieces that everything is cut into; 0 leaves it whole.
        deaf: takes connections and bytes and passes nothing on, as a network that drops packets.
        refusing: resets whoever connects.
        cut_after_bytes: resets a connection after so many bytes of the answer.
    """

    def __init__(self, port: int) -> None:
        self.port = 0
        self.latency_s = 0.0
        self.slice_bytes = 0
        self.deaf = self.refusing = False
        self.cut_after_bytes: int | None = None
        self.connections = 0
        self._to = port
        self._server: asyncio.Server | None = None
        self._lines: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()
        self._heard = asyncio.Event()

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    async def __aenter__(self) -> Self:
        self._server = await asyncio.start_server(self._accept, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]
        return self

    async def __aexit__(self, *_: object) -> None:
        assert self._server is not None
        self._server.close()
        self.reset_all()
        for line in list(self._lines):
            line.cancel()
        await asyncio.gather(*self._lines, return_exceptions=True)

    def partition(self) -> None:
        """Nothing passes any more, and nobody is told."""
        self.deaf = True
        self._heard.clear()

    def heal(self) -> None:
        """A healthy network; what was kept back arrives now."""
        self.deaf = self.refusing = False
        self.latency_s, self.slice_bytes, self.cut_after_bytes = 0.0, 0, None
        self._heard.set()

    def reset_all(self) -> None:
        """Every connection drops with RST."""
        for writer in list(self._writers):
            writer.transport.abort()

    def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        line = asyncio.create_task(self._line(reader, writer))
        self._lines.add(line)
        line.add_done_callback(self._lines.discard)

    async def _line(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        if self.refusing:
            writer.transport.abort()
            return
        try:
            there, onward = await asyncio.open_connection("127.0.0.1", self._to)
        except OSError:
            writer.transport.abort()
            return
        both = (writer, onward)
        if self.refusing:  # by now
            for one in both:
                one.transport.abort()
            return
        self._writers.update(both)
        try:
            await asyncio.gather(
                self._carry(reader, onward, answers=False), self._carry(there, writer, answers=True)
            )
        finally:
            self._writers.difference_update(both)
            for one in both:
                one.transport.abort()

    async def _carry(
        self, source: asyncio.StreamReader, sink: asyncio.StreamWriter, *, answers: bool
    ) -> None:
        """One direction, until either side drops or the quota of answers is used up."""
        passed = 0
        try:
            while data := await source.read(65_536):
                if self.deaf:
                    await self._heard.wait()
                if self.latency_s:
                    await asyncio.sleep(self.latency_s)
                if answers and self.cut_after_bytes is not None:
                    data = data[: self.cut_after_bytes - passed]
                await self._pass(sink, data)
                passed += len(data)
                if answers and self.cut_after_bytes is not None and passed >= self.cut_after_bytes:
                    break
        except ConnectionError:
            pass
        if answers and self.cut_after_bytes is not None:
            sink.transport.abort()
        elif not sink.is_closing():
            sink.close()

    async def _pass(self, sink: asyncio.StreamWriter, data: bytes) -> None:
        size = self.slice_bytes or len(data) or 1
        for at in range(0, len(data), size):
            if sink.is_closing():  # uvloop raises RuntimeError, asyncio loses the bytes
                raise ConnectionResetError
            sink.write(data[at : at + size])
            await sink.drain()
            if self.slice_bytes:
                await asyncio.sleep(0)
