"""A fleet of real engines on loopback: a fast vLLM, a slow one (a larger model), an SGLang."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest
import uvloop

from tests.engines.fleet import FLEET, Fleet, config
from tests.engines.servers import Server, engine_python, missing, serving
from tests.router.gateway.fakes import Gateway, eventually, running

StartGateway = Callable[..., Awaitable[Gateway]]


def pytest_asyncio_loop_factories() -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of the service."""
    return {"uvloop": uvloop.new_event_loop}


def need(*engines: str) -> None:
    """Skip, saying why, what cannot run here."""
    for engine in engines:
        if engine_python(engine) is None:
            pytest.skip(missing(engine))


@pytest.fixture(scope="session")
def models(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of models and logs, shared so that each model is made once."""
    return tmp_path_factory.mktemp("engines")


@pytest.fixture(scope="module")
def fleet(models: Path) -> Iterator[Fleet]:
    """All three, for the tests of one module."""
    need("vllm", "sglang")
    with serving(models, *FLEET.values()) as servers:
        yield Fleet(dict(zip(FLEET, servers, strict=True)))


@pytest.fixture
async def gateway() -> AsyncIterator[StartGateway]:
    """Start a gateway in front of engines; at the end its books must balance (I1, I2)."""
    async with AsyncExitStack() as stack:
        opened: list[Gateway] = []

        async def start(backends: dict[str, Server], **settings: Any) -> Gateway:
            gate = await stack.enter_async_context(running(config(backends, **settings)))
            opened.append(gate)
            return gate

        yield start
        for gate in opened:
            await eventually(lambda gate=gate: gate.relay.engine.live == 0)
            gate.assert_at_rest()
