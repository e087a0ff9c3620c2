"""The traffic record and the access log: facts of every request, content of none."""

from __future__ import annotations

import asyncio
import json
import logging
from pathlib import Path
from typing import Any

import pytest

from router.config.load import load_config
from router.domain.errors import ConfigError
from router.gateway.app import build_app
from router.gateway.bookkeeping import SALT_FILE
from simulator.traces.read import stream_trace
from telemetry.json_log import JsonFormatter
from tests.router.gateway.conftest import StartEngine
from tests.router.gateway.fakes import MODEL, answer, chat, fleet, hang, running, stream

SECRET = "the-secret-word"
ASK = json.dumps(
    {"model": MODEL, "stream": True, "messages": [{"role": "user", "content": SECRET}]}
).encode()
pq = pytest.importorskip("pyarrow.parquet")


def kept(directory: Path, **more: Any) -> dict[str, Any]:
    return {"enabled": False, "record": {"directory": str(directory), **more}}


def rows(directory: Path) -> list[dict[str, Any]]:
    return [
        row for f in sorted(directory.glob("*.parquet")) for row in pq.read_table(f).to_pylist()
    ]


async def test_every_request_leaves_one_row(engine: StartEngine, tmp_path: Path) -> None:
    ok = await engine(
        stream([SECRET, "b"], usage={"prompt_tokens": 9, "completion_tokens": 2}),
    )
    busy = await engine(answer(503, b"{}"))
    config = fleet(busy, ok, telemetry=kept(tmp_path))
    async with running(config) as gate:
        served = await gate.post(body=ASK, x_tenant_id="acme", x_request_id="r-1")
        assert served.status_code == 200
        await gate.post(body=b'{"model": "nope", "messages": []}', x_request_id="r-2")
    first, second = sorted(rows(tmp_path), key=lambda row: row["request_id"])
    assert (first["status"], first["backend"], first["attempts"]) == ("completed", "e1", 2)
    assert (first["input_tokens"], first["output_tokens"]) == (9, 2)
    assert first["arrival_s"] < first["dispatched_s"] < first["first_token_s"]
    assert first["first_token_s"] < first["finished_s"]
    assert first["predicted_ttft_s"] > 0
    assert first["tenant"] not in ("", "acme"), "a hash stands for the tenant"
    assert (second["status"], second["output_tokens"]) == ("rejected:unknown_model", 0)
    for file in tmp_path.iterdir():
        assert SECRET.encode() not in file.read_bytes(), file
        assert b"acme" not in file.read_bytes(), file


async def test_a_client_that_leaves_is_recorded(engine: StartEngine, tmp_path: Path) -> None:
    backend = await engine(hang)
    async with running(fleet(backend, telemetry=kept(tmp_path))) as gate:
        _, writer = await gate.ask()
        while not backend.received:
            await asyncio.sleep(0.002)
        writer.close()
        await asyncio.wait_for(backend.received[0].client_left.wait(), 5)
    (row,) = rows(tmp_path)
    assert (row["status"], row["attempts"]) == ("cancelled", 1)


async def test_the_simulator_replays_a_record(engine: StartEngine, tmp_path: Path) -> None:
    usage = {"prompt_tokens": 9, "completion_tokens": 2}
    backend = await engine(stream(["a", "b"], usage=usage))
    async with running(fleet(backend, telemetry=kept(tmp_path))) as gate:
        for _ in range(3):
            await gate.post(body=ASK, x_session_id="s")
    (file,) = tmp_path.glob("*.parquet")
    replayed, _ = stream_trace(file)
    records = list(replayed)
    assert [(r.input_tokens, r.output_tokens, r.model) for r in records] == [(9, 2, MODEL)] * 3
    assert len({r.session for r in records}) == 1


async def test_hashes_are_the_same_after_a_restart(engine: StartEngine, tmp_path: Path) -> None:
    backend = await engine(chat())
    for _ in range(2):
        async with running(fleet(backend, telemetry=kept(tmp_path))) as gate:
            await gate.post(x_tenant_id="acme")
    assert len({row["tenant"] for row in rows(tmp_path)}) == 1
    assert (tmp_path / SALT_FILE).stat().st_mode & 0o077 == 0, "the salt is for the owner only"


async def test_an_unwritable_directory_is_named(tmp_path: Path) -> None:
    (tmp_path / "taken").write_text("")
    config = load_config(fleet("http://127.0.0.1:9", telemetry=kept(tmp_path / "taken")))
    with pytest.raises(ConfigError, match="traffic record: cannot write"):
        build_app(config)


async def test_the_access_log_is_json_with_request_ids_and_no_content(
    engine: StartEngine, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO, "motley.access")
    backend = await engine(
        stream([SECRET], usage={"prompt_tokens": 9, "completion_tokens": 1}),
    )
    async with running(fleet(backend, server={"access_log": True})) as gate:
        await gate.post(body=ASK, x_request_id="r-1")
        await gate.post(body=b"{", x_request_id="r-2")
    records = [r for r in caplog.records if r.name == "motley.access"]
    first, second = (json.loads(JsonFormatter().format(record)) for record in records)
    assert (first["request_id"], first["status"], first["backend"]) == ("r-1", 200, "e0")
    assert (first["prompt_tokens"], first["output_tokens"]) == (9, 1)
    assert first["ttft_s"] > 0
    assert (second["request_id"], second["status"]) == ("r-2", 400)
    assert SECRET not in "".join(JsonFormatter().format(r) for r in caplog.records)


def test_a_json_line_carries_exceptions_and_odd_values() -> None:
    try:
        raise ValueError("bad")
    except ValueError:
        import sys

        record = logging.LogRecord("n", logging.ERROR, "f", 1, "%s broke", ("it",), sys.exc_info())
    record.path = Path("x")
    line = json.loads(JsonFormatter().format(record))
    assert line["message"] == "it broke"
    assert line["level"] == "error"
    assert line["path"] == "x"
    assert "ValueError: bad" in line["exception"]
