"""Chores go on when an answer has ended, one after each, and by themselves where none does."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from router.gateway import lull
from router.gateway.lull import AT_ONCE, PATIENCE_S, Lull
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import chat, eventually


async def rested(
    quiet: Lull, *names: str, seconds: float = 0.01
) -> tuple[list[str], list[asyncio.Task[None]]]:
    """Who has gone on, as it happens, and what to hold on to."""
    woken: list[str] = []

    async def one(name: str) -> None:
        await quiet.rest(seconds)
        woken.append(name)

    tasks = [asyncio.create_task(one(name)) for name in names]
    await asyncio.sleep(0)
    return woken, tasks


async def test_each_answer_lets_one_go_on(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lull, "PATIENCE_S", 3600.0)
    quiet = Lull()
    woken, _tasks = await rested(quiet, "a", "b")
    quiet.answered()
    await asyncio.sleep(0.03)
    assert woken == [], "it was not time yet, and no answer has ended since"
    quiet.answered()
    await eventually(lambda: woken == ["a"])
    quiet.answered()
    await eventually(lambda: woken == ["a", "b"])
    quiet.close()


async def test_without_answers_nobody_waits_for_long() -> None:
    quiet = Lull()
    began_s = asyncio.get_running_loop().time()
    woken, _tasks = await rested(quiet, "a", "b")
    await eventually(lambda: sorted(woken) == ["a", "b"])
    assert asyncio.get_running_loop().time() - began_s < 0.01 + PATIENCE_S + 0.5


async def test_nobody_goes_on_once_it_is_closed() -> None:
    quiet = Lull()
    woken, tasks = await rested(quiet, "a")
    quiet.close()
    await asyncio.sleep(0.01 + PATIENCE_S + 0.05)
    assert woken == []
    for task in tasks:
        task.cancel()


async def test_where_answers_end_no_timer_rings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lull, "PATIENCE_S", 1.0)
    monkeypatch.setattr(lull, "CLOSE_S", 0.5)
    rung: list[float] = []
    ring = Lull._ring

    def noted(self: Lull) -> None:
        rung.append(asyncio.get_running_loop().time())
        ring(self)

    monkeypatch.setattr(Lull, "_ring", noted)
    quiet = Lull()
    woken: list[int] = []

    async def chore() -> None:
        for n in range(6):
            await quiet.rest(0.05)
            woken.append(n)

    task = asyncio.create_task(chore())
    while len(woken) < 5:
        await asyncio.sleep(0.005)
        quiet.answered()
    assert not rung
    await task  # the last goes on by itself
    assert rung


async def test_many_that_are_due_come_a_few_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    """A process that was stopped for a while, or a fleet that joined at once."""
    monkeypatch.setattr(lull, "PATIENCE_S", 0.02)
    quiet = Lull()
    names = [str(n) for n in range(AT_ONCE)]
    woken, _tasks = await rested(quiet, *names)
    seen = [0]
    while len(woken) < AT_ONCE:
        await asyncio.sleep(0)
        seen.append(len(woken))
    assert max(after - before for before, after in pairwise(seen)) <= 3
    assert woken == names


async def test_one_that_is_cancelled_takes_nobodys_turn_for_ever() -> None:
    quiet = Lull()
    woken, tasks = await rested(quiet, "a", "b")
    tasks[0].cancel()  # type: ignore[attr-defined]
    await eventually(lambda: woken == ["b"])


async def test_the_chores_of_a_gateway_run_without_requests_and_with(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend, reliability={"health_interval_s": 0.05})
    await eventually(lambda: len(backend.probes) >= 2)
    seen = len(backend.probes)
    for _ in range(20):
        await gate.post()
        await asyncio.sleep(0.01)
    assert len(backend.probes) > seen
