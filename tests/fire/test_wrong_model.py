"""An engine that does not know what it is asked for: started again with another model."""

from __future__ import annotations

from tests.fire.faults import NO_MODEL
from tests.router.gateway.conftest import StartEngine
from tests.router.gateway.fakes import MODEL, REQUEST, answer, chat, fleet, running


async def test_an_adapter_that_is_not_loaded_says_nothing_of_the_engine(
    engine: StartEngine,
) -> None:
    """Its requests go elsewhere; the breaker stays closed, as it serves everything else."""
    without, with_it = await engine(answer(404, NO_MODEL)), await engine(chat())
    async with running(fleet(without, with_it, adapters={"lora": MODEL})) as gate:
        body = REQUEST.replace(MODEL.encode(), b"lora")
        for _ in range(8):
            assert (await gate.post(body=body)).headers["x-motley-backend"] == "e1"
        assert without.received
        assert gate.relay.engine.dispatcher.state.get("e0").breaker.state == "closed"


async def test_another_404_is_the_clients_affair(engine: StartEngine) -> None:
    """Not every engine has every path."""
    one, two = await engine(answer(404, {"detail": "Not Found"})), await engine(chat())
    async with running(fleet(one, two)) as gate:
        statuses = [(await gate.post()).status_code for _ in range(6)]
        assert sorted(statuses) == [200] * 3 + [404] * 3
