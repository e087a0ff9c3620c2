"""The fault matrix, engines: each fault, streamed or not, alone or beside a healthy one.

Every cell asserts what the client saw, that the counters say just that, what the breaker thinks,
and that no descriptor, task or object of a request is left; over both front ends. ``full`` does it
with 500 at once.
"""

from __future__ import annotations

import asyncio
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from tests.fakes.http_server import free_port
from tests.fire.census import nothing_left_behind
from tests.fire.client import Seen, ask
from tests.fire.faults import CELLS, TOKENS, Fault, fault, is_silence
from tests.router.gateway.fakes import (
    FakeEngine,
    Gateway,
    Received,
    chat,
    eventually,
    fleet,
    running,
    stream,
)

LIMITS = {
    "connect_timeout_s": 60.0,
    "first_byte_timeout_s": 60.0,
    "idle_timeout_s": 60.0,
    "queue_timeout_s": 0.2,
    "breaker": {"failure_threshold": 3, "open_s": 600.0, "max_open_s": 600.0},
}


def limits_of(name: str, seconds: float = 0.3) -> dict[str, float]:
    """Short timeouts where silence is the fault."""
    short = {"first_byte_timeout_s": seconds, "idle_timeout_s": seconds}
    return short if is_silence(name) else {}


async def well(request: Received) -> bool | None:
    """An engine in good health."""
    streams = b'"stream": true' in request.body
    return await (stream(TOKENS) if streams else chat())(request)


@asynccontextmanager
async def cell(
    one: Fault, front_end: str, *, beside: bool, **limits: Any
) -> AsyncIterator[Gateway]:
    """A gateway in front of a faulty engine and, perhaps, a healthy one."""
    engines = [FakeEngine(one.behaviour)] if one.behaviour is not None else []
    engines += [FakeEngine(well)] if beside else []
    async with nothing_left_behind():
        for engine in engines:
            await engine.start()
        refusing = [] if one.behaviour is not None else [f"http://127.0.0.1:{free_port()}"]
        config = fleet(*refusing, *engines, reliability=LIMITS | limits)
        async with running(config, front_end) as gate:
            yield gate
            await eventually(lambda: gate.relay.engine.live == 0)
            gate.assert_at_rest()
        for engine in engines:
            await engine.stop()
        gate.relay = None  # type: ignore[assignment]


async def counts(gate: Gateway, name: str, label: str) -> Counter[str]:
    """A counter of ``/metrics`` by one of its labels."""
    found: Counter[str] = Counter()
    for family in text_string_to_metric_families((await gate.get("/metrics")).text):
        for sample in family.samples:
            if sample.name == name and sample.value:
                found[sample.labels[label]] += int(sample.value)
    return found


async def assert_counted(gate: Gateway, seen: list[Seen]) -> None:
    """The gateway's counters say what the clients saw (statuses), and the books are closed."""
    answered = await counts(gate, "motley_requests_total", "code")
    assert answered == Counter(str(one.status) for one in seen)
    attempts = await counts(gate, "motley_attempts_total", "status")
    whole = sum(one.end == "ok" for one in seen)
    assert attempts["completed"] == gate.books["completed"] == whole
    assert gate.books["arrived"] == len(seen)
    assert gate.books["failed"] + gate.books["rejected"] == len(seen) - whole


def breaker_of_first(gate: Gateway) -> str:
    state: str = gate.relay.engine.dispatcher.state.get("e0").breaker.state
    return state


@pytest.mark.parametrize(("streamed", "name"), CELLS)
async def test_a_fault_alone_is_told_truly(front_end: str, streamed: bool, name: str) -> None:
    one = fault(name, streamed=streamed)
    async with cell(one, front_end, beside=False, **limits_of(name)) as gate:
        seen = [await ask(gate, stream=streamed) for _ in range(3)]
        assert [got.end for got in seen] == [one.alone] * 3
        await eventually(lambda: gate.relay.engine.live == 0)
        await assert_counted(gate, seen)
        assert breaker_of_first(gate) == ("open" if one.opens else "closed")
        if one.opens:
            late = await ask(gate, stream=streamed)
            assert late.status == 503, "nobody is sent to a backend whose breaker is open"


@pytest.mark.parametrize(("streamed", "name"), CELLS)
async def test_a_fault_beside_a_healthy_engine_costs_what_had_begun_and_nothing_else(
    streamed: bool, name: str
) -> None:
    one = fault(name, streamed=streamed)
    async with cell(one, "protocol", beside=True, **limits_of(name)) as gate:
        seen = await asyncio.gather(*(ask(gate, stream=streamed) for _ in range(6)))
        ends = Counter(got.end for got in seen)
        if one.hidden:
            assert ends == {"ok": 6}
            assert {got.backend for got in seen} == {"e1"}
        else:
            assert ends["ok"] == 6 if one.completed else ends == {"ok": 3, one.alone: 3}
        await eventually(lambda: gate.relay.engine.live == 0)
        await assert_counted(gate, seen)
        assert breaker_of_first(gate) == ("open" if one.opens else "closed")
        after = await asyncio.gather(*(ask(gate, stream=streamed) for _ in range(2)))
        if one.opens:
            assert [(got.end, got.backend) for got in after] == [("ok", "e1")] * 2


@pytest.mark.full
@pytest.mark.parametrize(("streamed", "name"), CELLS)
async def test_500_at_once_meet_a_fault(front_end: str, streamed: bool, name: str) -> None:
    """None is lost, none sees anything but a whole answer or the truth, nothing stays behind."""
    one = fault(name, streamed=streamed)
    limits = {"queue_timeout_s": 60.0} | limits_of(name, 10.0)
    async with cell(one, front_end, beside=True, **limits) as gate:
        seen = await asyncio.gather(*(ask(gate, stream=streamed) for _ in range(500)))
        ends = Counter(got.end for got in seen)
        assert set(ends) <= ({"ok"} if one.hidden or one.completed else {"ok", one.alone}), ends
        assert ends["ok"] >= 250
        await eventually(lambda: gate.relay.engine.live == 0)
        await assert_counted(gate, seen)
        assert breaker_of_first(gate) == ("open" if one.opens else "closed")
