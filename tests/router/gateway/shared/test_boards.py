"""One suite over every board: memory, the hub of one machine, a real Redis."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Callable, Iterator
from contextlib import AsyncExitStack
from pathlib import Path

import pytest

from router.config.shared import SharedSection
from router.gateway.shared.board import Board, BoardError, Posting
from router.gateway.shared.hub import Hub, HubBoard
from router.gateway.shared.memory_board import MemoryBoard, Wall
from router.gateway.shared.redis_board import RedisBoard
from tests.fakes.redis_server import RedisServer

STALE_S = 0.3
MINUTE, DAY = ("a", "tokens", 7), ("a", "usd/day", 3)

Join = Callable[[str], Board]


@pytest.fixture(scope="module")
def redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    with RedisServer(tmp_path_factory.mktemp("redis")) as server:
        yield server


def settings(url: str, **more: object) -> SharedSection:
    return SharedSection.model_validate(
        {"url": url, "stale_after_s": STALE_S, "prefix": f"t{time.monotonic_ns()}", **more}
    )


@pytest.fixture(params=["memory", "hub", "redis"])
async def join(
    request: pytest.FixtureRequest, redis: RedisServer, tmp_path: Path
) -> AsyncIterator[Join]:
    """Seats a replica at the board."""
    wall = Wall(time.monotonic, STALE_S)
    section = settings(redis.url)
    async with AsyncExitStack() as stack:
        path = str(tmp_path / "hub")
        if request.param == "hub":
            hub = Hub(wall, path)
            await hub.start()
            stack.push_async_callback(hub.stop)

        def seat(replica: str) -> Board:
            board: Board
            if request.param == "memory":
                board = MemoryBoard(wall, replica)
            elif request.param == "hub":
                board = HubBoard(path, replica, 5.0)
            else:
                board = RedisBoard(section, replica)
            stack.push_async_callback(board.leave)
            return board

        yield seat


async def test_everybody_sees_the_facts_of_the_others(join: Join) -> None:
    one, two = join("one"), join("two")
    assert (await one.exchange(Posting(b"1"))).others == {}
    assert (await two.exchange(Posting(b"2"))).others == {"one": b"1"}
    assert (await one.exchange(Posting(b"\x00\xff"))).others == {"two": b"2"}
    assert (await two.exchange(Posting(b"2"))).others == {"one": b"\x00\xff"}
    await one.leave()
    assert (await two.exchange(Posting(b"2"))).others == {}


async def test_a_replica_that_falls_silent_is_forgotten(join: Join) -> None:
    one, two = join("one"), join("two")
    await one.exchange(Posting(b"1"))
    await asyncio.sleep(STALE_S * 1.5)
    assert (await two.exchange(Posting(b"2"))).others == {}


async def test_amounts_add_up(join: Join) -> None:
    one, two = join("one"), join("two")
    await one.exchange(Posting(b"", {MINUTE: 100.5, DAY: 0.25}))
    view = await two.exchange(Posting(b"", {MINUTE: 2.0}, [MINUTE, DAY, ("b", "tokens", 7)]))
    assert view.totals == {MINUTE: 102.5, DAY: 0.25, ("b", "tokens", 7): 0.0}
    await one.exchange(Posting(b"", {MINUTE: -50.0}))
    assert (await two.exchange(Posting(b"", {}, [MINUTE]))).totals == {MINUTE: 52.5}


async def test_registered_workers_are_everybodys(join: Join) -> None:
    one, two = join("one"), join("two")
    await one.exchange(Posting(b"", joined={"w1": b"{}", "w2": b"[1]"}))
    assert (await two.exchange(Posting(b"", gone=["w1"]))).workers == {"w2": b"[1]"}


async def test_it_says_since_when_it_remembers(join: Join) -> None:
    one, two = join("one"), join("two")
    born = (await one.exchange(Posting(b""))).born
    assert born
    assert (
        (await two.exchange(Posting(b""))).born == (await one.exchange(Posting(b""))).born == born
    )


async def test_a_lease_has_one_holder_and_a_token_that_grows(join: Join) -> None:
    one, two = join("one"), join("two")
    assert await one.lease("leader", 0.2) == 1
    assert await two.lease("leader", 0.2) is None
    assert await one.lease("leader", 0.2) == 1, "renewed"
    assert await two.lease("other", 0.2) == 1
    await asyncio.sleep(0.3)
    assert await two.lease("leader", 5.0) == 2, "whoever comes later has a higher token"
    assert await one.lease("leader", 5.0) is None
    await two.leave()
    assert await one.lease("leader", 5.0) == 3


async def test_a_hub_that_is_gone_is_an_error_and_may_come_back(tmp_path: Path) -> None:
    path = str(tmp_path / "hub")
    board = HubBoard(path, "one", 0.5)
    with pytest.raises(BoardError):
        await board.exchange(Posting(b""))
    hub = Hub(Wall(time.monotonic), path)
    await hub.start()
    assert (await board.exchange(Posting(b""))).others == {}
    await board.leave()
    await hub.stop()


async def test_a_redis_that_is_gone_is_an_error_and_may_come_back(tmp_path: Path) -> None:
    with RedisServer(tmp_path) as server:
        board = RedisBoard(settings(server.url, timeout_s=0.5), "one")
        await board.exchange(Posting(b"1", {MINUTE: 1.0}))
        server.stop()
        with pytest.raises(BoardError, match="Redis"):
            await board.exchange(Posting(b"1"))
        with pytest.raises(BoardError):
            await board.lease("leader", 1.0)
        server.start()
        assert (await board.exchange(Posting(b"1"))).others == {}
        await board.leave()


async def test_a_connection_that_drops_just_before_a_write_is_an_error_of_the_board(
    redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """uvloop says RuntimeError; it must not end the exchange for good."""
    board = RedisBoard(settings(redis.url), "one")

    async def send(*_: object, **__: object) -> None:
        raise RuntimeError("unable to perform operation; the handler is closed")

    monkeypatch.setattr("redis.asyncio.connection.Connection.send_packed_command", send)
    with pytest.raises(BoardError, match="handler is closed"):
        await board.lease("plan", 1.0)
    monkeypatch.undo()
    assert await board.lease("plan", 1.0)
    await board.leave()


async def test_one_exchange_is_one_round_trip(redis: RedisServer) -> None:
    import redis.asyncio as client

    board = RedisBoard(settings(redis.url), "one")
    await board.exchange(Posting(b"", {MINUTE: 1.0}, [MINUTE], {"w": b""}, ["x"]))
    async with client.Redis.from_url(redis.url) as other:
        before = (await other.info("commandstats"))["cmdstat_evalsha"]["calls"]
        commands = (await other.info("stats"))["total_commands_processed"]
        for _ in range(10):
            await board.exchange(Posting(b"", {MINUTE: 1.0}, [MINUTE]))
        stats = await other.info("commandstats")
        assert stats["cmdstat_evalsha"]["calls"] - before == 10
        assert (await other.info("stats"))["total_commands_processed"] >= commands
    await board.leave()
