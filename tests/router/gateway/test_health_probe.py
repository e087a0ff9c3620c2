"""Active health checks."""

from __future__ import annotations

import asyncio
from itertools import pairwise

import pytest

from router.config.schema import ReliabilitySection
from router.fleet_state.backend import BackendState
from router.gateway.breaker_watch import BreakerWatch
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
    vllm, sglang, llamacpp, own = [await engine(chat()) for _ in range(4)]
    kinds = [
        {"engine": "vllm", "url": vllm.url},
        {"engine": "sglang", "url": sglang.url},
        {"engine": "llamacpp", "url": llamacpp.url},
        {"engine": "vllm", "url": own.url, "labels": {"health_path": "/alive"}},
    ]
    gate = await gateway(backends=[{"gpu": "a100-80", "model": MODEL, **kind} for kind in kinds])
    await probe_of(gate).probe_all()
    assert [fake.probes[0] for fake in (vllm, sglang, llamacpp, own)] == [
        "/health",
        "/v1/models",
        "/health",
        "/alive",
    ]


async def test_probes_go_on_by_themselves(engine: StartEngine, gateway: StartGateway) -> None:
    backend = await engine(chat())
    await gateway(backend, reliability={"health_interval_s": 0.02})
    await eventually(lambda: len(backend.probes) >= 3)


async def test_a_fleet_is_probed_one_after_the_other(
    engine: StartEngine, gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """All at once would hold up every request that comes meanwhile."""
    engines = [await engine(chat()) for _ in range(4)]
    asked: list[tuple[str, float]] = []
    probe = HealthProbe.probe

    async def noted(self: HealthProbe, backend: BackendState) -> None:
        asked.append((backend.spec.name, asyncio.get_running_loop().time()))
        await probe(self, backend)

    monkeypatch.setattr(HealthProbe, "probe", noted)
    await gateway(*engines, reliability={"health_interval_s": 0.4})
    await eventually(lambda: len(asked) >= 8)
    names = [name for name, _ in asked[:8]]
    assert names == [f"e{n}" for n in range(4)] * 2
    times = [at for _, at in asked[:8]]
    assert min(after - before for before, after in pairwise(times)) > 0.05


async def test_a_large_fleet_is_looked_at_as_often_as_a_small_one(
    gateway: StartGateway, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Without requests, too: the tenth of a second that a chore may wait longer is not for each."""
    asked: list[tuple[str, float]] = []

    async def noted(_: HealthProbe, backend: BackendState) -> None:
        asked.append((backend.spec.name, asyncio.get_running_loop().time()))

    monkeypatch.setattr(HealthProbe, "probe", noted)
    url = "http://127.0.0.1:9"  # nobody is there
    fleet = [{"gpu": "a100-80", "model": MODEL, "url": url, "name": f"e{n}"} for n in range(40)]
    await gateway(backends=fleet, reliability={"health_interval_s": 0.4})
    await eventually(lambda: len(asked) >= 121)
    times = [at for name, at in asked if name == "e0"]
    assert times[3] - times[0] < 4.0  # 1.2 s, and with a rest between two of them 12


async def test_one_that_took_the_name_of_another_is_not_told_ill_for_it(
    engine: StartEngine, gateway: StartGateway
) -> None:
    well = await engine(chat())
    gate = await gateway(well)
    state = gate.relay.engine.dispatcher.state
    probe, gone = probe_of(gate), state.get("e0")
    well.probe_status = 503
    for _ in range(2):
        await probe.probe_all()
    gate.relay.engine.dispatcher.remove_backend("e0", 0.0)
    gate.relay.engine.dispatcher.add_backend(gone.spec, 0.0)
    await probe.probe(gone)
    assert gone.index not in probe._failures, "nothing is kept of who is gone"
    await probe.probe_all()
    assert state.get("e0").healthy


async def test_no_connection_is_kept_to_one_that_left_while_it_was_asked(
    engine: StartEngine, gateway: StartGateway
) -> None:
    slow = await engine(chat())
    slow.probe_delay_s = 0.1
    gate = await gateway(slow)
    state = gate.relay.engine.dispatcher.state
    probe, gone = probe_of(gate), state.get("e0")
    asked = asyncio.create_task(probe.probe(gone))
    await eventually(lambda: bool(slow.probes))
    gate.relay.engine.dispatcher.remove_backend("e0", 0.0)
    await probe.probe_all()  # lets go of what it has kept for those who left
    await asked
    await eventually(lambda: not slow._serving, within_s=5.0)


async def test_one_that_hangs_is_not_asked_again_and_delays_nobody(
    engine: StartEngine, gateway: StartGateway
) -> None:
    hangs, well = await engine(chat()), await engine(chat())
    hangs.probe_delay_s = 30.0
    reliability = {"health_interval_s": 0.04, "health_timeout_s": 30.0}
    await gateway(hangs, well, reliability=reliability)
    await eventually(lambda: well.probes.count("/health") >= 4)
    assert hangs.probes.count("/health") == 1


async def test_the_log_says_whom_the_breaker_cuts_off_and_who_is_back(
    engine: StartEngine, gateway: StartGateway, caplog: pytest.LogCaptureFixture
) -> None:
    gate = await gateway(await engine(chat()), await engine(chat()))
    dispatcher = gate.relay.engine.dispatcher
    watch = BreakerWatch(dispatcher)
    caplog.clear()
    watch.look()
    assert not caplog.messages

    breaker = dispatcher.state.get("e0").breaker
    for _ in range(2):  # looked at twice, told once
        breaker.eject(now=0.0)
        watch.look()
    told = "backend e0 is cut off: it failed too often, its breaker is open"
    assert caplog.messages.count(told) == 1

    breaker.tick(1e9)
    watch.look()
    back = "backend e0 is used again: its breaker is closed"
    assert back not in caplog.messages  # on probation is not back yet
    breaker.succeeded(breaker.sent())
    watch.look()
    assert back in caplog.messages
