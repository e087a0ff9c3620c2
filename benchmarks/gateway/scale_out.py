"""What k routers cost, measured and predicted: ``python -m benchmarks.gateway.scale_out``.

The same trace over the same fleet three times: through one gateway, through k that know only their
own requests, and through k that share (Redis with ``--redis``, else the memory of one process).
Once live (real gateways, real sockets, emulated engines) and once in the simulator, whose k-router
mode is thereby put to the test. The policy is one that counts requests only, so that the fleet may
run faster than real time without the gateways believing another speed.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager
from dataclasses import dataclass, replace

from router.config.load import MotleyConfig, load_config
from router.gateway.app import build_app
from router.gateway.server import bind, server
from router.gateway.shared.memory_board import MemoryBoard, Wall
from simulator.engine_server.host import EngineHost
from simulator.options import ReplayOptions
from simulator.run import run_policy
from simulator.summary import summarize
from simulator.synthetic import builtin_trace
from simulator.traces.columns import Trace

MODEL = "llama-3.1-8b"
POLICY = "least-request"
FLEET = (
    {"gpu": "a100-80", "count": 2},
    {"gpu": "v100-32", "count": 2},
    {"gpu": "t4", "tensor_parallel": 2, "count": 4},
)
SCRAPE_S, SHARE_S = 1.0, 0.1
BYTES_PER_TOKEN = 4
LEAD_S = 0.5


@dataclass(frozen=True)
class Loss:
    """Mean E2E of k routers over that of one.

    Attributes:
        alone: of k that share nothing.
        sharing: of k that share.
    """

    alone: float
    sharing: float


@dataclass(frozen=True)
class Study:
    """What is compared.

    Attributes:
        routers: k.
        duration_s: of the trace, in the fleet's own time.
        speed: how much faster than real time the fleet runs.
        seed: of the trace.
        redis: its URL; ``None`` shares through memory.
    """

    routers: int = 8
    duration_s: float = 90.0
    speed: float = 3.0
    seed: int = 1
    redis: str | None = None

    @property
    def trace(self) -> Trace:
        """What arrives."""
        return builtin_trace("azure-conv-like", duration_s=self.duration_s, seed=self.seed)


def fleet(urls: Sequence[str] = (), study: Study | None = None) -> MotleyConfig:
    """The fleet, with the engines' addresses once they are known."""
    speed = study.speed if study is not None else 1.0
    entries = [{"engine": "vllm", "model": MODEL, **entry} for entry in FLEET]
    if urls:
        given = iter(urls)
        for entry in entries:
            entry["url"] = [next(given) for _ in range(int(str(entry["count"])))]
    return load_config(
        {
            "backends": entries,
            "policy": {"name": POLICY},
            "telemetry": {"scrape_interval_s": SCRAPE_S / speed, "feedback": False},
            "shared": {"interval_s": SHARE_S / speed},
        }
    )


# The simulator's prediction


def predicted(study: Study) -> Loss:
    """What the simulator says."""
    trace, config = study.trace, fleet()

    def mean_s(routers: int, every_s: float) -> float:
        options = ReplayOptions(routers=routers, shared_every_s=every_s, feedback=False)
        return float(summarize(run_policy(trace, config, POLICY, options))["e2e_s"]["mean"])

    one = mean_s(1, 0.0)
    return Loss(mean_s(study.routers, 0.0) / one, mean_s(study.routers, SHARE_S) / one)


# Live


async def measured(study: Study) -> Loss:
    """What real gateways do."""
    one = await mean_e2e_s(study, 1, shares=False)
    alone = await mean_e2e_s(study, study.routers, shares=False)
    return Loss(alone / one, await mean_e2e_s(study, study.routers, shares=True) / one)


async def mean_e2e_s(study: Study, routers: int, *, shares: bool) -> float:
    """Mean E2E of a live run, in the fleet's own time."""
    specs = fleet().fleet.backends
    with EngineHost(specs) as host:
        host.start(speed=study.speed)
        await asyncio.to_thread(host.wait_until_ready)
        config = fleet(list(host.urls.values()), study)
        async with gateways(config, routers, study.redis if shares else None, shares) as ports:
            took = await replayed(study, ports)
    return study.speed * sum(took) / len(took)


@asynccontextmanager
async def gateways(
    config: MotleyConfig, count: int, redis: str | None, shares: bool
) -> AsyncIterator[list[int]]:
    """Gateways in this loop, each with a port of its own."""
    wall = Wall(time.monotonic, config.shared.stale_after_s)
    async with AsyncExitStack() as stack:
        ports = []
        for k in range(count):
            shared = config.shared.model_copy(update={"url": redis, "replica": f"r{k}"})
            board = MemoryBoard(wall, f"r{k}") if shares and redis is None else None
            app = build_app(replace(config, shared=shared), board=board)
            listener = stack.enter_context(bind("127.0.0.1", 0))
            web = server(app, drain_s=1.0)
            serving = asyncio.create_task(web._serve(sockets=[listener]))
            stack.push_async_callback(_stopped, web, serving)
            while not web.started:
                await asyncio.sleep(0.005)
            ports.append(listener.getsockname()[1])
        await asyncio.sleep(LEAD_S)
        yield ports


async def _stopped(web: object, serving: asyncio.Task[None]) -> None:
    web.should_exit = True  # type: ignore[attr-defined]
    await serving


async def replayed(study: Study, ports: Sequence[int]) -> list[float]:
    """Send every request of the trace at its time, to the gateways in turn; seconds each took."""
    trace, loop = study.trace, asyncio.get_running_loop()
    begin_s = loop.time() + LEAD_S
    asked = []
    for i, arrival_s in enumerate(trace.arrival_s):
        await asyncio.sleep(max(0.0, begin_s + arrival_s / study.speed - loop.time()))
        body = _body(i, trace.input_tokens[i], trace.output_tokens[i])
        asked.append(asyncio.create_task(_ask(ports[i % len(ports)], body)))
    return await asyncio.gather(*asked)


def _body(i: int, prompt_tokens: int, output_tokens: int) -> bytes:
    content = f"{i:08d} ".ljust(BYTES_PER_TOKEN * prompt_tokens, "x")
    return json.dumps(
        {
            "model": MODEL,
            "stream": True,
            "max_tokens": output_tokens,
            "ignore_eos": True,
            "messages": [{"role": "user", "content": content}],
        }
    ).encode()


async def _ask(port: int, body: bytes) -> float:
    began_s = time.monotonic()
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    head = (
        f"POST /v1/chat/completions HTTP/1.1\r\nhost: g\r\nconnection: close\r\n"
        f"content-type: application/json\r\ncontent-length: {len(body)}\r\n\r\n"
    )
    writer.write(head.encode() + body)
    tail = b""
    while part := await reader.read(65_536):
        tail = (tail + part)[-64:]
    writer.close()
    if b"data: [DONE]" not in tail:
        raise RuntimeError(f"an answer was not whole: ...{tail!r}")
    return time.monotonic() - began_s


def main() -> None:
    """Print both."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--routers", type=int, default=Study.routers)
    parser.add_argument("--duration", type=float, default=Study.duration_s)
    parser.add_argument("--speed", type=float, default=Study.speed)
    parser.add_argument("--seed", type=int, default=Study.seed)
    parser.add_argument("--redis", default=None)
    given = parser.parse_args()
    study = Study(given.routers, given.duration, given.speed, given.seed, given.redis)
    simulated, live = predicted(study), asyncio.run(measured(study))
    how = "Redis" if study.redis else "memory"
    print("| mean E2E over that of one router | live | simulated |")
    print("|---|--:|--:|")
    print(f"| {study.routers} routers, nothing shared | {live.alone:.2f} | {simulated.alone:.2f} |")
    told = f"| {study.routers} routers, sharing ({how}) "
    print(f"{told}| {live.sharing:.2f} | {simulated.sharing:.2f} |")


if __name__ == "__main__":
    main()
