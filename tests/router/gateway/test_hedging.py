"""A second attempt over HTTP: the first byte wins, the loser is told to stop."""

from __future__ import annotations

import asyncio
import json

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, FakeEngine, Received, answer, eventually, stream

ASKED = json.dumps({"model": MODEL, "messages": [], "stream": True}).encode()
EAGER = {"enabled": True, "at_least_s": 0.05, "after": 1.0, "gain": 0.0, "extra": 1.0}


class Stuck:
    """An engine that never says anything."""

    def __init__(self) -> None:
        self.left = 0

    async def __call__(self, request: Received) -> bool:
        await request.wait_for_leaving()
        self.left += 1
        return False


class Slow:
    """An engine that takes its time."""

    def __init__(self, seconds: float, then: str) -> None:
        self._seconds, self._then = seconds, then

    async def __call__(self, request: Received) -> bool:
        await asyncio.sleep(self._seconds)
        return bool(await stream([self._then])(request))


async def test_the_second_answers_and_the_first_is_told_to_stop(
    engine: StartEngine, gateway: StartGateway
) -> None:
    stuck = Stuck()
    backends = [await engine(stuck, stream(["quick"])), await engine(stuck, stream(["quick"]))]
    gate = await gateway(*backends, hedging=EAGER)
    dispatcher = gate.relay.engine.dispatcher
    first_only(dispatcher, "e0")
    backends[1].script = [stream(["quick"])]
    answered = await asyncio.wait_for(gate.post(body=ASKED), 5)
    assert answered.status_code == 200
    assert b"quick" in answered.content
    assert answered.headers["x-motley-backend"] == "e1"
    await eventually(lambda: stuck.left == 1)
    assert (gate.books["completed"], gate.books["in_flight"]) == (1, 0)
    assert {b.in_flight for b in dispatcher.state.backends} == {0}
    metrics = (await gate.get("/metrics")).text
    assert 'motley_hedges_total{result="sent"} 1.0' in metrics
    assert 'motley_hedges_total{result="won"} 1.0' in metrics


async def test_the_first_may_still_win(engine: StartEngine, gateway: StartGateway) -> None:
    stuck = Stuck()
    gate = await gateway(await engine(Slow(0.4, "first")), await engine(stuck), hedging=EAGER)
    first_only(gate.relay.engine.dispatcher, "e0")
    answered = await asyncio.wait_for(gate.post(body=ASKED), 5)
    assert b"first" in answered.content
    assert answered.headers["x-motley-backend"] == "e0"
    await eventually(lambda: stuck.left == 1)
    assert gate.books["in_flight"] == 0


async def test_if_one_fails_the_other_serves(engine: StartEngine, gateway: StartGateway) -> None:
    for first, second in (
        (Slow(0.5, "late"), answer(500, {"message": "broken"})),
        (late_failure, Slow(0.6, "late")),
    ):
        backends = [await engine(first), await engine(second)]
        gate = await gateway(*backends, hedging=EAGER)
        first_only(gate.relay.engine.dispatcher, "e0")
        answered = await asyncio.wait_for(gate.post(body=ASKED), 5)
        assert answered.status_code == 200, answered.text
        assert b"late" in answered.content
        assert [len(b.received) for b in backends] == [1, 1]
        assert gate.books["in_flight"] == 0


async def test_a_client_that_leaves_stops_both(engine: StartEngine, gateway: StartGateway) -> None:
    stuck = Stuck()
    backends: list[FakeEngine] = [await engine(stuck), await engine(stuck)]
    gate = await gateway(*backends, hedging=EAGER)
    _, writer = await gate.ask(ASKED)
    await eventually(lambda: all(len(b.received) == 1 for b in backends))
    writer.close()
    await eventually(lambda: stuck.left == 2)
    assert (gate.books["cancelled"], gate.books["in_flight"]) == (1, 0)


async def test_answers_that_are_not_streamed_are_not_raced(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backends = [await engine(Slow(0.4, "x")), await engine(Slow(0.4, "x"))]
    gate = await gateway(*backends, hedging=EAGER)
    await gate.post()
    assert sorted(len(b.received) for b in backends) == [0, 1]


async def late_failure(request: Received) -> bool:
    await asyncio.sleep(0.3)
    return bool(await answer(503, {"message": "overloaded"})(request))


def first_only(dispatcher: object, name: str) -> None:
    """Send the first attempt of every request there."""

    class There:
        def choose(self, request: object, candidates: list[object], now: float) -> object:
            return next((c for c in candidates if c.spec.name == name), candidates[0])  # type: ignore[attr-defined]

    dispatcher._policy = There()  # type: ignore[attr-defined]
