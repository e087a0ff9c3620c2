"""What real vLLM 0.32 and SGLang 0.5.23 do and clients must not have to know, as recorded.

``make test-engines`` shows the same against the engines themselves.
"""

from __future__ import annotations

import gzip
import json
from functools import partial
from typing import Any

import pytest

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    DONE,
    END,
    MODEL,
    REQUEST,
    STREAM_HEAD,
    FakeEngine,
    Received,
    answer,
    chat,
    chunk,
    event,
    events,
    eventually,
    hang,
    stream,
)

DRAINING = {
    "error": {
        "message": "cannot schedule new futures after shutdown",
        "type": "InternalServerError",
        "param": None,
        "code": 500,
    }
}
QUEUE_FULL = (
    b'data: {"error": {"object": "error", "message": "The request queue is full.", '
    b'"type": "SERVICE_UNAVAILABLE", "param": null, "code": 503}}\n\n'
)
ENGINE_DEAD = (
    b'data: {"error": {"message": "EngineCore encountered an issue. See stack trace (above) for '
    b'the root cause.", "type": "InternalServerError", "param": null, "code": 500}}\n\n'
)
FLAT = {
    "object": "error",
    "message": "temperature must be non-negative, got -1.0.",
    "type": "BadRequestError",
    "param": None,
    "code": 400,
}
COMMENT = b": keep-alive\n\n"


def backends(*engines: FakeEngine, **more: Any) -> list[dict[str, Any]]:
    """One SGLang after the other."""
    common = {"gpu": "a100-80", "model": MODEL, "engine": "sglang", **more}
    return [{**common, "name": f"s{n}", "url": e.url} for n, e in enumerate(engines)]


def probed_since(fake: FakeEngine, seen: int) -> bool:
    return len(fake.probes) > seen


async def test_a_draining_vllm_that_calls_itself_healthy_is_left_alone(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """Its /health says 200 to the end, and that must not bring it back."""
    draining, good = await engine(answer(500, DRAINING)), await engine(chat())
    reliability = {
        "health_interval_s": 0.02,
        "breaker": {"failure_threshold": 2, "open_s": 30.0},
    }
    gate = await gateway(draining, good, reliability=reliability)
    for _ in range(12):
        assert (await gate.post()).headers["x-motley-backend"] == "e1"
        await eventually(partial(probed_since, draining, len(draining.probes)))
    assert len(draining.received) == 2


async def test_sglangs_full_queue_is_found_inside_its_200(
    engine: StartEngine, gateway: StartGateway
) -> None:
    full, good = await engine(events(QUEUE_FULL, DONE)), await engine(stream(["a", "b"]))
    gate = await gateway(full, good, backends=backends(full, good))
    for _ in range(4):
        answered = await gate.post()
        assert answered.status_code == 200
        assert b"error" not in answered.content
    states = [b.breaker.state for b in gate.relay.engine.dispatcher.state.backends]
    assert states == ["closed", "closed"]  # busy, not broken


async def test_a_full_fleet_is_a_503_with_a_time_to_come_back(
    engine: StartEngine, gateway: StartGateway
) -> None:
    full = await engine(events(QUEUE_FULL, DONE))
    gate = await gateway(full, backends=backends(full))
    answered = await gate.post()
    assert answered.status_code == 503
    assert answered.headers["retry-after"] == "1"
    assert answered.json()["error"]["message"] == "The request queue is full."


async def test_the_time_that_a_busy_engine_asks_for_is_passed_on(
    engine: StartEngine, gateway: StartGateway
) -> None:
    busy = await engine(answer(429, {"error": {"message": "slow down"}}, ("retry-after", "37")))
    answered = await (await gateway(busy)).post()
    assert (answered.status_code, answered.headers["retry-after"]) == (429, "37")


async def test_a_stream_that_was_compressed_on_the_way_passes(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """By a proxy that does not care that no compression was asked for."""
    packed = gzip.compress(event({"content": "a"}) + DONE)

    async def behave(request: Received) -> bool:
        head = STREAM_HEAD.replace(b"\r\n\r\n", b"\r\ncontent-encoding: gzip\r\n\r\n")
        await request.send(head, chunk(packed), END)
        return True

    answered = await (await gateway(await engine(behave))).post()
    assert (answered.status_code, answered.content) == (200, event({"content": "a"}) + DONE)


async def test_a_dead_engine_core_is_a_failure_although_the_stream_ends_well(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(events(event({"content": "a"}), ENGINE_DEAD, DONE)))
    assert (await gate.post()).content.endswith(ENGINE_DEAD + DONE)
    assert gate.books["failed"] == 1


async def test_a_stopped_vllm_that_cuts_its_answers_short_is_a_failure(
    engine: StartEngine, gateway: StartGateway
) -> None:
    cut = event({"content": "a"}).replace(b'"finish_reason": null', b'"finish_reason": "abort"')
    gate = await gateway(await engine(events(event({"content": "b"}), cut, DONE)))
    assert (await gate.post()).content.endswith(cut + DONE)
    assert gate.books["failed"] == 1


async def test_a_vllm_that_hangs_after_sigterm_is_left_although_it_comments_for_ever(
    engine: StartEngine, gateway: StartGateway
) -> None:
    comments = [COMMENT] * 100
    stuck = await engine(events(event({"content": "a"}), *comments, then=hang))
    gate = await gateway(stuck, reliability={"idle_timeout_s": 0.3})
    reader, writer = await gate.ask()
    raw = await reader.read()
    writer.close()
    assert b"fell silent in mid-answer" in raw
    assert raw.count(COMMENT) < len(comments)


async def test_a_model_that_sglang_would_take_for_its_own_never_reaches_it(
    engine: StartEngine, gateway: StartGateway
) -> None:
    credulous = await engine(chat())
    gate = await gateway(credulous, backends=backends(credulous))
    answered = await gate.post(body=REQUEST.replace(MODEL.encode(), b"gpt-5"))
    assert answered.status_code == 404
    assert not credulous.received


async def test_a_flat_error_gets_the_shape_of_all_others(
    engine: StartEngine, gateway: StartGateway
) -> None:
    flat = await engine(answer(400, FLAT))
    gate = await gateway(flat, backends=backends(flat))
    answered = await gate.post()
    assert answered.status_code == 400
    assert answered.json()["error"] == {
        "message": FLAT["message"],
        "type": "BadRequestError",
        "param": None,
        "code": None,
    }


async def test_a_health_check_that_costs_a_generation_is_never_asked_for(
    engine: StartEngine, gateway: StartGateway
) -> None:
    probed = await engine(chat())
    reliability = {"health_interval_s": 0.02}
    await gateway(probed, backends=backends(probed), reliability=reliability)
    await eventually(lambda: len(probed.probes) >= 3)
    assert not {path for path in probed.probes if "health" in path}


@pytest.mark.parametrize(
    ("more", "sent"), [({}, -5), ({"labels": {"priority_order": "low-first"}}, 5)]
)
async def test_the_lower_priority_goes_first_on_every_engine(
    engine: StartEngine, gateway: StartGateway, more: dict[str, Any], sent: int
) -> None:
    """vLLM serves the lower number first, SGLang the higher one, unless told otherwise."""
    vllm, sglang = await engine(chat()), await engine(chat())
    entries = [
        {"gpu": "a100-80", "model": MODEL, "name": "v", "url": vllm.url},
        *backends(sglang, **more),
    ]
    gate = await gateway(vllm, sglang, backends=entries)
    urgent = json.dumps({**json.loads(REQUEST), "priority": 5}).encode()
    for _ in range(2):
        assert (await gate.post(body=urgent)).status_code == 200
    assert vllm.received[0].body == urgent
    assert json.loads(sglang.received[0].body)["priority"] == sent
