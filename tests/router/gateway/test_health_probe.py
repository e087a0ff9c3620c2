"""Active health checks."""

from __future__ import annotations

from router.config.schema import ReliabilitySection
from router.gateway.health_probe import HealthProbe
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, Gateway, chat, eventually


def probe_of(gate: Gateway) -> HealthProbe:
    settings = ReliabilitySection(health_failures=3, health_timeout_s=5.0)
    return HealthProbe(gate.relay.engine, settings)


async def test_ill_after_some_failures_in_a_row_well_after_one_success(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend)
    (state,) = gate.relay.engine.dispatcher.state.backends
    probe = probe_of(gate)
    backend.probe_status = 503
    for expected in (True, True, False):
        await probe.probe_all()
        assert state.healthy is expected
    backend.probe_status = 200
    await probe.probe_all()
    assert state.healthy


async def test_a_backend_that_is_gone_becomes_ill(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend)
    await backend.stop()
    probe = probe_of(gate)
    for _ in range(3):
        await probe.probe_all()
    (state,) = gate.relay.engine.dispatcher.state.backends
    assert not state.healthy
    await backend.start()
    await probe.probe_all()
    assert state.healthy


async def test_an_engine_without_such_a_page_is_alive(
    engine: StartEngine, gateway: StartGateway
) -> None:
    backend = await engine(chat())
    backend.probe_status = 404
    gate = await gateway(backend)
    probe = probe_of(gate)
    for _ in range(4):
        await probe.probe_all()
    (state,) = gate.relay.engine.dispatcher.state.backends
    assert state.healthy


async def test_each_engine_is_asked_for_what_costs_it_nothing(
    engine: StartEngine, gateway: StartGateway
) -> None:
    """SGLang's /health runs a generation; a label names another page."""
    vllm, sglang, own = [await engine(chat()) for _ in range(3)]
    kinds = [
        {"engine": "vllm", "url": vllm.url},
        {"engine": "sglang", "url": sglang.url},
        {"engine": "vllm", "url": own.url, "labels": {"health_path": "/alive"}},
    ]
    gate = await gateway(backends=[{"gpu": "a100-80", "model": MODEL, **kind} for kind in kinds])
    await probe_of(gate).probe_all()
    assert [fake.probes[0] for fake in (vllm, sglang, own)] == [
        "/health",
        "/v1/models",
        "/alive",
    ]


async def test_probes_go_on_by_themselves(engine: StartEngine, gateway: StartGateway) -> None:
    backend = await engine(chat())
    await gateway(backend, reliability={"health_interval_s": 0.02})
    await eventually(lambda: len(backend.probes) >= 3)
