"""A name whose addresses change all the time, under traffic, as clients see it."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import AsyncExitStack, asynccontextmanager

from tests.router.gateway.discovery.test_dns import NameServer
from tests.router.gateway.fakes import (
    MODEL,
    REQUEST,
    FakeEngine,
    Gateway,
    eventually,
    running,
    stream,
)

TOKENS = [f"<{n}>" for n in range(8)]
NAME = ("vllm.svc.", "A")
STREAMS = REQUEST[:-1] + b',"stream":true}'


class EngineAt(FakeEngine):
    """On an address of its own: a name brings many addresses, and one port."""

    def __init__(self, host: str, port: int) -> None:
        super().__init__(stream(TOKENS, gap_s=0.05))
        self.host, self.port = host, port

    async def start(self) -> None:
        self._server = await asyncio.start_server(self._accept, self.host, self.port)
        self.port = self._server.sockets[0].getsockname()[1]


@asynccontextmanager
async def named_fleet(*hosts: str) -> AsyncIterator[tuple[Gateway, NameServer, list[EngineAt]]]:
    """A gateway that knows its engines by name only, looked up ten times a second."""
    async with AsyncExitStack() as stack:
        engines: list[EngineAt] = []
        for host in hosts:
            engines.append(EngineAt(host, engines[0].port if engines else 0))
            await engines[-1].start()
            stack.push_async_callback(engines[-1].stop)
        transport, server = await asyncio.get_running_loop().create_datagram_endpoint(
            NameServer, local_addr=("127.0.0.1", 0)
        )
        stack.callback(transport.close)
        server.records[NAME] = list(hosts)
        dns = {
            "name": "vllm.svc",
            "record": "A",
            "port": engines[0].port,
            "interval_s": 0.1,
            "nameservers": [f"127.0.0.1:{server.port}"],
            "template": {"gpu": "a100-80", "model": MODEL},
        }
        config = {"discovery": {"dns": [dns]}, "reliability": {"health_interval_s": 3600.0}}
        gate = await stack.enter_async_context(running(config))
        await eventually(lambda: len(members(gate)) == len(hosts))
        yield gate, server, engines


def members(gate: Gateway) -> list[str]:
    return [b.spec.name for b in gate.relay.engine.dispatcher.state.backends if b.usable]


async def test_no_request_is_lost_while_a_name_flaps() -> None:
    """Halves of the fleet in turns, a name server in trouble, no address at all, no such name."""
    hosts = ["127.0.0.11", "127.0.0.12", "127.0.0.13"]
    async with named_fleet(*hosts) as (gate, server, engines), gate.client() as client:

        async def one() -> None:
            answered = await client.post("/v1/chat/completions", content=STREAMS)
            events = [event for event in answered.text.split("\n\n") if event]
            assert events.pop() == "data: [DONE]"
            deltas = [json.loads(event[6:])["choices"][0]["delta"] for event in events]
            assert "".join(delta["content"] for delta in deltas) == "".join(TOKENS)

        async with asyncio.TaskGroup() as requests:
            for told in (hosts[:1], hosts[1:], None, [], hosts, hosts[2:], "no name", hosts, []):
                if told == "no name":
                    server.records.clear()
                else:
                    server.records[NAME] = told  # type: ignore[assignment]
                for _ in range(10):
                    requests.create_task(one())
                    await asyncio.sleep(0.03)
            server.records[NAME] = hosts
        await eventually(lambda: len(members(gate)) == 3)
        assert sum(len(engine.received) for engine in engines) == 90
        gate.assert_at_rest()


async def test_what_was_learned_of_an_engine_comes_back_with_it() -> None:
    async with named_fleet("127.0.0.11") as (gate, server, (engine,)):
        feedback = gate.relay._rest.state.runtime.instruments.feedback  # type: ignore[attr-defined]
        name = f"127.0.0.11:{engine.port}"
        await asyncio.gather(*(gate.post(body=STREAMS) for _ in range(4)))
        await eventually(lambda: feedback.estimates()[name].learned > 0)
        learned = feedback.estimates()[name].learned
        server.records[NAME] = []
        await eventually(lambda: name not in gate.relay.engine.dispatcher.state)
        server.records[NAME] = ["127.0.0.11"]
        await eventually(lambda: name in gate.relay.engine.dispatcher.state)
        assert feedback.estimates()[name].before == learned
