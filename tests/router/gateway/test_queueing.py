"""Late binding: a request stays in the router while every backend is saturated."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Sequence
from typing import Any

import pytest

from router.domain.request import Request
from router.domain.state import BackendView
from router.gateway.exchange import Exchange
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    REQUEST,
    Gateway,
    Received,
    chat,
    eventually,
    reset,
    stream,
)


class OneAtATime:
    """Keeps requests waiting while every candidate has one."""

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | None:
        return next((view for view in candidates if view.in_flight == 0), None)


def one_at_a_time(gate: Gateway) -> None:
    gate.relay.engine.dispatcher._policy = OneAtATime()


class Gate:
    """An engine that answers when the test says so."""

    def __init__(self) -> None:
        self.open = asyncio.Event()

    async def __call__(self, request: Received) -> bool:
        await self.open.wait()
        return bool(await chat()(request))


async def test_a_queued_request_goes_when_capacity_frees(
    engine: StartEngine, gateway: StartGateway
) -> None:
    hold = Gate()
    backend = await engine(hold)
    gate = await gateway(backend)
    one_at_a_time(gate)
    asked = [asyncio.create_task(gate.post()) for _ in range(5)]
    await eventually(lambda: gate.books["queued"] == 4)
    await eventually(lambda: len(backend.received) == 1)
    hold.open.set()
    assert [(await task).status_code for task in asked] == [200] * 5


async def test_waiting_has_an_end(engine: StartEngine, gateway: StartGateway) -> None:
    hold = Gate()
    gate = await gateway(await engine(hold), reliability={"queue_timeout_s": 0.2})
    one_at_a_time(gate)
    first = asyncio.create_task(gate.post())
    await eventually(lambda: gate.books["in_flight"] == 1)
    answered = await gate.post()
    assert answered.status_code == 503
    assert answered.json()["error"]["code"] == "queue_timeout"
    assert int(answered.headers["retry-after"]) >= 1
    hold.open.set()
    assert (await first).status_code == 200


async def test_the_queue_has_a_size(engine: StartEngine, gateway: StartGateway) -> None:
    hold = Gate()
    gate = await gateway(await engine(hold), reliability={"queue_size": 1})
    one_at_a_time(gate)
    kept = [asyncio.create_task(gate.post()) for _ in range(2)]
    await eventually(lambda: gate.books["queued"] == 1)
    answered = await gate.post()
    assert (answered.status_code, answered.json()["error"]["code"]) == (503, "queue_full")
    hold.open.set()
    assert [(await task).status_code for task in kept] == [200, 200]


async def test_a_client_may_leave_the_queue(engine: StartEngine, gateway: StartGateway) -> None:
    hold = Gate()
    backend = await engine(hold)
    gate = await gateway(backend)
    one_at_a_time(gate)
    first = asyncio.create_task(gate.post())
    await eventually(lambda: gate.books["in_flight"] == 1)
    _, writer = await gate.ask()
    await eventually(lambda: gate.books["queued"] == 1)
    writer.close()
    await eventually(lambda: gate.books["cancelled"] == 1)
    hold.open.set()
    assert (await first).status_code == 200
    assert len(backend.received) == 1


async def test_while_nobody_is_healthy_requests_wait_instead_of_storming(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    dispatcher = gate.relay.engine.dispatcher
    dispatcher.set_health("e0", healthy=False, now=0.0)
    asked = asyncio.create_task(gate.post())
    await eventually(lambda: gate.books["queued"] == 1)
    dispatcher.set_health("e0", healthy=True, now=0.0)
    gate.relay.engine.poke()
    assert (await asked).status_code == 200


async def test_an_open_breaker_is_probed_by_a_waiting_request(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(reset, chat())
    gate = await gateway(backend, reliability={"breaker": {"failure_threshold": 1, "open_s": 0.2}})
    assert (await gate.post()).status_code == 502
    answered = await gate.post()
    assert answered.status_code == 200
    assert len(backend.received) == 2


async def test_a_first_token_can_free_capacity(engine: StartEngine, gateway: StartGateway) -> None:
    """The policy may wait for prefill to end, not for the answer."""

    class OnePrefill:
        def choose(
            self, request: Request, candidates: Sequence[BackendView], now: float
        ) -> BackendView | None:
            return next((view for view in candidates if view.prefilling == 0), None)

    backend = await engine(stream(["a"] * 30, gap_s=0.01))
    gate = await gateway(backend)
    gate.relay.engine.dispatcher._policy = OnePrefill()
    both = [asyncio.create_task(gate.post()) for _ in range(2)]
    await eventually(lambda: len(backend.received) == 2)
    assert gate.books["completed"] == 0
    await asyncio.gather(*both)


LONG_TOKENS = 1000
MUCH = [{"role": "user", "content": "word " * 5000}]


class Letting(OneAtATime):
    """Keeps everybody waiting until it is ``open``; then raises over prompts that are too long."""

    open = False
    longest_tokens = LONG_TOKENS

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView | None:
        if self.open and request.prompt_tokens > self.longest_tokens:
            raise RuntimeError("a defect of ours")
        return candidates[0] if self.open else None


@pytest.mark.parametrize("where", ["deciding", "sending"])
async def test_an_error_of_ours_with_one_is_none_with_the_others(
    engine: StartEngine, gateway: StartGateway, monkeypatch: pytest.MonkeyPatch, where: str
) -> None:
    """He is answered 500 at once; who was decided with him, before or after, is served."""
    gate = await gateway(await engine(chat()))
    gate.relay.engine.dispatcher._policy = policy = Letting()
    if where == "sending":
        policy.longest_tokens = 10**6
        start = Exchange._try

        def grieves(exchange: Exchange, *args: Any) -> None:
            if exchange.request is not None and exchange.request.prompt_tokens > LONG_TOKENS:
                raise RuntimeError("a defect of ours")
            start(exchange, *args)

        monkeypatch.setattr(Exchange, "_try", grieves)
    long = json.dumps(json.loads(REQUEST) | {"messages": MUCH}).encode()
    asked = []
    for n, body in enumerate((None, long, None)):
        asked.append(asyncio.create_task(gate.post(body=body)))
        await eventually(lambda n=n: gate.books["queued"] == n + 1)
    policy.open = True
    got = [await task for task in asked]
    assert [answer.status_code for answer in got] == [200, 500, 200]
    assert got[1].json()["error"]["code"] == "internal_error"
    assert gate.books["completed"] == 2
    await eventually(lambda: gate.relay.engine.live == 0)
    gate.assert_at_rest()
