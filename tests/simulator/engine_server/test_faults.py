"""Faults on request: what a gateway has to survive."""

import json

import pytest

from tests.simulator.engine_server.samples import events
from tests.simulator.engine_server.still_loop import Bench, settle
from tests.simulator.engine_server.test_app import CHAT, chat, said

engines = pytest.mark.parametrize("engine", ["vllm", "sglang"])
LONG = chat(stream=True, max_tokens=100, ignore_eos=True)


async def fault(bench, **faults):
    exchange = bench.open("POST", "/fault", json.dumps(faults).encode())
    await settle()
    return exchange


async def duration(bench):
    bench.loop.move(1.0)  # SGLang computes one more step after an answer, at its old speed
    begun = bench.loop.time()
    await bench.ask("POST", CHAT, LONG)
    return bench.loop.time() - begun


@engines
async def test_a_slowed_engine_takes_as_many_times_as_long(engine):
    bench = Bench(engine)
    healthy = await duration(bench)
    await fault(bench, slow_factor=4.0)
    assert await duration(bench) == pytest.approx(4 * healthy, rel=0.02)
    await fault(bench)
    assert await duration(bench) == pytest.approx(healthy, rel=0.02)


async def test_sglangs_own_way_to_slow_it_down():
    bench = Bench("sglang")
    healthy = await duration(bench)
    slow = await bench.ask("POST", "/slow_down", b'{"forward_sleep_time": 0.05}')
    assert slow.status == 200
    # 100 iterations of one sequence, each 50 ms longer.
    assert await duration(bench) == pytest.approx(healthy + 100 * 0.05, rel=0.02)
    await bench.ask("POST", "/slow_down", b'{"forward_sleep_time": null}')
    assert await duration(bench) == pytest.approx(healthy, rel=0.02)


@engines
async def test_a_hung_engine_stops_in_the_middle_and_goes_on_later(engine):
    bench = Bench(engine)
    exchange = bench.open("POST", CHAT, LONG)
    await settle()
    bench.loop.move(0.2)
    await settle()
    await fault(bench, hang=True)
    heard = len(exchange.sent)
    bench.loop.move(100.0)
    await settle()
    assert len(exchange.sent) == heard == 2
    assert "w9" in exchange.body
    assert "[DONE]" not in exchange.body
    await fault(bench)
    await bench.loop.run(exchange.task)
    assert events(exchange.body)[-1] == "[DONE]"


async def test_sglangs_own_way_to_pause_it():
    bench = Bench("sglang")
    await bench.ask("POST", "/pause_generation", b'{"mode": "retract"}')
    exchange = bench.open("POST", CHAT, chat(max_tokens=3))
    await settle()
    bench.loop.move(10.0)
    await settle()
    assert exchange.sent == []
    await bench.ask("POST", "/continue_generation", b"{}")
    await bench.loop.run(exchange.task)
    assert exchange.status == 200


@engines
async def test_an_engine_can_be_told_to_fail(engine):
    bench = Bench(engine)
    await fault(bench, error_status=500)
    assert (await bench.ask("POST", CHAT, LONG)).status == 500
    assert (await bench.ask("GET", "/metrics")).status == 200


@engines
@pytest.mark.parametrize("tokens", [0, 1, 7])
async def test_an_engine_can_be_told_to_cut_its_streams(engine, tokens):
    bench = Bench(engine)
    await fault(bench, cut_after_tokens=tokens)
    answer = await bench.ask("POST", CHAT, LONG)
    assert not answer.complete
    assert "[DONE]" not in answer.body
    assert len(said(answer.body).split()) == tokens
    assert bench.app.driver.in_engine == 0


async def test_a_killed_vllm_says_so_in_its_streams_and_in_its_answers():
    bench = Bench("vllm")
    stream, whole = bench.open("POST", CHAT, LONG), bench.open("POST", CHAT, chat())
    await settle()
    bench.loop.move(0.1)
    calls = []
    bench.app.on_kill = calls.append
    await fault(bench, kill=True, restart_after_s=2.5)
    assert calls == [2.5]
    await stream.task
    await whole.task
    assert json.loads(events(stream.body)[-2])["error"]["code"] == 500
    assert events(stream.body)[-1] == "[DONE]"
    assert whole.status == 500


async def test_a_killed_sglang_falls_silent_until_its_connections_drop():
    bench = Bench("sglang")
    stream, whole = bench.open("POST", CHAT, LONG), bench.open("POST", CHAT, chat())
    await settle()
    bench.loop.move(0.1)
    await settle()
    heard = len(stream.sent)
    await fault(bench, kill=True)
    assert len(stream.sent) == heard
    assert not stream.task.done()
    assert whole.sent == []
    for exchange in (stream, whole):
        exchange.leave()
        await exchange.task
    assert "[DONE]" not in stream.body


@engines
async def test_faults_are_shown_and_set_whole(engine):
    bench = Bench(engine)
    await fault(bench, slow_factor=2.0, cut_after_tokens=3)
    await fault(bench, slow_factor=3.0)
    shown = json.loads((await bench.ask("GET", "/fault")).body)
    assert shown["slow_factor"] == 3.0
    assert shown["cut_after_tokens"] is None


@engines
@pytest.mark.parametrize(
    ("faults", "names"),
    [
        ({"slow_factor": 0}, "slow_factor"),
        ({"slow_factor": -1}, "slow_factor"),
        ({"error_status": 200}, "error_status"),
        ({"cut_after_tokens": -1}, "cut_after_tokens"),
        ({"restart_after_s": -1}, "restart_after_s"),
        ({"hang": "perhaps"}, "hang"),
        ({"sloow_factor": 2}, "sloow_factor"),
    ],
)
async def test_faults_that_make_no_sense_are_refused_by_name(engine, faults, names):
    bench = Bench(engine)
    refused = await fault(bench, **faults)
    assert refused.status == 400
    assert names in refused.body
    assert json.loads((await bench.ask("GET", "/fault")).body)["slow_factor"] == 1.0
