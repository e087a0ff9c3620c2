"""The fault matrix, everything around: Redis, planner, clocks, names. Requests do not notice."""

from __future__ import annotations

import asyncio
import math
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import pytest

from router.config.planner import PlannerSection
from router.domain.fleet import BackendSpec
from router.domain.outcome import Outcome
from router.gateway.planning import Demand, Planning
from router.gateway.upstream import UpstreamPool
from tests.fakes.redis_server import RedisServer
from tests.fire.census import nothing_left_behind
from tests.fire.client import Seen, ask
from tests.fire.test_engine_faults import well
from tests.fire.toxic import ToxicProxy
from tests.router.gateway.conftest import StartEngine
from tests.router.gateway.fakes import MODEL, FakeEngine, Gateway, eventually, fleet, running

CROWDS = [3, pytest.param(500, marks=pytest.mark.full)]


async def crowd(gate: Gateway, clients: int) -> Counter[str]:
    """How many requests at once ended, plain and streamed."""
    seen: list[Seen] = await asyncio.gather(
        *(ask(gate, stream=bool(n % 2)) for n in range(clients))
    )
    return Counter(one.end for one in seen)


# Redis


async def dies(server: RedisServer, _: ToxicProxy) -> None:
    server.stop()


async def is_cut_off(_: RedisServer, network: ToxicProxy) -> None:
    network.partition()


async def is_late(_: RedisServer, network: ToxicProxy) -> None:
    network.latency_s = 1.0


async def drops_everybody(_: RedisServer, network: ToxicProxy) -> None:
    network.refusing = True
    network.reset_all()


@pytest.mark.parametrize("clients", CROWDS)
@pytest.mark.parametrize("trouble", [dies, is_cut_off, is_late, drops_everybody])
async def test_redis_in_trouble_costs_no_request_and_comes_back(
    tmp_path: Path, trouble: Callable[[RedisServer, ToxicProxy], Any], clients: int
) -> None:
    engine = FakeEngine(well)
    with RedisServer(tmp_path) as server:
        async with nothing_left_behind(), ToxicProxy(server.port) as network:
            await engine.start()
            shared = {
                "url": f"redis://127.0.0.1:{network.port}/0",
                "interval_s": 0.03,
                "timeout_s": 0.2,
                "stale_after_s": 0.5,
                "lease_s": 1.0,
                "replica": "one",
            }
            async with running(fleet(engine, shared=shared)) as gate:
                sharing = gate.relay._rest.state.runtime.sharing
                await eventually(lambda: sharing.up)
                await trouble(server, network)
                began_s = time.monotonic()
                assert await crowd(gate, clients) == {"ok": clients}
                if clients < 10:
                    assert time.monotonic() - began_s < 5.0, "nobody waits for Redis"
                await eventually(lambda: not sharing.up)
                assert await crowd(gate, clients) == {"ok": clients}
                network.heal()
                if trouble is dies:
                    server.start()
                await eventually(lambda: sharing.up)
                assert await crowd(gate, clients) == {"ok": clients}
                await eventually(lambda: gate.relay.engine.live == 0)
                gate.assert_at_rest()
            await engine.stop()
            gate.relay = None  # type: ignore[assignment]


# The planner


class Mad:
    """A planner that says or does anything."""

    failures = 0
    last_failure = ""
    last = None

    def __init__(self, *says: Callable[[], Any]) -> None:
        self._says = list(says)

    def prices(
        self, demand: Sequence[Outcome], fleet: Sequence[BackendSpec], now: float
    ) -> Mapping[str, float]:
        said: Mapping[str, float] = self._says.pop(0)()
        return said


GROUP = f"a100-80/vllm/{MODEL}"


def crash() -> Any:
    raise ZeroDivisionError("a bug")


NONSENSE = {
    "crashes": crash,
    "not a number": lambda: {GROUP: math.nan},
    "infinite": lambda: {GROUP: math.inf},
    "negative": lambda: {GROUP: -1e9},
    "words": lambda: {GROUP: "cheap"},
    "nothing": lambda: None,
    "groups that are not there": lambda: {"h900/vllm/none": 3.0},
}


@pytest.mark.parametrize("what", NONSENSE)
async def test_a_planner_that_talks_nonsense_changes_no_price(
    engine: StartEngine, what: str
) -> None:
    async with running(fleet(await engine(well), policy={"name": "motley"})) as gate:
        core = gate.relay.engine
        planner = Mad(lambda: {GROUP: 2.0}, NONSENSE[what])
        plan = Planning(core, PlannerSection(), Demand(300.0), lambda _: planner)
        await plan.plan_once()
        await plan.plan_once()
        price = core.dispatcher.state.get("e0").price
        assert price in (0.0, 2.0)
        if what != "groups that are not there":
            assert price == 2.0, "the last good prices stay in force until they are too old"
            assert plan.rounds == {"ok": 1, "failed": 1}
        assert await crowd(gate, 4) == {"ok": 4}


async def test_a_planner_that_hangs_holds_nobody_up(engine: StartEngine) -> None:
    async with running(fleet(await engine(well), policy={"name": "motley"})) as gate:
        release = threading.Event()
        planner = Mad(lambda: release.wait(20.0) and {})
        plan = Planning(gate.relay.engine, PlannerSection(), Demand(300.0), lambda _: planner)
        hanging = asyncio.create_task(plan.plan_once())
        await asyncio.sleep(0.05)
        assert await crowd(gate, 20) == {"ok": 20}
        assert not hanging.done()
        release.set()
        await hanging


# Clocks


@pytest.mark.parametrize("jump_s", [-86_400.0, -5.0, 5.0, 86_400.0])
async def test_the_wall_clock_may_jump(
    engine: StartEngine, monkeypatch: pytest.MonkeyPatch, jump_s: float, tmp_path: Path
) -> None:
    """NTP steps it, administrators set it; what is timed is timed by the monotonic clock."""
    real = time.time
    record = {"enabled": False, "record": {"directory": str(tmp_path)}}
    async with running(fleet(await engine(well), telemetry=record)) as gate:
        asking = asyncio.create_task(crowd(gate, 20))
        await asyncio.sleep(0)
        monkeypatch.setattr(time, "time", lambda: real() + jump_s)
        assert await asking == {"ok": 20}
        assert await crowd(gate, 20) == {"ok": 20}
        assert gate.books["completed"] == 40
        await eventually(lambda: gate.relay.engine.live == 0)
        gate.assert_at_rest()


async def test_a_machine_that_slept_ends_what_is_too_late_and_goes_on(
    engine: StartEngine,
) -> None:
    """The monotonic clock never goes back, but a paused machine lets it leap."""

    async def late(request: Any) -> bool:
        await asyncio.sleep(1.0)
        return bool(await well(request))

    limits = {"first_byte_timeout_s": 60.0, "max_retries": 0}
    async with running(fleet(await engine(late, well), reliability=limits)) as gate:
        asking = asyncio.create_task(ask(gate, stream=True))
        await eventually(lambda: gate.books["in_flight"] == 1)
        gate.clock.ahead_s += 3600.0
        assert (await asking).end in ("ok", "504 backend_timeout")
        assert await crowd(gate, 4) == {"ok": 4}
        await eventually(lambda: gate.relay.engine.live == 0)
        gate.assert_at_rest()


# Names


async def test_a_name_that_does_not_resolve_is_tried_elsewhere(engine: StartEngine) -> None:
    unknown = "http://engine.invalid:8000"  # RFC 6761: never resolves
    limits = {"connect_timeout_s": 20.0}
    async with running(fleet(unknown, await engine(well), reliability=limits)) as gate:
        seen = [await ask(gate, stream=True) for _ in range(4)]
        assert {(one.end, one.backend) for one in seen} == {("ok", "e1")}


async def test_a_name_server_that_comes_and_goes_costs_retries_and_no_answers(
    engine: StartEngine, monkeypatch: pytest.MonkeyPatch
) -> None:
    """At the seam: the resolver's error is what ``create_connection`` raises."""
    dial, dialled = UpstreamPool.dial, 0

    async def flapping(pool: UpstreamPool, connection: Any) -> None:
        nonlocal dialled
        if pool.address.port == first.port:
            dialled += 1
            if dialled % 2:
                raise socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")
        await dial(pool, connection)

    monkeypatch.setattr(UpstreamPool, "dial", flapping)
    first, second = await engine(well), await engine(well)
    async with running(fleet(first, second)) as gate:
        assert await crowd(gate, 60) == {"ok": 60}
        assert dialled
        await eventually(lambda: gate.relay.engine.live == 0)
        gate.assert_at_rest()
