"""A loop whose time only moves when a test says so, and an ASGI client that lives in it."""

import asyncio
import heapq
from dataclasses import dataclass, field
from itertools import count

from router.domain.fleet import BackendSpec
from router.domain.state import LinearCost
from simulator.engine_server.build import EngineOptions, build_engine

UNIX_S = 1_795_209_026.0


class StillLoop:
    """Implements ``driver.RealTimeLoop``.

    ``early_s`` fires every timer that much too soon, as uvloop's rounding to milliseconds does.
    """

    def __init__(self, early_s=0.0):
        self.early_s = early_s
        self.fired = 0
        self._now = 100.0  # a loop's clock does not start at 0
        self._timers, self._order = [], count()

    def time(self):
        return self._now

    def create_future(self):
        return asyncio.get_running_loop().create_future()

    def call_at(self, when, callback):
        timer = _Timer(when, next(self._order), callback)
        heapq.heappush(self._timers, timer)
        return timer

    @property
    def next_s(self):
        """When the next timer is due; ``None`` if there is none."""
        while self._timers and self._timers[0].cancelled:
            heapq.heappop(self._timers)
        return self._timers[0].when if self._timers else None

    def move(self, seconds):
        """Let time pass, firing what falls due."""
        end = self._now + seconds
        while self.next_s is not None and self.next_s - self.early_s <= end:
            timer = heapq.heappop(self._timers)
            self._now = max(self._now, timer.when - self.early_s)
            self.fired += 1
            timer.callback()
        self._now = max(self._now, end)

    async def run(self, awaitable):
        """Let time pass, from timer to timer, until ``awaitable`` is done."""
        task = asyncio.ensure_future(awaitable)
        while True:
            await settle()
            if task.done():
                return task.result()
            assert self.next_s is not None, "it waits for nothing"
            self.move(max(0.0, self.next_s - self._now))


async def settle():
    """Let every task run until it waits."""
    for _ in range(20):
        await asyncio.sleep(0)


@dataclass(order=True)
class _Timer:
    when: float
    order: int
    callback: object = field(compare=False)
    cancelled: bool = field(default=False, compare=False)

    def cancel(self):
        self.cancelled = True


class ConstantSteps:
    """A truth model: every iteration takes as long."""

    def __init__(self, step_s):
        self.step_s = step_s

    def iteration_s(self, prefill_tokens, decode_seqs, context_tokens, prefill_pairs=0.0):
        return self.step_s

    def linear(self):
        return LinearCost(self.step_s, 0.0, 0.0, 0.0)


class Exchange:
    """One ASGI request: what was sent when, and a client that can leave."""

    def __init__(self, bench, method, path, *, body, headers):
        self.sent = []
        self._loop, self._left = bench.loop, asyncio.Event()
        self._body = body
        names = {b"content-type": b"application/json"} if body else {}
        names |= {k.encode(): v.encode() for k, v in headers.items()}
        self._scope = {
            "type": "http",
            "method": method,
            "path": path,
            "headers": list(names.items()),
        }
        self.task = asyncio.ensure_future(bench.app(self._scope, self._receive, self._send))

    def leave(self):
        self._left.set()

    async def _receive(self):
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._left.wait()
        return {"type": "http.disconnect"}

    async def _send(self, message):
        self.sent.append((self._loop.time(), message))

    @property
    def status(self):
        return self.sent[0][1]["status"]

    @property
    def headers(self):
        return dict(self.sent[0][1]["headers"])

    @property
    def body(self):
        return b"".join(m.get("body", b"") for _, m in self.sent[1:]).decode()

    @property
    def complete(self):
        return self.sent[-1][1].get("more_body", False) is False


class Bench:
    """One engine in a still loop."""

    def __init__(self, engine="vllm", gpu="a100-80", speed=1.0, max_queued=None, **fields):
        self.loop = StillLoop()
        self.spec = BackendSpec(f"{gpu}-0", gpu, engine, "llama-3.1-8b", **fields)
        options = EngineOptions(speed=speed, max_queued=max_queued)
        self.app = build_engine(self.spec, options, self.loop, lambda: UNIX_S)

    def open(self, method, path, body=None, **headers):
        """Begin a request; ``body`` as bytes."""
        named = {k.replace("_", "-"): v for k, v in headers.items()}
        return Exchange(self, method, path, body=body or b"", headers=named)

    async def ask(self, method, path, body=None, **headers):
        """A whole exchange."""
        exchange = self.open(method, path, body, **headers)
        await self.loop.run(exchange.task)
        return exchange
