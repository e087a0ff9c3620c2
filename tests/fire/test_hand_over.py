"""A client that leaves at the very moment at which its request changes hands.

Hedging opens a second attempt, continuation another backend, the queue of classes lets it go, or a
tighter class takes its place. Forty clients a time leave at moments that cross that hand-over, a
millisecond apart; others stay, and get all of it.
"""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from router.class_dispatcher import desk_of
from tests.fire.census import nothing_left_behind
from tests.fire.client import read, request_of
from tests.router.gateway.fakes import (
    MODEL,
    Behaviour,
    FakeEngine,
    Gateway,
    Received,
    eventually,
    fleet,
    running,
    stream,
)
from tests.router.gateway.test_continuation import Speaker
from tests.router.gateway.test_hedging import EAGER, first_only

LEAVING, STAYING = 40, 4
STEP_S = 0.001


class Late:
    """An engine whose answer begins after so long."""

    def __init__(self, seconds: float) -> None:
        self._seconds = seconds

    async def __call__(self, request: Received) -> bool | None:
        gone = asyncio.create_task(request.wait_for_leaving())
        await asyncio.wait([gone], timeout=self._seconds)
        if gone.done():
            return None
        gone.cancel()
        return bool(await stream(["a", "b"])(request))


def body(prompt: str = "Say hello.") -> bytes:
    messages = [{"role": "user", "content": prompt}]
    return json.dumps({"model": MODEL, "messages": messages, "stream": True}).encode()


HEDGED: tuple[list[Behaviour], dict[str, Any]] = ([Late(0.2), Late(0.01)], {"hedging": EAGER})
CONTINUED: tuple[list[Behaviour], dict[str, Any]] = (
    [Speaker("one", dies_after=6), Speaker("two")],
    {
        "reliability": {
            "continuation": {"enabled": True},
            "breaker": {"failure_threshold": 1_000},
        }
    },
)
QUEUED: tuple[list[Behaviour], dict[str, Any]] = (
    [Late(0.003)],
    {"admission": {"enabled": True}, "policy": {"name": "motley"}},
)


async def leaves(gate: Gateway, after_s: float, raw: bytes) -> None:
    """Ask, and hang up so much later, in the middle of whatever happens then."""
    _, writer = await gate.connect()
    writer.write(raw)
    await asyncio.sleep(after_s)
    writer.transport.abort()


async def stays(gate: Gateway, raw: bytes) -> str:
    """Ask and read all of it."""
    reader, writer = await gate.connect()
    writer.write(raw)
    seen = read(await reader.read())
    writer.close()
    return seen.end


@pytest.mark.parametrize(
    ("what", "begin_s"),
    [(HEDGED, 0.035), (CONTINUED, 0.002), (QUEUED, 0.001)],
    ids=["hedging", "continuation", "the queue of classes"],
)
async def test_a_client_that_leaves_at_the_hand_over_leaves_nothing(
    front_end: str, what: tuple[list[Behaviour], dict[str, Any]], begin_s: float
) -> None:
    behaviours, settings = what
    engines = [FakeEngine(behaviour) for behaviour in behaviours]
    raw = request_of(body(), ("x-motley-class", "bulk"))
    async with nothing_left_behind():
        for engine in engines:
            await engine.start()
        config = fleet(*engines, **settings)
        if len(engines) == 1:
            config["backends"][0]["engine_args"] = {"max_num_seqs": 2}
        async with running(config, front_end) as gate:
            if len(engines) == 2:
                first_only(gate.relay.engine.dispatcher, "e0")
            staying = [asyncio.create_task(stays(gate, raw)) for _ in range(STAYING)]
            moments = [begin_s + n * STEP_S for n in range(LEAVING)]
            if len(engines) == 1:  # they wait for each other
                await asyncio.gather(*(leaves(gate, after_s, raw) for after_s in moments))
            else:
                for after_s in moments:
                    await leaves(gate, after_s, raw)
            assert set(await asyncio.gather(*staying)) == {"ok"}
            await at_rest(gate, LEAVING + STAYING)
            assert gate.books["completed"] >= STAYING
            if len(engines) == 2:
                assert all(len(engine.received) > STAYING for engine in engines), "some went on"
        for engine in engines:
            await engine.stop()
        gate.relay = None  # type: ignore[assignment]


async def test_a_client_that_leaves_when_its_place_is_taken_leaves_nothing(front_end: str) -> None:
    """Bulk is taken back for interactive requests, before its first byte."""
    engine = FakeEngine(Late(0.05))
    bulk = request_of(body("hi " * 60_000), ("x-motley-class", "bulk"))
    chatting = request_of(body(), ("x-motley-class", "interactive"))
    async with nothing_left_behind():
        await engine.start()
        async with running(fleet(engine, admission={"enabled": True}), front_end) as gate:
            for n in range(LEAVING):
                leaving = asyncio.create_task(leaves(gate, 0.005 + n * STEP_S / 4, bulk))
                await asyncio.sleep(0.01)
                assert await stays(gate, chatting) == "ok"
                await leaving
            await at_rest(gate, 2 * LEAVING)
            desk = desk_of(gate.relay.engine.dispatcher)
            assert desk is not None
            assert desk.events["recalled", "bulk"] > 0
        await engine.stop()
        gate.relay = None  # type: ignore[assignment]


async def at_rest(gate: Gateway, requests: int) -> None:
    """Every request was completed or cancelled, and nothing is under way."""
    await eventually(lambda: gate.books["arrived"] == requests)
    await eventually(lambda: gate.relay.engine.live == 0)
    gate.assert_at_rest()
    books = gate.books
    assert books["completed"] + books["cancelled"] == requests, books
    assert books["cancelled"] > 0
