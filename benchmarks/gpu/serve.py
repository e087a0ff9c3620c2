"""A model on a real device behind vLLM's HTTP: ``python -m benchmarks.gpu.serve --port 8001``.

The server is the emulated engines' own (``simulator.engine_server``: OpenAI's endpoints, vLLM's
metrics), but what it waits for is computed: continuous batching over ``benchmarks.gpu.llama`` in a
process of its own. Answers are words without meaning. Their length is what the request's ``seed``
says, which no router reads: ``max_tokens`` only cuts, as a client's limit does.
"""

from __future__ import annotations

import argparse
import asyncio
import json
import multiprocessing
import signal
import socket
import time
from collections.abc import Callable
from contextlib import suppress
from multiprocessing.connection import Connection
from random import Random
from threading import Thread

from benchmarks.gpu.remote import RemoteReplica
from benchmarks.gpu.shapes import SHAPES
from benchmarks.gpu.words import CoreOptions, Gained, Log, Ready, Stop
from simulator.engine_server.app import EngineApp
from simulator.engine_server.asgi import Page
from simulator.engine_server.clock import EngineClock
from simulator.engine_server.completions import Completions
from simulator.engine_server.dialect import Limits
from simulator.engine_server.driver import Driver
from simulator.engine_server.exposition import EngineFacts
from simulator.engine_server.listening import listen
from simulator.engine_server.loops import run
from simulator.engine_server.server import EngineServer
from simulator.engine_server.stats import EngineStats
from simulator.engine_server.tokens import LengthRule
from simulator.engine_server.vllm import VllmDialect
from simulator.engine_server.vllm_metrics import VllmMetrics
from simulator.engine_server.vllm_pages import add_vllm_pages
from simulator.replica.config import ReplicaConfig


class SeedIsLength(LengthRule):
    """An answer's natural length is the request's ``seed``."""

    def draw(self, key: bytes, seed: int) -> int:  # noqa: ARG002
        return max(1, seed)


def replica_of(options: CoreOptions) -> ReplicaConfig:
    """The same engine as the simulator would set it up."""
    return ReplicaConfig(
        kv_capacity_tokens=options.cache_tokens,
        max_context_tokens=options.seat_tokens,
        max_num_seqs=options.max_seqs,
        max_num_batched_tokens=options.chunk_tokens,
        prefix_caching=False,
    )


def build(replica: RemoteReplica, model: str, ready: Ready) -> EngineApp:
    """The application; must be called in the loop that will run it."""
    loop, page, config = asyncio.get_running_loop(), VllmMetrics(), replica.config
    driver = Driver(replica, EngineClock(loop.time), loop, EngineStats(page.bounds))
    limits, dialect = Limits(model, config.max_context_tokens), VllmDialect()
    completions = Completions(
        driver,
        dialect,
        limits,
        rule=SeedIsLength(),
        seed=128,
        rng=Random(model),
        unix_s=time.time,
    )
    facts = EngineFacts(
        model=model,
        max_model_len=config.max_context_tokens,
        max_running=config.max_num_seqs,
        kv_capacity_tokens=config.total_blocks * config.block_tokens,
        block_tokens=config.block_tokens,
        prefix_caching=False,
        tensor_parallel=1,
        started_unix_s=time.time(),
    )
    app = EngineApp(driver, dialect, page, completions, facts=facts, limits=limits)
    add_vllm_pages(app)
    _add_log(app, replica, ready)
    return app


def _add_log(app: EngineApp, replica: RemoteReplica, ready: Ready) -> None:
    """``/iterations``: what no router sees. Each is told once."""

    async def iterations(_: bytes) -> Page:
        coming = asyncio.get_running_loop().create_future()
        replica.take_log(coming.set_result)
        rows = await coming
        return Page(json.dumps({"processors": ready.processors, "rows": rows}).encode())

    app.routes["/iterations"] = {"GET": iterations}


async def serve(
    listener: socket.socket,
    connection: Connection,
    model: str,
    options: CoreOptions,
    ended: asyncio.Event,
) -> None:
    """Serve on a socket until ``ended`` is set, by whoever waits or by the engine's end."""
    loop = asyncio.get_running_loop()
    ready = await loop.run_in_executor(None, connection.recv)
    replica = RemoteReplica(connection, replica_of(options))
    app = build(replica, model, ready)

    def heard(word: Gained | Log) -> None:
        replica.hear(word)
        app.driver.signals()

    def listen_on() -> None:
        # A loop that watched the pipe would make it non-blocking, for long words too.
        with suppress(EOFError, OSError, RuntimeError):
            while True:
                loop.call_soon_threadsafe(heard, connection.recv())
        with suppress(RuntimeError):  # the loop has gone
            loop.call_soon_threadsafe(ended.set)

    Thread(target=listen_on, daemon=True).start()
    server = EngineServer(_once(app), listener)
    await server.start()
    await ended.wait()
    await server.stop()


def _once(app: EngineApp) -> Callable[[], EngineApp]:
    return lambda: app


def _compute(connection: Connection, options: CoreOptions) -> None:
    from benchmarks.gpu import core  # noqa: PLC0415 - the server itself needs no PyTorch

    core.serve(connection, options)


async def _until_told(port: int, connection: Connection, model: str, options: CoreOptions) -> None:
    ended = asyncio.Event()
    for number in (signal.SIGTERM, signal.SIGINT):
        asyncio.get_running_loop().add_signal_handler(number, ended.set)
    await serve(listen("127.0.0.1", port), connection, model, options, ended)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--shape", choices=SHAPES, default="llama-3.1-8b")
    parser.add_argument("--model", default="llama-3.1-8b", help="the name it answers to")
    parser.add_argument("--port", type=int, required=True)
    parser.add_argument("--device", choices=("cuda", "cpu"), default="cuda")
    parser.add_argument("--max-seqs", type=int, default=64)
    parser.add_argument("--seat-tokens", type=int, default=2048)
    parser.add_argument("--chunk-tokens", type=int, default=2048)
    parser.add_argument("--pause-s", type=float, default=0.0)
    args = parser.parse_args()
    options = CoreOptions(
        args.shape, args.device, args.max_seqs, args.seat_tokens, args.chunk_tokens, args.pause_s
    )
    # Not forked: a process that has touched CUDA cannot be.
    spawning = multiprocessing.get_context("spawn")
    ours, theirs = spawning.Pipe()
    core = spawning.Process(target=_compute, args=(theirs, options), daemon=True)
    core.start()
    theirs.close()
    try:
        run(_until_told(args.port, ours, args.model, options))
    finally:
        with suppress(OSError):  # it may have gone by itself
            ours.send(Stop())
        core.join(timeout=5)
        if core.is_alive():
            core.terminate()


if __name__ == "__main__":
    main()
