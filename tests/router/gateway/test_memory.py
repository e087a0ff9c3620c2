"""What a gateway learned, after it was stopped and started again."""

from __future__ import annotations

import asyncio
import json
import logging
import signal
import sys
import threading
from dataclasses import replace
from pathlib import Path
from typing import Any

import httpx
import pytest

from router.config.build import rebuild_dispatcher
from router.config.load import load_config
from router.log_replay import replay
from telemetry import metric_table as table
from telemetry.learned import decode, encode
from telemetry.learned_file import LearnedFile, read_learned
from telemetry.metrics import GatewayMetrics
from tests.fakes import ask
from tests.router.gateway.conftest import StartEngine
from tests.router.gateway.fakes import (
    MODEL,
    FakeEngine,
    Gateway,
    eventually,
    fleet,
    running,
    stream,
)

TOKENS = 24
USAGE = {"prompt_tokens": 50, "completion_tokens": TOKENS, "total_tokens": 50 + TOKENS}
BODY = json.dumps(
    {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": "tell " * 60}]}
).encode()


async def two(engine: StartEngine) -> tuple[FakeEngine, FakeEngine]:
    """Believed to be alike; one is twenty times as fast."""
    fast = await engine(stream(["a"] * TOKENS, usage=USAGE, gap_s=0.001))
    slow = await engine(stream(["a"] * TOKENS, usage=USAGE, gap_s=0.02))
    return fast, slow


def keeping(file: Path, *engines: FakeEngine, **settings: Any) -> dict[str, Any]:
    learned = {"file": str(file), **settings.pop("learned", {})}
    return fleet(
        *engines,
        policy={"name": "motley", "seed": 3},
        **settings,
    ) | {"telemetry": {"enabled": False, "learned": learned}}


async def teach(gate: Gateway, requests: int = 40) -> None:
    for _ in range(requests // 8):
        await asyncio.gather(*(gate.post(body=BODY) for _ in range(8)))


async def chosen(gate: Gateway, requests: int = 6) -> list[str]:
    """Who serves requests that come one by one."""
    answers = [await gate.post(body=BODY) for _ in range(requests)]
    return [answer.headers["x-motley-backend"] for answer in answers]


def forecast(gate: Gateway) -> float:
    gate.relay._rest.state.runtime.outcomes.settle()
    told: float = gate.relay.engine.dispatcher._predictor.forecast(ask(model=MODEL)).mean_tokens
    return told


async def metric(gate: Gateway, name: str) -> dict[str, float]:
    text = (await gate.get("/metrics")).text
    rows = [row.rpartition(" ") for row in text.splitlines() if row.startswith(name)]
    return {row[0].removeprefix(name): float(row[2]) for row in rows}


async def test_what_was_written_before_the_clock_was_set_back_is_of_just_now(
    engine: StartEngine, front_end: str, tmp_path: Path
) -> None:
    file = tmp_path / "learned.json"
    config = keeping(file, *await two(engine))
    async with running(config, front_end) as gate:
        await teach(gate)
    document = json.loads(file.read_bytes())
    document["written_unix_s"] += 3600.0
    file.write_text(json.dumps(document))
    async with running(config, front_end) as gate:
        before = (await gate.get("/debug/beliefs")).json()["before"]
        assert (before["age_s"], before["restored"]["speeds"]) == (0.0, 2)
        assert (await metric(gate, "motley_learned_restored_age_seconds"))[""] == 0.0


async def test_a_tail_kept_in_plain_seconds_is_not_taken_for_one_in_seconds_as_they_count(
    engine: StartEngine, front_end: str, tmp_path: Path
) -> None:
    """As an older Motley kept it; what else is in its file is known again."""
    file = tmp_path / "learned.json"
    config = keeping(file, *await two(engine))
    async with running(config, front_end) as gate:
        await teach(gate)
    document = json.loads(file.read_bytes())
    known = document["policies"]["motley"]
    document["policies"]["motley"] = {"e2e_s": 1e3, "e2e_moment": known["e2e_moment"]}
    file.write_text(json.dumps(document))
    async with running(config, front_end) as gate:
        restored = (await gate.get("/debug/beliefs")).json()["before"]["restored"]
        assert (restored["policies"], restored["speeds"]) == (0, 2)
        assert gate.relay.engine.dispatcher.known() == {}


async def test_the_first_decisions_after_a_restart_are_those_of_one_who_knows(
    engine: StartEngine, front_end: str, tmp_path: Path
) -> None:
    file, fast_and_slow = tmp_path / "learned.json", await two(engine)
    config = keeping(file, *fast_and_slow)
    async with running(config, front_end) as gate:
        cold = forecast(gate)
        assert (await gate.get("/debug/beliefs")).json()["before"] is None
        await teach(gate)
        known = forecast(gate)
    assert file.stat().st_mode & 0o777 == 0o600
    async with running(config, front_end) as gate:
        assert forecast(gate) == pytest.approx(known, rel=0.01)
        assert cold == pytest.approx(211.1)
        assert known < 60
        assert await chosen(gate) == ["e0"] * 6
        beliefs = (await gate.get("/debug/beliefs")).json()
        before = beliefs["before"]
        assert before["file"] == str(file)
        assert 0.0 <= before["age_s"] < 60.0
        assert before["restored"]["speeds"] == 2
        assert before["restored"]["policies"] == 1
        assert beliefs["backends"]["e1"]["learned"]["before"] > 0
        restored = await metric(gate, "motley_learned_restored_count")
        assert restored['{kind="speeds"}'] == 2
        assert restored['{kind="lengths"}'] >= 4
        assert 0.0 < (await metric(gate, "motley_learned_restored_age_seconds"))[""] < 60.0
    async with running(keeping(tmp_path / "other.json", *fast_and_slow), front_end) as gate:
        assert set(await chosen(gate, 1)) <= {"e0", "e1"}
        assert forecast(gate) > known


async def test_another_engine_behind_a_name_is_learned_anew(
    engine: StartEngine, tmp_path: Path
) -> None:
    """The slow one was replaced; what was learned of it is not held against the new one."""
    file, (fast, slow) = tmp_path / "learned.json", await two(engine)
    async with running(keeping(file, fast, slow)) as gate:
        await teach(gate)
    new = await engine(stream(["a"] * TOKENS, usage=USAGE))
    async with running(keeping(file, fast, new)) as gate:
        beliefs = (await gate.get("/debug/beliefs")).json()
        assert beliefs["before"]["restored"]["speeds"] == 1
        assert beliefs["backends"]["e1"]["learned"]["before"] == 0
    changed = keeping(file, fast, slow)
    changed["backends"][1]["gpu"] = "l4"
    async with running(changed) as gate:
        beliefs = (await gate.get("/debug/beliefs")).json()
        assert beliefs["backends"]["e1"]["correction"] == {"prefill": 1.0, "decode": 1.0}


@pytest.mark.parametrize("ending", [signal.SIGTERM, signal.SIGKILL])
async def test_a_process_that_is_told_to_stop_or_killed_leaves_a_file_for_the_next(
    engine: StartEngine, tmp_path: Path, ending: signal.Signals
) -> None:
    path, file = tmp_path / "fleet.yaml", tmp_path / "learned.json"
    every_s = 0.5 if ending is signal.SIGKILL else 3600.0
    config = keeping(file, *await two(engine), learned={"every_s": every_s})
    path.write_text(json.dumps(config))
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-c", "from router.cli.main import main; main()"),
        *("serve", "--config", str(path), "--port", "0"),
        stderr=asyncio.subprocess.PIPE,
    )
    assert process.stderr is not None
    try:
        async with asyncio.timeout(30):
            while b"serving" not in (line := await process.stderr.readline()):
                pass
        url = line.split(b" at ")[1].split(b"/v1")[0].decode()
        async with httpx.AsyncClient(base_url=url, timeout=20.0) as client:
            for _ in range(16):
                await client.post("/v1/chat/completions", content=BODY)
        if ending is signal.SIGKILL:
            await eventually(lambda: file.exists() and bool(read_learned(file)[0].speeds))
    finally:
        process.send_signal(ending)
        await process.wait()
    learned, flaws = read_learned(file)
    assert not flaws
    assert {speed.name for speed in learned.speeds} == {"e0", "e1"}
    assert learned.lengths


BAD = {
    "garbage": b"\x00garbage",
    "empty": b"",
    "cut": encode(decode(b'{"motley_learned":1,"origin":"gateway","written_unix_s":1}')[0])[:-9],
    "newer": b'{"motley_learned": 99, "origin": "gateway", "written_unix_s": 1}',
}


@pytest.mark.parametrize("kind", BAD)
async def test_a_bad_file_is_a_cold_start_one_line_and_kept_aside(
    kind: str, engine: StartEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file = tmp_path / "learned.json"
    file.write_bytes(BAD[kind])
    async with running(keeping(file, *await two(engine))) as gate:
        assert (await gate.post(body=BODY)).status_code == 200
        assert (await gate.get("/debug/beliefs")).json()["before"] is None
    (aside,) = tmp_path.glob("learned.json.aside-*")
    assert aside.read_bytes() == BAD[kind]
    assert read_learned(file)[0].lengths
    errors = [r.getMessage() for r in caplog.records if r.levelno >= logging.ERROR]
    assert len(errors) == 1
    assert str(file) in errors[0]
    assert str(aside) in errors[0]
    assert "\n" not in errors[0]


async def test_of_a_file_with_one_bad_part_the_rest_is_used(
    engine: StartEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    file, engines = tmp_path / "learned.json", await two(engine)
    async with running(keeping(file, *engines)) as gate:
        await teach(gate, 16)
    content = json.loads(file.read_bytes())
    content["speeds"][0]["factors"]["phi"] = [1e9, 0, 0]
    file.write_text(json.dumps(content))
    async with running(keeping(file, *engines)) as gate:
        restored = (await gate.get("/debug/beliefs")).json()["before"]["restored"]
        assert restored["speeds"] == 0
        assert restored["lengths"] > 0
    assert "speeds: entry 0: factors without a covariance; the rest is used" in caplog.text
    assert len(list(tmp_path.glob("learned.json.aside-*"))) == 1


async def test_where_nothing_can_be_written_it_serves_and_says_so_once(
    engine: StartEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    """No such folder; a test that runs as root may write to any that there is."""
    caplog.set_level(logging.INFO)
    file = tmp_path / "missing" / "learned.json"
    config = keeping(file, *await two(engine), learned={"every_s": 0.1})
    async with running(config) as gate:
        gate.relay._rest.state.runtime.memory._tried_s -= 10.0
        assert (await gate.post(body=BODY)).status_code == 200

        def failed() -> float:
            metrics = gate.relay._rest.state.runtime.instruments.metrics
            return metrics._counts["motley_learned_writes_total"][("failed",)]

        await eventually(lambda: failed() >= 2)
        file.parent.mkdir()
        await eventually(file.exists)
    assert "nothing was learned before; the start is cold" in caplog.text
    assert caplog.text.count("cannot be written: No such file") == 1
    assert caplog.text.count("can be written again") == 1


async def test_a_disk_may_take_its_time_and_metrics_are_counted_on_the_loop(
    engine: StartEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    writing, counting = set[int](), set[int]()
    write, count = LearnedFile.write, GatewayMetrics.count

    def written(self: LearnedFile, data: bytes) -> None:
        writing.add(threading.get_ident())
        write(self, data)

    def counted(self: GatewayMetrics, metric: Any, *more: Any) -> None:
        if metric is table.LEARNED_WRITES:
            counting.add(threading.get_ident())
        count(self, metric, *more)

    monkeypatch.setattr(LearnedFile, "write", written)
    monkeypatch.setattr(GatewayMetrics, "count", counted)
    file = tmp_path / "learned.json"
    async with running(keeping(file, *await two(engine), learned={"every_s": 0.1})):
        await eventually(file.exists)
        await eventually(lambda: bool(counting))
        assert threading.get_ident() not in writing
        assert counting == {threading.get_ident()}


async def test_two_gateways_with_one_file_do_not_overwrite_each_other(
    engine: StartEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    file, engines = tmp_path / "learned.json", await two(engine)
    config = keeping(file, *engines, learned={"every_s": 0.1})
    async with running(config) as first:
        await teach(first, 16)
        async with running(config) as second:
            await eventually(file.exists)
            memory = second.relay._rest.state.runtime.memory
            assert not memory._file.ours
            age = "motley_learned_written_age_seconds"
            assert 0.0 <= (await metric(first, age))[""] < 30.0
            assert not await metric(second, age), "it is nothing to this one how old the file is"
        written = read_learned(file)[0]
        assert written.speeds, "the second one, which knew nothing, has not written at its end"
    assert "another process writes it; this one only reads it" in caplog.text


async def test_a_successor_that_starts_before_its_predecessor_stops_learns_what_that_one_knew(
    engine: StartEngine, tmp_path: Path
) -> None:
    file, engines = tmp_path / "learned.json", await two(engine)
    config = keeping(file, *engines, learned={"every_s": 0.2})
    async with running(keeping(file, *engines)) as first:
        await teach(first)
        known = forecast(first)
        successor = running(config)
        second = await successor.__aenter__()
    try:
        await eventually(lambda: forecast(second) == pytest.approx(known, rel=0.01))
        assert second.relay._rest.state.runtime.memory._file.ours
    finally:
        await successor.__aexit__(None, None, None)


async def test_a_reload_moves_it_turns_it_off_and_on_and_loses_nothing(
    engine: StartEngine, tmp_path: Path
) -> None:
    path, engines = tmp_path / "fleet.yaml", await two(engine)
    one, other = tmp_path / "one.json", tmp_path / "other.json"
    path.write_text(json.dumps(keeping(one, *engines)))
    async with running({}, load=lambda: load_config(path)) as gate:
        runtime = gate.relay._rest.state.runtime
        await teach(gate, 16)
        known = forecast(gate)

        def reload(config: dict[str, Any]) -> None:
            path.write_text(json.dumps(config))
            result = runtime.reloader.reload("test")
            assert result.ok
            assert not result.needs_restart
            runtime.memory.follow()

        reload(keeping(other, *engines))
        assert read_learned(one)[0].lengths, "written a last time where it was kept so far"
        reload(fleet(*engines, policy={"name": "motley", "seed": 3}))
        assert read_learned(other)[0].lengths
        assert forecast(gate) == known
        assert LearnedFile(other).claim(), "nobody has it now"
        reload(keeping(one, *engines))
    assert read_learned(one)[0].written_unix_s >= read_learned(other)[0].written_unix_s


async def test_what_was_restored_is_in_the_decision_log_so_that_it_replays(
    engine: StartEngine, tmp_path: Path
) -> None:
    file, log, engines = tmp_path / "learned.json", tmp_path / "log.jsonl", await two(engine)
    async with running(keeping(file, *engines)) as gate:
        await teach(gate)
    config = keeping(file, *engines, server={"decision_log": str(log)})
    async with running(config) as gate:
        await teach(gate, 16)
    lines = log.read_bytes().splitlines(keepends=True)
    assert replay(iter(lines), rebuild_dispatcher) == len(lines) - 1
    assert [json.loads(line)["call"] for line in lines[1:4]] == ["correct", "correct", "recall"]


async def test_what_a_simulation_learned_of_speeds_is_true_of_no_real_card(
    engine: StartEngine, tmp_path: Path
) -> None:
    file, engines = tmp_path / "learned.json", await two(engine)
    async with running(keeping(file, *engines)) as gate:
        await teach(gate, 16)
    learned = read_learned(file)[0]
    file.write_bytes(encode(replace(learned, origin="simulation")))
    async with running(keeping(file, *engines)) as gate:
        restored = (await gate.get("/debug/beliefs")).json()["before"]["restored"]
        assert restored["speeds"] == 0
        assert restored["lengths"] > 0


async def test_without_feedback_the_speeds_in_the_file_stay_there(
    engine: StartEngine, tmp_path: Path
) -> None:
    file, engines = tmp_path / "learned.json", await two(engine)
    async with running(keeping(file, *engines)) as gate:
        await teach(gate, 16)
    before = {speed.name: speed.factors for speed in read_learned(file)[0].speeds}
    config = keeping(file, *engines)
    config["telemetry"]["feedback"] = False
    async with running(config) as gate:
        await gate.post(body=BODY)
    assert {speed.name: speed.factors for speed in read_learned(file)[0].speeds} == before
