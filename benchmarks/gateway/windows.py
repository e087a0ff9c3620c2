"""Loads that last for a while, with the gateway's CPU read at the beginning and the end.

A window of a second has each of the chores in it that a gateway does every second, once. What is
not to be measured (connections, first requests, streams that begin and end) is outside.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable
from dataclasses import dataclass, field

from load import length_of, request

WARM_UP = 12
"""Requests per connection before a window opens."""
CONCURRENCY = 8
RAMP_S = 0.2
"""So long it takes until all streams run; the engines' ticks come to lie evenly."""
GIVE_UP_S = 30.0

CpuClock = Callable[[], float]
"""CPU seconds so far."""


@dataclass(slots=True)
class Window:
    """What one load saw.

    Attributes:
        done: requests answered, or chunks received, within the window.
        cpu_s: of the gateway, within the window.
        errors: answers that were not 200 or not whole, at any time.
        latencies_s: of requests.
    """

    done: int = 0
    cpu_s: float = 0.0
    errors: int = 0
    latencies_s: list[float] = field(default_factory=list)

    @property
    def cpu_us_each(self) -> float:
        """CPU microseconds per request or chunk."""
        return 1e6 * self.cpu_s / max(self.done, 1)


class Caller(asyncio.Protocol):
    """One connection of a client: asks when told, and tells when the answer is whole.

    Args:
        payload: the request.
        answered: told of each whole answer.
    """

    transport: asyncio.Transport

    def __init__(self, payload: bytes, answered: Callable[[Caller], None]) -> None:
        self._payload, self._answered = payload, answered
        self._left: int | None = None
        self._head = b""
        self._sent_s = 0.0
        self.ok = True
        self.latency_s = 0.0
        self.lost = False

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self.transport = transport  # type: ignore[assignment]

    def ask(self) -> None:
        """Send the request."""
        self._left, self._head = None, b""
        self._sent_s = time.perf_counter()
        self.transport.write(self._payload)

    def data_received(self, data: bytes) -> None:
        if self._left is None:
            self._head += data
            end = self._head.find(b"\r\n\r\n")
            if end < 0:
                return
            self.ok = self._head.startswith(b"HTTP/1.1 200")
            self._left = length_of(self._head[:end]) + end + 4 - len(self._head)
        else:
            self._left -= len(data)
        if self._left <= 0:
            self.latency_s = time.perf_counter() - self._sent_s
            self._answered(self)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        self.lost, self.ok = True, False


async def requests(port: int, size_bytes: int, *, seconds: float, cpu: CpuClock) -> Window:
    """Non-streamed requests, ``CONCURRENCY`` at once, for so long."""
    loop = asyncio.get_running_loop()
    window, payload = Window(), request(size_bytes, stream=False)
    until_s = 0.0  # while it is 0, everybody warms up
    ready, over = loop.create_future(), loop.create_future()
    warming, running = CONCURRENCY * WARM_UP, CONCURRENCY

    def answered(caller: Caller) -> None:
        nonlocal warming, running
        window.errors += not caller.ok
        if until_s:
            window.done += 1
        else:
            warming -= 1
        if (time.perf_counter() < until_s) if until_s else warming >= CONCURRENCY:
            caller.ask()
            return
        running -= 1
        if running == 0:
            (over if until_s else ready).set_result(None)

    callers = await _connect(port, payload, answered, CONCURRENCY)
    for caller in callers:
        caller.ask()
    await asyncio.wait_for(ready, GIVE_UP_S)
    running = CONCURRENCY
    before_s = cpu()
    until_s = time.perf_counter() + seconds
    for caller in callers:
        caller.ask()
    await asyncio.wait_for(over, seconds + GIVE_UP_S)
    window.cpu_s = cpu() - before_s
    _close(callers)
    return window


async def paced(port: int, size_bytes: int, *, per_s: float, seconds: float) -> Window:
    """Non-streamed requests at a fixed rate, whatever the answers do: their latencies."""
    window, payload = Window(), request(size_bytes, stream=False)
    idle: list[Caller] = []

    def answered(caller: Caller) -> None:
        window.errors += not caller.ok
        window.latencies_s.append(caller.latency_s)
        idle.append(caller)

    idle += await _connect(port, payload, answered, 2)
    callers = list(idle)
    for n in range(-WARM_UP, int(per_s * seconds)):
        if n == 0:
            await _all(idle, callers)
            window.latencies_s.clear()
            began = time.perf_counter()
        await asyncio.sleep(max(0.0, began + n / per_s - time.perf_counter()) if n > 0 else 0.01)
        if not idle:
            another = await _connect(port, payload, answered, 1)
            idle += another  # meanwhile others may have got their answers
            callers += another
        idle.pop().ask()
        window.done += n >= 0
    await _all(idle, callers)
    window.errors += len(callers) - len(idle)
    _close(callers)
    return window


class Stream(asyncio.Protocol):
    """One stream, from its request to its end.

    Args:
        payload: the request.
        arrived: told how many events each read brought.
    """

    def __init__(self, payload: bytes, arrived: Callable[[int], None]) -> None:
        self._payload, self._arrived = payload, arrived
        self._reads: list[bytes] = []
        self.over = asyncio.get_running_loop().create_future()

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        self._transport: asyncio.Transport = transport  # type: ignore[assignment]
        self._transport.write(self._payload)

    def data_received(self, data: bytes) -> None:
        self._arrived(data.count(b"data: {"))
        self._reads.append(data)
        if data.endswith(b"0\r\n\r\n"):
            self._transport.close()

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002
        if not self.over.done():
            self.over.set_result(b"".join(self._reads))


async def streams(
    port: int, *, count: int, tokens: int, begin_s: float, seconds: float, cpu: CpuClock
) -> Window:
    """``count`` streams of ``tokens`` events each; the window opens when all of them run.

    Args:
        port: of the gateway.
        count: of streams.
        tokens: events that each stream must bring to count as whole.
        begin_s: when the window opens, after the first stream.
        seconds: how long it is open; the streams must be longer.
        cpu: the gateway's.
    """
    loop = asyncio.get_running_loop()
    window, payload = Window(), request(1024, stream=True)
    seen = 0

    def arrived(events: int) -> None:
        nonlocal seen
        seen += events

    async def one(delay_s: float) -> bytes:
        await asyncio.sleep(delay_s)
        _, stream = await loop.create_connection(
            lambda: Stream(payload, arrived), "127.0.0.1", port
        )
        answer: bytes = await asyncio.wait_for(stream.over, GIVE_UP_S)
        return answer

    began_s = time.perf_counter()
    tasks = [asyncio.create_task(one(RAMP_S * n / count)) for n in range(count)]
    await asyncio.sleep(began_s + begin_s - time.perf_counter())
    before, before_s = seen, cpu()
    await asyncio.sleep(began_s + begin_s + seconds - time.perf_counter())
    window.done, window.cpu_s = seen - before, cpu() - before_s
    for answer in await asyncio.gather(*tasks, return_exceptions=True):
        whole = (
            isinstance(answer, bytes)
            and answer.startswith(b"HTTP/1.1 200")
            and answer.count(b"data: {") == tokens
            and b"data: [DONE]" in answer
        )
        window.errors += not whole
    return window


async def _all(idle: list[Caller], callers: list[Caller]) -> None:
    """Wait until everybody has an answer, within reason."""
    for _ in range(int(GIVE_UP_S / 0.01)):
        if len(idle) == len(callers):
            break
        await asyncio.sleep(0.01)


async def _connect(
    port: int, payload: bytes, answered: Callable[[Caller], None], count: int
) -> list[Caller]:
    loop = asyncio.get_running_loop()
    callers = []
    for _ in range(count):
        _, caller = await loop.create_connection(
            lambda: Caller(payload, answered), "127.0.0.1", port
        )
        callers.append(caller)
    return callers


def _close(callers: list[Caller]) -> None:
    for caller in callers:
        caller.transport.close()
