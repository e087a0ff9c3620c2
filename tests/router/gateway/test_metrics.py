"""What the gateway counts of itself."""

from __future__ import annotations

import asyncio

import pytest
from prometheus_client.parser import text_string_to_metric_families

from router.gateway import exchange
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import (
    MODEL,
    Gateway,
    answer,
    chat,
    event,
    events,
    eventually,
    hang,
    reset,
    stream,
)


async def samples(gate: Gateway) -> dict[tuple[str, ...], float]:
    """Every sample by its name and sorted label values."""
    text = (await gate.get("/metrics")).text
    return {
        (sample.name, *sorted(sample.labels.values())): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


async def test_requests_are_counted_by_what_the_client_saw(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat(), answer(400, b""), answer(503, b""), hang)
    gate = await gateway(backend, reliability={"max_retries": 0})
    for _ in range(3):
        await gate.post()
    _, writer = await gate.ask()
    await eventually(lambda: len(backend.received) == 4)
    writer.close()
    await eventually(lambda: gate.books["cancelled"] == 1)
    await gate.post(body=b'{"model":"invented-by-a-client"}')
    await gate.post(body=b"{")
    seen = await samples(gate)
    for code, model, slo_class in (
        ("200", MODEL, "interactive"),
        ("400", MODEL, "interactive"),
        ("503", MODEL, "interactive"),
        ("499", MODEL, "interactive"),
        ("404", "none", "interactive"),
        ("400", "none", ""),
    ):
        key = ("motley_requests_total", *sorted((code, model, slo_class)))
        assert seen[key] == 1, key
    assert seen["motley_rejected_total", "none", "unknown_model"] == 1
    assert not any("invented-by-a-client" in key for key in seen)


async def test_attempts_and_retries_are_counted_by_backend(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(reset), await engine(stream(["a", "b"])))
    await gate.post()
    seen = await samples(gate)
    assert seen["motley_retries_total", "broken", "e0"] == 1
    attempts = "motley_attempts_total"
    assert seen[attempts, *sorted(("completed", "e1", MODEL, "round-robin"))] == 1
    assert seen[attempts, *sorted(("failed", "e0", MODEL, "round-robin"))] == 1
    assert seen["motley_time_to_first_token_seconds_count", "e1", MODEL] == 1
    assert seen["motley_output_tokens_total", "e1", MODEL] == 2
    assert seen["motley_queue_wait_seconds_count", MODEL] == 1
    assert seen["motley_gateway_overhead_seconds_count", "dispatch"] == 1


async def test_the_state_of_the_fleet_is_asked_when_it_is_read(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(stream(["a"] * 50, gap_s=0.01)))
    assert (await samples(gate))["motley_backend_up", "e0"] == 1
    _, writer = await gate.ask()
    await eventually(lambda: next(iter(gate.relay.engine.dispatcher.state.backends)).decoding == 1)
    assert (await samples(gate))["motley_requests_in_flight", "decode", "e0"] == 1
    writer.close()


async def test_an_answer_that_is_not_streamed_has_no_first_token(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    await gate.post()
    seen = await samples(gate)
    assert ("motley_time_to_first_token_seconds_count", "e0", MODEL) not in seen or (
        seen["motley_time_to_first_token_seconds_count", "e0", MODEL] == 0
    )
    assert seen["motley_request_duration_seconds_count", "e0", MODEL] == 1


async def test_gaps_and_finish_reasons_are_read_in_passing(
    engine: StartEngine, gateway: StartGateway
) -> None:
    said = event({"content": "c"}, choices=[{"index": 0, "delta": {}, "finish_reason": "length"}])
    odd = event(choices=[{"index": 0, "delta": {}, "finish_reason": "made_up_by_an_engine"}])
    backend = await engine(events(event({"content": "a"}), event({"content": "b"}), said))
    gate = await gateway(backend)
    await gate.post()
    backend.script = [events(event({"content": "a"}), odd)]
    await gate.post()
    seen = await samples(gate)
    assert seen["motley_finish_reasons_total", *sorted(("e0", MODEL, "length"))] == 1
    assert seen["motley_finish_reasons_total", *sorted(("e0", MODEL, "other"))] == 1
    assert seen["motley_inter_token_latency_seconds_count", *sorted(("e0", MODEL))] >= 2
    assert seen["motley_inter_token_latency_seconds_sum", *sorted(("e0", MODEL))] >= 0.01


async def test_the_gaps_of_a_long_answer_are_counted_as_they_come(
    engine: StartEngine, gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or an answer of a million tokens would cost 8 MB before it is over."""
    monkeypatch.setattr(exchange, "MOST_GAPS", 8)
    limits = {"connect_timeout_s": 0.16}  # looked at every 20 ms
    gate = await gateway(await engine(stream(["a"] * 200, gap_s=0.004)), reliability=limits)
    asked = asyncio.create_task(gate.post())
    kept = 0
    while not asked.done():
        for one in gate.relay.engine._live.values():
            kept = max(kept, len(one.attempt.gaps) if one.attempt is not None else 0)
        await asyncio.sleep(0.001)
    assert 8 <= kept < 100
    seen = await samples(gate)
    assert seen["motley_inter_token_latency_seconds_count", *sorted(("e0", MODEL))] > 150
