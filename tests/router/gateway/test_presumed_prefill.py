"""An answer that is not streamed shows no first token; its prompt must not count for ever."""

from __future__ import annotations

import asyncio
import json

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, REQUEST, Received, chat, eventually, stream


async def late(request: Received) -> bool:
    await asyncio.sleep(1.5)
    return bool(await chat()(request))


async def test_prefill_is_presumed_over_when_it_should_be(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(late))
    (state,) = gate.relay.engine.dispatcher.state.backends
    asked = asyncio.create_task(gate.post())
    await eventually(lambda: state.in_flight == 1)
    await eventually(lambda: state.prefilling == 0)
    assert state.decoding == 1
    assert state.pending_prefill_tokens == 0
    await asked


async def test_a_streamed_answer_shows_its_own(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(late))
    (state,) = gate.relay.engine.dispatcher.state.backends
    body = json.dumps({**json.loads(REQUEST), "stream": True}).encode()
    asked = asyncio.create_task(gate.post(body=body))
    await eventually(lambda: state.in_flight == 1)
    await asyncio.sleep(0.2)
    assert state.prefilling == 1
    await asked


async def test_a_stream_nobody_announced_corrects_the_presumption(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(stream(["a", "b"], gap_s=0.1)))
    outcomes = []
    dispatcher = gate.relay.engine.dispatcher
    dispatcher._observers = (
        *dispatcher._observers,
        type("Spy", (), {"observe": lambda self, outcome: outcomes.append(outcome)})(),
    )
    assert MODEL.encode() in REQUEST
    await gate.post()
    assert outcomes[0].first_token_s is not None


async def test_no_timer_is_left_for_those_who_are_over(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    await gate.post()
    assert gate.relay.engine.presumed.idle
