"""Several gateways that share: load, limits, plan, workers; and alone when the board is gone."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from router.domain.state import EngineSignals
from router.gateway.access.ledger import is_daily
from router.gateway.shared.board import BoardError, Posting, View
from router.gateway.shared.memory_board import MemoryBoard, Wall
from router.gateway.shared.sharing import Sharing
from tests.fakes.redis_server import RedisServer
from tests.router.gateway.conftest import StartEngine
from tests.router.gateway.fakes import (
    MODEL,
    FakeEngine,
    Gateway,
    chat,
    eventually,
    fleet,
    running,
    stream,
)

GROUP = f"a100-80/vllm/{MODEL}"

StartReplica = Callable[..., Awaitable[Gateway]]


class Shaky(MemoryBoard):
    """A board that can be cut off."""

    cut = False

    async def exchange(self, posting: Posting) -> View:
        if self.cut:
            raise BoardError("cut off")
        return await super().exchange(posting)

    async def lease(self, name: str, ttl_s: float) -> int | None:
        if self.cut:
            raise BoardError("cut off")
        return await super().lease(name, ttl_s)


class Deaf(MemoryBoard):
    """Hangs, and takes a cancellation for an error of its own, as redis-py does now and then."""

    asked = 0

    async def lease(self, name: str, ttl_s: float) -> int | None:
        self.asked += 1
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            raise BoardError("connection closed") from None
        return None


@pytest.fixture
async def replica() -> AsyncIterator[StartReplica]:
    """Start one more gateway at the same board."""
    wall = Wall(time.monotonic, 2.0)
    async with AsyncExitStack() as stack:
        gates: list[Gateway] = []

        async def start(*engines: FakeEngine | str, **settings: Any) -> Gateway:
            quick = {"interval_s": 0.02, "stale_after_s": 0.3, "lease_s": 0.6}
            config = fleet(*engines, **{"shared": quick, **settings})
            board = Shaky(wall, f"r{len(gates)}")
            gate = await stack.enter_async_context(running(config, board=board))
            gates.append(gate)
            return gate

        yield start


def sharing(gate: Gateway) -> Sharing:
    found = gate.relay._rest.state.runtime.sharing
    assert isinstance(found, Sharing)
    return found


def backend(gate: Gateway, name: str = "e0") -> Any:
    return gate.relay.engine.dispatcher.state.get(name)


async def together(*gates: Gateway) -> None:
    await eventually(lambda: all(sharing(gate).replicas == len(gates) for gate in gates))


async def test_requests_of_one_are_load_to_the_other(
    engine: StartEngine, replica: StartReplica
) -> None:
    slow = await engine(stream(["a"] * 200, gap_s=0.01))
    one, two = await replica(slow), await replica(slow)
    await together(one, two)
    _, writer = await one.ask()
    await eventually(lambda: backend(two).in_flight == 1)
    assert backend(two).context_tokens > 0
    assert backend(two).own_load().in_flight == 0
    assert two.books["in_flight"] == 0, "it is not ours"
    writer.close()
    await eventually(lambda: backend(two).in_flight == 0)
    assert (backend(two).context_tokens, backend(two).pending_output_tokens) == (0.0, 0.0)


async def test_replicas_do_not_all_choose_the_same_idle_card(
    engine: StartEngine, replica: StartReplica
) -> None:
    """Six requests at two replicas: three each, which neither could know by itself."""
    a, b = [await engine(stream(["a"] * 300, gap_s=0.01)) for _ in range(2)]
    policy = {"policy": {"name": "least-request"}}
    one, two = await replica(a, b, **policy), await replica(a, b, **policy)
    await together(one, two)
    writers = []
    for n in range(6):
        _, writer = await (one if n < 3 else two).ask()
        writers.append(writer)
        await eventually(
            lambda n=n: all(
                sum(b.in_flight for b in gate.relay.engine.dispatcher.state.backends) == n + 1
                for gate in (one, two)
            )
        )
    assert (len(a.received), len(b.received)) == (3, 3)
    for writer in writers:
        writer.close()


async def test_limits_hold_over_all_replicas(engine: StartEngine, replica: StartReplica) -> None:
    limit = {"requests_per_minute": 4, "hash": f"sha256:{sha256(b'k').hexdigest()}", "name": "k"}
    settings = {"access": {"keys": [limit]}}
    gates = [await replica(await engine(chat()), **settings) for _ in range(2)]
    await together(*gates)
    statuses = []
    for n in range(6):
        answered = await gates[n % 2].post(authorization="Bearer k")
        statuses.append(answered.status_code)
        await asyncio.sleep(0.1)  # a few exchanges
    assert statuses == [200, 200, 200, 200, 429, 429]


async def test_concurrency_counts_everywhere(engine: StartEngine, replica: StartReplica) -> None:
    limit = {"max_concurrent": 1, "hash": f"sha256:{sha256(b'k').hexdigest()}", "name": "k"}
    settings = {"access": {"keys": [limit]}}
    slow = await engine(stream(["a"] * 60, gap_s=0.01))
    one, two = await replica(slow, **settings), await replica(slow, **settings)
    await together(one, two)
    gate = two.relay.engine.gate
    gate.admit({b"x-api-key": b"k"})  # so that the replica knows the holder
    asked = asyncio.create_task(one.post(authorization="Bearer k"))
    await eventually(lambda: one.books["in_flight"] == 1)
    await asyncio.sleep(0.1)
    assert (await two.post(authorization="Bearer k")).status_code == 429
    assert (await asked).status_code == 200


async def test_one_leads_and_the_others_take_its_prices_and_signals(
    engine: StartEngine, replica: StartReplica
) -> None:
    fake = await engine(chat())
    one, two = await replica(fake), await replica(fake)
    await together(one, two)
    await eventually(lambda: [sharing(g).lead.here for g in (one, two)] == [True, False])
    leader = one.relay.engine
    leader.dispatcher.set_prices({GROUP: 0.5}, leader.now())
    leader.dispatcher.scrape("e0", EngineSignals(leader.now(), running=7), leader.now())
    await eventually(lambda: backend(two).price == 0.5)
    await eventually(lambda: backend(two).signals is not None)
    assert backend(two).signals.running == 7
    assert two.clock.now() - backend(two).signals.observed_s < 5.0


async def test_the_lead_passes_on_and_an_old_leader_is_not_believed(
    engine: StartEngine, replica: StartReplica
) -> None:
    fake = await engine(chat())
    one, two = await replica(fake), await replica(fake)
    await together(one, two)
    board = sharing(one)._board
    assert isinstance(board, Shaky)
    board.cut = True
    await eventually(lambda: sharing(two).lead.here)
    assert sharing(two).lead.token == 2
    leader = two.relay.engine
    leader.dispatcher.set_prices({GROUP: 0.25}, leader.now())
    one.relay.engine.dispatcher.set_prices({GROUP: 9.0}, leader.now())
    board.cut = False
    await eventually(lambda: not sharing(one).lead.here)
    await eventually(lambda: backend(one).price == 0.25)
    assert backend(two).price == 0.25


async def test_alone_a_replica_forgets_the_others_and_leads_itself(
    engine: StartEngine, replica: StartReplica, caplog: pytest.LogCaptureFixture
) -> None:
    slow = await engine(stream(["a"] * 300, gap_s=0.01))
    one, two = await replica(slow), await replica(slow)
    await together(one, two)
    _, writer = await one.ask()
    await eventually(lambda: backend(two).in_flight == 1)
    board = sharing(two)._board
    assert isinstance(board, Shaky)
    board.cut = True
    await eventually(lambda: backend(two).in_flight == 0)
    await eventually(lambda: sharing(two).lead.here)
    exposition = (await two.get("/metrics")).text
    assert "motley_shared_state_up_ratio 0.0" in exposition
    assert "motley_shared_state_errors_total" in exposition
    assert "shared state is gone, this replica goes on alone" in caplog.text
    board.cut = False
    await eventually(lambda: backend(two).in_flight == 1)
    assert "motley_shared_state_up_ratio 1.0" in (await two.get("/metrics")).text
    writer.close()


async def test_a_worker_registered_at_one_serves_at_all(
    engine: StartEngine, replica: StartReplica
) -> None:
    first, second = await engine(chat()), await engine(chat("second"))
    settings = {"admin": {"api_keys": ["ops"]}}
    one, two = await replica(first, **settings), await replica(first, **settings)
    await together(one, two)
    ops = {"authorization": "Bearer ops"}
    async with one.client(**ops) as client:
        entry = {"url": second.url, "model": MODEL, "gpu": "l4"}
        assert (await client.post("/workers", json=entry)).status_code == 201
        await eventually(lambda: "l4-0" in two.relay.engine.dispatcher.state)
        assert "l4-0" in two.relay.engine.guards, "its address is guarded everywhere"
    async with two.client(**ops) as client:
        assert (await client.delete("/workers/l4-0")).status_code == 200
        await eventually(lambda: "l4-0" not in one.relay.engine.dispatcher.state)


async def test_prefixes_of_one_are_known_to_the_other(
    engine: StartEngine, replica: StartReplica
) -> None:
    fake = await engine(chat())
    policy = {"policy": {"name": "motley"}}
    one, two = await replica(fake, **policy), await replica(fake, **policy)
    await together(one, two)
    text = "You are a helpful assistant. " * 200
    body = f'{{"model":"{MODEL}","messages":[{{"role":"system","content":"{text}"}}]}}'.encode()
    assert (await one.post(body=body)).status_code == 200
    index = two.relay.engine.dispatcher._policy._index  # type: ignore[attr-defined]
    await eventually(lambda: bool(index._blocks.get("e0")))


async def test_over_a_real_redis_that_goes_and_comes_back(
    engine: StartEngine, tmp_path: Path
) -> None:
    slow = await engine(stream(["a"] * 400, gap_s=0.01))
    with RedisServer(tmp_path) as server:
        shared = {"url": server.url, "interval_s": 0.03, "stale_after_s": 0.5, "lease_s": 1.0}
        async with AsyncExitStack() as stack:
            gates = [
                await stack.enter_async_context(
                    running(fleet(slow, shared={**shared, "replica": name}))
                )
                for name in ("one", "two")
            ]
            await together(*gates)
            one, two = gates
            _, writer = await one.ask()
            await eventually(lambda: backend(two).in_flight == 1)
            server.stop()
            await eventually(lambda: not sharing(two).up)
            assert (await two.get("/health")).status_code == 200
            await eventually(lambda: backend(two).in_flight == 0)
            server.start()
            await together(*gates)
            await eventually(lambda: sorted(sharing(g).lead.here for g in gates) == [False, True])
            writer.close()


async def test_a_redis_that_has_forgotten_everything_is_reminded(
    engine: StartEngine, tmp_path: Path
) -> None:
    """Restarted without a file, or flushed: workers, budgets and the plan are what they were."""
    first, second = await engine(chat()), await engine(chat("second"))
    key = {"tokens_per_day": 10_000, "hash": f"sha256:{sha256(b'k').hexdigest()}", "name": "k"}
    settings = {"admin": {"api_keys": ["ops"]}, "access": {"keys": [key]}}
    with RedisServer(tmp_path) as server:
        shared = {"url": server.url, "interval_s": 0.03, "stale_after_s": 0.5, "lease_s": 5.0}
        async with AsyncExitStack() as stack:
            one, two = gates = [
                await stack.enter_async_context(
                    running(fleet(first, **settings, shared={**shared, "replica": name}))
                )
                for name in ("one", "two")
            ]
            await together(*gates)
            entry = {"url": second.url, "model": MODEL, "gpu": "l4"}
            async with one.client(authorization="Bearer ops") as client:
                assert (await client.post("/workers", json=entry)).status_code == 201
            await eventually(lambda: "l4-0" in two.relay.engine.dispatcher.state)
            for n in range(4):
                answered = await gates[n % 2].post(authorization="Bearer k")
                assert answered.status_code == 200
            used = 40.0  # ten tokens each, in and out
            await eventually(lambda: {sum(spent(g).values()) for g in gates} == {used})
            for gate in gates:
                sharing(gate).lead._highest_token = 7  # as after many a change of the lead
            before = sharing(one)._born
            server.stop()
            await eventually(lambda: not any(sharing(g).up for g in gates))
            server.start()
            await eventually(lambda: all(sharing(g)._born != before for g in gates))
            await eventually(
                lambda: sorted(bool(sharing(g).lead.token) for g in gates) == [False, True]
            )
            leader, follower = sorted(gates, key=lambda g: not sharing(g).lead.token)
            leading = leader.relay.engine
            leading.dispatcher.set_prices({GROUP: 0.5}, leading.now())
            await eventually(lambda: backend(follower).price == 0.5)
            for gate in gates:
                assert gate.relay.engine.dispatcher.state.get("l4-0").usable
            await asyncio.sleep(0.2)  # some exchanges more
            assert sum(spent(leader).values()) == used, "what was used before counts, and once"
            assert spent(follower) == spent(leader)


def spent(gate: Gateway) -> dict[Any, float]:
    """Used of today's limits, as this replica knows it."""
    limits = gate.relay.engine.gate
    return {entry: limits.ledger.total(entry) for entry in limits.entries() if is_daily(entry)}


async def test_it_ends_when_told_to_though_its_board_swallows_that(engine: StartEngine) -> None:
    """Else a gateway whose Redis is in trouble would never stop."""
    deaf = Deaf(Wall(time.monotonic, 2.0), "one")
    async with asyncio.timeout(20):
        async with running(fleet(await engine(chat())), board=deaf):
            await eventually(lambda: deaf.asked == 1)
    assert deaf.asked == 1
