"""Gateway and emulated fleet together, over real sockets."""

import asyncio
from pathlib import Path

import httpx
import openai
import pytest

from router.config.build import rebuild_dispatcher
from router.config.schema import ContinuationSection
from router.log_replay import replay
from simulator.engine_server.tokens import words
from tests.integration.fleet import break_engine, engines, gateway


@pytest.fixture(scope="module")
def healthy():
    """Engines that no test breaks."""
    with engines() as config:
        yield config


async def test_a_burst_is_served_whole_by_several_kinds_of_gpu(healthy):
    async with gateway(healthy) as door:
        burst = [door.ask(40, f"question {i} " + "x" * 8000) for i in range(60)]
        answers = await asyncio.gather(*burst)
        await door.settled()
        books = door.dispatcher
    assert {said for _, said in answers} == {words(0, 40)}
    assert len({name.rpartition("-")[0] for name, _ in answers}) >= 2
    assert books.arrived == books.completed == 60  # I1


async def test_a_client_that_leaves_frees_the_engine_and_the_books(healthy):
    async with gateway(healthy) as door:
        leaving = asyncio.create_task(door.ask(20_000))
        while not door.dispatcher.in_flight:
            await asyncio.sleep(0.005)
        leaving.cancel()
        await asyncio.wait([leaving])
        await door.settled()
        assert door.dispatcher.cancelled == 1


async def test_the_decision_log_of_a_live_run_replays_byte_for_byte(healthy, tmp_path):
    log = tmp_path / "decisions.jsonl"
    section = healthy.server.model_copy(update={"decision_log": str(log)})
    logged = type(healthy)(**{**_fields(healthy), "server": section})
    async with gateway(logged) as door:
        await asyncio.gather(*[door.ask(20, "x" * 100 * i) for i in range(40)])
        await door.settled()
    lines = Path(log).read_bytes().splitlines(keepends=True)
    assert sum(b'"call":"dispatch"' in line for line in lines) == 40
    assert replay(lines, rebuild_dispatcher) == len(lines) - 1


def _fields(config):
    return {name: getattr(config, name) for name in type(config).__slots__}


async def test_a_killed_engine_costs_its_streams_and_nobody_elses_request():
    with engines(speed=2.0) as config:  # slow enough for streams to be open at the kill
        async with gateway(config) as door:
            first, _ = await door.ask(5)
            streams = [asyncio.create_task(door.ask(20_000)) for _ in range(6)]
            while {b.spec.name: b.decoding for b in door.dispatcher.state.backends}[first] == 0:
                await asyncio.sleep(0.005)
            await break_engine(config, first, kill=True)
            answers = await asyncio.gather(*[door.ask(20) for _ in range(20)])
            ended = [stream for stream in streams if stream.done()]
            for stream in streams:
                stream.cancel()
            await asyncio.wait(streams)
            await door.settled()
    assert {said for _, said in answers} == {words(0, 20)}
    assert first not in {name for name, _ in answers}
    # A stream that had begun is not begun again elsewhere (I8): it ends with an error.
    assert ended
    assert all(isinstance(stream.exception(), openai.APIError) for stream in ended)


async def test_with_continuation_a_killed_engine_costs_nobody_a_word():
    """vLLM says that it died, SGLang's connections drop; every answer is whole all the same."""
    with engines(speed=2.0) as healthy:
        on = ContinuationSection(enabled=True)
        section = healthy.reliability.model_copy(update={"continuation": on, "idle_timeout_s": 5.0})
        policy = healthy.policy.model_copy(update={"name": "round-robin", "params": {}})
        changed = {"reliability": section, "policy": policy}
        config = type(healthy)(**{**_fields(healthy), **changed})
        engine_of = {spec.name: spec.engine for spec in config.fleet.backends}
        async with gateway(config) as door:
            streams = [asyncio.create_task(door.ask(600, f"question {i}")) for i in range(30)]
            state = door.dispatcher.state
            async with asyncio.timeout(30):
                while len(busy := [b.spec.name for b in state.backends if b.decoding]) < 5:
                    await asyncio.sleep(0.005)
            doomed = {engine_of[name]: name for name in busy}
            await asyncio.gather(*(break_engine(config, n, kill=True) for n in doomed.values()))
            answers = await asyncio.gather(*streams)
            await door.settled()
            assert door.dispatcher.completed == door.dispatcher.arrived == 30
            async with httpx.AsyncClient() as client:
                metrics = (await client.get(f"{door.url}/metrics")).text
    assert set(doomed) == {"vllm", "sglang"}
    assert {said for _, said in answers} == {words(0, 600)}
    assert 'motley_continuations_total{outcome="completed"}' in metrics
    assert 'motley_continuations_total{outcome="failed"}' not in metrics


async def test_a_request_refused_before_its_first_byte_is_retried_elsewhere():
    with engines() as config:
        async with gateway(config) as door:
            first, _ = await door.ask(5)
            await break_engine(config, first, error_status=500)
            answers = await asyncio.gather(*[door.ask(10) for _ in range(10)])
            await door.settled()
    assert {said for _, said in answers} == {words(0, 10)}
    assert first not in {name for name, _ in answers}
