"""Service classes over HTTP: how they are asked for, and what an overloaded gateway answers."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from router.domain.request import Request
from router.domain.slo import DEFAULT_SLOS, Slo
from router.gateway.terms import class_of, targets_of, tenant_of, wants
from router.gateway.wire import BadRequestError
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, Gateway, Received, chat, eventually, stream


class TestNames:
    """Our own headers first, then what users of other routers send."""

    @pytest.mark.parametrize(
        ("headers", "body_class", "tier", "expected"),
        [
            ({}, None, None, "throughput"),
            ({b"x-motley-class": b"bulk"}, "interactive", "priority", "bulk"),
            ({b"x-motley-slo": b"bulk"}, None, None, "bulk"),
            ({b"x-smg-priority": b"system"}, None, None, "interactive"),
            ({b"x-smg-priority": b"default"}, None, None, "throughput"),
            ({b"x-smg-priority": b"bulk"}, None, None, "bulk"),
            ({}, "bulk", "priority", "bulk"),
            ({}, None, "flex", "bulk"),
            ({}, None, "priority", "interactive"),
            ({}, None, "auto", "throughput"),
            ({}, 7, ["flex"], "throughput"),
        ],
    )
    def test_class(
        self, headers: dict[bytes, bytes], body_class: object, tier: object, expected: str
    ) -> None:
        assert class_of(headers, body_class, tier, "throughput") == expected

    @pytest.mark.parametrize(
        ("headers", "expected"),
        [
            ({}, None),
            ({b"x-slo-ttft-ms": b"500"}, Slo("interactive", 0.5, 0.1)),
            ({b"x-llm-d-slo-tpot-ms": b"40"}, Slo("interactive", 2.0, 0.04)),
            ({b"x-slo-e2e-ms": b"9000"}, Slo("interactive", 2.0, 0.1, 9.0)),
            (
                {b"x-sgl-ttft-slo-ms": b"800", b"x-sgl-tps-slo": b"20"},
                Slo("interactive", 0.8, 0.05),
            ),
            ({b"x-slo-ttft-ms": b"1", b"x-sgl-ttft-slo-ms": b"2"}, Slo("interactive", 0.001, 0.1)),
        ],
    )
    def test_targets(self, headers: dict[bytes, bytes], expected: Slo | None) -> None:
        assert targets_of(headers, DEFAULT_SLOS["interactive"]) == expected

    @pytest.mark.parametrize(
        ("headers", "code", "told"),
        [
            ({b"x-slo-ttft-ms": b"soon"}, "invalid_slo", "x-slo-ttft-ms"),
            ({b"x-slo-ttft-ms": b"-1"}, "invalid_slo", "milliseconds"),
            ({b"x-slo-tpot-ms": b"nan"}, "invalid_slo", "x-slo-tpot-ms"),
            ({b"x-sgl-tps-slo": b"0"}, "invalid_slo", "tokens per second"),
            ({b"x-slo-e2e-ms": b"1000"}, "contradictory_slo", "contradict"),
        ],
    )
    def test_targets_that_make_no_sense(
        self, headers: dict[bytes, bytes], code: str, told: str
    ) -> None:
        with pytest.raises(BadRequestError) as caught:
            targets_of(headers, DEFAULT_SLOS["interactive"])
        problem = caught.value.problem
        assert (problem.status, problem.code) == (400, code)
        assert told in problem.message

    def test_tenant_and_switches(self) -> None:
        assert tenant_of({b"x-llm-d-inference-fairness-id": b"blue"}) == "blue"
        assert tenant_of({b"x-tenant-id": b"red", b"x-llm-d-inference-fairness-id": b"b"}) == "red"
        assert wants({b"x-motley-explain": b"1"}, b"x-motley-explain")
        assert not wants({b"x-motley-explain": b"0"}, b"x-motley-explain")


def seen(gate: Gateway) -> list[Request]:
    """Every request that reaches the dispatcher from now on."""
    dispatcher = gate.relay.engine.dispatcher
    requests: list[Request] = []
    original = dispatcher.dispatch

    def dispatch(request: Request, now: float, **how: Any) -> Any:
        requests.append(request)
        return original(request, now, **how)

    dispatcher.dispatch = dispatch  # type: ignore[method-assign]
    return requests


def body(**more: Any) -> bytes:
    return json.dumps({"model": MODEL, "messages": [], **more}).encode()


async def test_headers_and_body_reach_the_dispatcher(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    requests = seen(gate)
    await gate.post(body=body(service_tier="flex"))
    await gate.post(x_motley_class="throughput", x_slo_ttft_ms="700")
    assert [r.slo_class for r in requests] == ["bulk", "throughput"]
    assert requests[0].slo is None
    assert requests[1].slo == Slo("throughput", 0.7, 0.25)


async def test_an_unknown_class_names_the_known_ones(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    answered = await gate.post(x_motley_class="gold")
    assert answered.status_code == 400
    assert answered.json()["error"]["code"] == "unknown_slo_class"
    assert "bulk, interactive, throughput" in answered.json()["error"]["message"]
    told = (await gate.get("/metrics")).text
    assert 'motley_rejected_total{model="none",reason="unknown_slo_class"} 1.0' in told


async def test_targets_that_contradict_each_other_are_refused_and_counted(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    answered = await gate.post(x_slo_ttft_ms="900", x_slo_e2e_ms="300")
    assert answered.status_code == 400
    assert "raise the E2E target or lower the TTFT target" in answered.text
    told = (await gate.get("/metrics")).text
    assert 'motley_rejected_total{model="none",reason="contradictory_slo"} 1.0' in told


async def test_a_class_that_nobody_can_serve_in_time_is_served_without_its_target_and_counted(
    engine: StartEngine, gateway: StartGateway
) -> None:
    slos = {"gold": {"ttft_s": 0.001}}
    gate = await gateway(await engine(chat()), admission={"enabled": True}, slos=slos)
    answered = await gate.post(x_motley_class="gold")
    assert answered.status_code == 200
    told = (await gate.get("/metrics")).text
    assert 'motley_class_events_total{event="slo_infeasible",slo_class="gold"} 1.0' in told


async def test_lengths_of_zero_are_served_and_teach_nothing(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(
        await engine(chat("", prompt_tokens=0, completion_tokens=0)), admission={"enabled": True}
    )
    empty = json.dumps({"model": MODEL, "messages": [], "max_tokens": 0}).encode()
    for _ in range(3):
        assert (await gate.post(body=empty)).status_code == 200
    assert gate.books["completed"] == 3
    assert gate.relay.engine.sizer.tokens_in(MODEL, 4_000) > 100, "still what it was"


class Held:
    """An engine that accepts and says nothing until the test lets it."""

    def __init__(self) -> None:
        self.open = asyncio.Event()
        self.left: list[bytes] = []

    async def __call__(self, request: Received) -> bool:
        leaving = asyncio.create_task(request.wait_for_leaving())
        opening = asyncio.create_task(self.open.wait())
        await asyncio.wait({leaving, opening}, return_when=asyncio.FIRST_COMPLETED)
        if leaving.done():
            self.left.append(request.body)
            opening.cancel()
            return False
        leaving.cancel()
        await stream(["hi"])(request)
        return False


LONG = "a long prompt " * 12_000


async def test_what_cannot_be_in_time_is_answered_429_at_once(
    engine: StartEngine, gateway: StartGateway
) -> None:
    held = Held()
    gate = await gateway(
        await engine(held),
        admission={"enabled": True, "preempt": False},
        slos={"interactive": {"ttft_s": 2.0}},
    )
    first = asyncio.create_task(
        gate.post(body=body(prompt=LONG, stream=True), x_motley_class="bulk")
    )
    await eventually(lambda: gate.books["in_flight"] == 1)
    answers = await asyncio.wait_for(
        asyncio.gather(
            *(gate.post(body=body(prompt="hi " * 9_000, stream=True)) for _ in range(40))
        ),
        8,
    )
    turned_away = [a for a in answers if a.status_code == 429]
    assert turned_away
    assert {a.json()["error"]["code"] for a in turned_away} == {"slo_unattainable"}
    assert {a.json()["error"]["type"] for a in turned_away} == {"rate_limit_error"}
    assert all(int(a.headers["retry-after"]) >= 1 for a in turned_away)
    metrics = (await gate.get("/metrics")).text
    assert 'motley_rejected_total{model="llama-3.1-8b",reason="slo_unattainable"}' in metrics
    assert 'motley_slo_attainment_ratio{slo_class="interactive"} 0.0' in metrics
    held.open.set()
    assert (await first).status_code == 200


async def test_a_recalled_request_leaves_its_engine_and_is_served_in_the_end(
    engine: StartEngine, gateway: StartGateway
) -> None:
    held = Held()
    backend = await engine(held, stream(["quick", "er", "!"]))
    gate = await gateway(backend, admission={"enabled": True})
    bulk = asyncio.create_task(
        gate.post(body=body(prompt=LONG, stream=True), x_motley_class="bulk")
    )
    await eventually(lambda: len(backend.received) == 1)
    chatting = await gate.post(body=body(prompt="hello", stream=True))
    assert chatting.status_code == 200
    assert b"quick" in chatting.content
    assert len(held.left) == 1, "the engine was told at once"
    answered = await asyncio.wait_for(bulk, 10)
    assert answered.status_code == 200
    assert len(backend.received) == 3
    metrics = (await gate.get("/metrics")).text
    assert 'motley_class_events_total{event="recalled",slo_class="bulk"} 1.0' in metrics
    assert 'motley_class_room_ratio{model="llama-3.1-8b"} 1.0' in metrics, "nothing was missed"
    assert gate.books == {**gate.books, "in_flight": 0, "queued": 0}


async def test_a_smaller_model_answers_for_who_allows_it_and_the_answer_says_so(
    engine: StartEngine, gateway: StartGateway
) -> None:
    big, small = await engine(chat()), await engine(chat())
    gate = await gateway(
        big,
        backends=[
            {"gpu": "a100-80", "model": MODEL, "url": big.url},
            {"gpu": "l4", "model": "qwen2.5-7b", "url": small.url},
        ],
        fallbacks={MODEL: ["qwen2.5-7b"]},
    )
    dispatcher = gate.relay.engine.dispatcher
    dispatcher.set_health("a100-80-0", healthy=False, now=gate.relay.engine.now())
    answered = await gate.post(x_motley_fallback="allow")
    assert answered.status_code == 200
    assert answered.headers["x-motley-model"] == "qwen2.5-7b"
    assert json.loads(small.received[0].body)["model"] == "qwen2.5-7b"
    metrics = (await gate.get("/metrics")).text
    assert f'motley_fallbacks_total{{asked="{MODEL}",served="qwen2.5-7b"}} 1.0' in metrics
