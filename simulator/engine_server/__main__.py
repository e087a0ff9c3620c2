"""A process of emulated engines: ``python -m simulator.engine_server``, started by ``host.py``.

Reads a ``HostPlan`` from the first line of standard input, serves on the sockets it inherited,
prints ``ready``, and runs until standard input closes: when the parent dies, however it dies,
the engines go too.
"""

from __future__ import annotations

import asyncio
import socket
import sys

import msgspec

from simulator.engine_server.build import EngineOptions
from simulator.engine_server.fleet import EngineFleet
from simulator.engine_server.load import run_load
from simulator.engine_server.loops import run
from simulator.engine_server.plan import HostPlan
from simulator.engine_server.tokens import LengthRule


async def serve(plan: HostPlan) -> None:
    """Serve ``plan`` until standard input closes."""
    closed = asyncio.get_running_loop().run_in_executor(None, sys.stdin.buffer.read)
    engines = {e.spec.name: (e.spec, socket.socket(fileno=e.fd)) for e in plan.engines}
    options = EngineOptions(speed=plan.speed, seed=plan.seed, lengths=plan.lengths or LengthRule())
    async with EngineFleet(engines, options):
        print("ready", flush=True)
        load = asyncio.create_task(run_load(plan.load)) if plan.load else None
        await closed
        if load is not None:
            load.cancel()
            await asyncio.wait([load])


def main() -> None:
    """Entry point."""
    line = sys.stdin.buffer.readline()
    if line:
        run(serve(msgspec.json.decode(line, type=HostPlan)))


if __name__ == "__main__":
    main()
