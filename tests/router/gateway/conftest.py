from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from typing import Any

import pytest
import uvloop

from tests.router.gateway.fakes import Behaviour, FakeEngine, Gateway, eventually, fleet, running

StartEngine = Callable[..., Awaitable[FakeEngine]]
StartGateway = Callable[..., Awaitable[Gateway]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of the service."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def engine() -> AsyncIterator[StartEngine]:
    """Start a fake engine with a script."""
    started: list[FakeEngine] = []

    async def start(*script: Behaviour) -> FakeEngine:
        fake = FakeEngine(*script)
        await fake.start()
        started.append(fake)
        return fake

    yield start
    for fake in started:
        await fake.stop()


@pytest.fixture(params=["protocol", "asgi"])
def front_end(request: pytest.FixtureRequest) -> str:
    """Whoever uses it runs once over each front end: they must behave alike."""
    chosen: str = request.param
    return chosen


@pytest.fixture
async def gateway(front_end: str) -> AsyncIterator[StartGateway]:
    """Start a gateway in front of engines; at the end its books must balance (I1, I2)."""
    async with AsyncExitStack() as stack:
        opened: list[Gateway] = []

        async def start(*engines: FakeEngine | str, **settings: Any) -> Gateway:
            gate = await stack.enter_async_context(running(fleet(*engines, **settings), front_end))
            opened.append(gate)
            return gate

        yield start
        for gate in opened:
            await eventually(lambda gate=gate: gate.relay.engine.live == 0)
            gate.assert_at_rest()
