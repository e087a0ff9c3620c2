"""What befalls a batch on its way: files that are damaged, rows that are lost, keys that end."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import time
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from openai import AuthenticationError, InternalServerError

from router.config.load import load_config
from router.gateway.batch.store import Store
from tests.router.gateway.batch.test_batches import begun, client, jsonl, line, over, read
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import Behaviour, FakeEngine, Received, chat, fleet, running


@pytest.fixture
def front_end() -> str:
    """Batches do not pass through either front end's hot path."""
    return "protocol"


async def interrupted(backend: FakeEngine, stuck: asyncio.Event, folder: Path) -> tuple[Any, Path]:
    """A batch of which three of five lines are answered when the gateway stops, and its output."""
    config = fleet(backend, batch={"directory": str(folder), "concurrency": 1})
    async with running(config) as gate:
        batch = await begun(client(gate), jsonl(*(line(n) for n in range(5))))
        await stuck.wait()
    store = Store(str(folder))
    (output,) = [f for f in store.files("") if f.purpose == "batch_output"]
    store.close()
    return batch, folder / "files" / output.id


def hanging(stuck: asyncio.Event) -> Behaviour:
    async def hangs(request: Received) -> bool:
        stuck.set()
        await request.wait_for_leaving()
        return False

    return hangs


@pytest.mark.parametrize(
    "damage",
    [
        b"\x00" * 300 + b"\n",
        b"[1]\n",
        b'{"custom_id":"\xff"}\n',
        b"[" * 5000 + b"\n",
        b'{"custom_id":1}\n{\n',
    ],
    ids=["zeros", "another document", "no UTF-8", "deep", "two lines"],
)
async def test_a_damaged_line_is_told_taken_out_and_done_again(
    engine: StartEngine, tmp_path: Path, damage: bytes, caplog: pytest.LogCaptureFixture
) -> None:
    """A client reads the file line by line: one that is none would stop it."""
    stuck = asyncio.Event()
    backend = await engine(chat("first"), chat("first"), chat("first"), hanging(stuck))
    batch, output = await interrupted(backend, stuck, tmp_path)
    lines = output.read_bytes().splitlines(keepends=True)
    output.write_bytes(lines[0] + damage + lines[2] + b'{"custom_id": "c3", "torn')
    again = await engine(chat("second"))
    async with running(fleet(again, batch={"directory": str(tmp_path)})) as gate:
        openai = client(gate)
        batch = await over(openai, batch.id)
        assert (batch.status, batch.request_counts.completed) == ("completed", 5)
        told = await read(openai, batch.output_file_id)
        file = await openai.files.retrieve(batch.output_file_id)
    assert file.bytes == output.stat().st_size
    texts = [
        told[f"c{n}"]["response"]["body"]["choices"][0]["message"]["content"] for n in range(5)
    ]
    assert texts == ["first", "second", "first", "second", "second"]
    numbers = [1 + n for n in range(1, 1 + damage.count(b"\n"))]
    assert [(one.code, one.line) for one in batch.errors.data] == [
        ("damaged_line", number) for number in numbers
    ]
    assert f"Line 2 of the file {batch.output_file_id} could not be read" in caplog.text
    assert sorted(f.name for f in output.parent.iterdir()) == sorted(
        (batch.input_file_id, output.name)
    )


async def test_lost_and_damaged_rows_keep_nobody_from_the_others(
    engine: StartEngine, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    stuck = asyncio.Event()
    backend = await engine(*[chat("first")] * 3, hanging(stuck))
    batch, output = await interrupted(backend, stuck, tmp_path)
    rows = sqlite3.connect(tmp_path / "batches.sqlite3")
    rows.execute("DELETE FROM files WHERE id = ?", (output.name,))
    rows.execute("INSERT INTO batches (id, owner, content) VALUES ('batch-0', '', '{\"id\": 5')")
    rows.commit()
    rows.close()
    again = await engine(chat("second"))
    async with running(fleet(again, batch={"directory": str(tmp_path)})) as gate:
        openai = client(gate)
        assert (await over(openai, batch.id)).request_counts.completed == 5
        another = await over(openai, (await begun(openai, jsonl(line(9)))).id)
        assert another.status == "completed"
        assert [one.id async for one in await openai.batches.list()] == [another.id, batch.id]
    assert caplog.text.count("a row cannot be read") == 1


async def test_a_content_that_is_gone_is_said_to_be(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    gate = await gateway(await engine(chat()), batch={"directory": str(tmp_path)})
    openai = client(gate)
    file = await openai.files.create(file=("f", b"x" * 1_000_000), purpose="user_data")
    assert len((await openai.files.content(file.id)).content) == 1_000_000
    (tmp_path / "files" / file.id).unlink()
    with pytest.raises(InternalServerError, match="cannot be read") as error:
        await openai.files.content(file.id)
    assert error.value.code == "storage_failed"


def key(name: str, **more: Any) -> dict[str, Any]:
    return {"name": name, "hash": "sha256:" + sha256(name.encode()).hexdigest(), **more}


@pytest.mark.parametrize("how", ["taken away", "expired"])
async def test_the_rest_of_a_batch_whose_key_ends_is_refused_line_by_line(
    engine: StartEngine, tmp_path: Path, how: str
) -> None:
    """As each request would be if it came now; what was answered stays, and a new key of the same
    holder finds all of it."""
    held, go_on = asyncio.Event(), asyncio.Event()

    async def holding(request: Received) -> bool:
        held.set()
        await go_on.wait()
        return bool(await chat("in time")(request))

    backend = await engine(chat("in time"), holding)
    folder = {"directory": str(tmp_path / "batches"), "concurrency": 1}
    path = tmp_path / "fleet.yaml"

    def allow(*keys: dict[str, Any]) -> None:
        path.write_text(json.dumps(fleet(backend, batch=folder, access={"keys": keys})))

    allow(key("ann"), key("bob"))
    async with running({}, load=lambda: load_config(path)) as gate:
        runtime = gate.relay._rest.state.runtime  # type: ignore[attr-defined]
        ann = client(gate, "ann")
        batch = await begun(ann, jsonl(*(line(n) for n in range(5))))
        await held.wait()
        over_s = int(time.time()) - 1
        allow(*([key("ann", expires_unix_s=over_s)] if how == "expired" else []), key("bob"))
        assert runtime.reloader.reload("test").ok
        go_on.set()
        with pytest.raises(AuthenticationError):
            await ann.batches.retrieve(batch.id)
        async with asyncio.timeout(10):
            while runtime.batches.live:
                await asyncio.sleep(0.01)
        allow(key("ann") | {"hash": key("new")["hash"]})
        assert runtime.reloader.reload("test").ok
        renewed = client(gate, "new")
        batch = await renewed.batches.retrieve(batch.id)
        assert batch.status == "completed"
        assert (batch.request_counts.completed, batch.request_counts.failed) == (2, 3)
        assert set(await read(renewed, batch.output_file_id)) == {"c0", "c1"}
        errors = await read(renewed, batch.error_file_id)
    assert set(errors) == {"c2", "c3", "c4"}
    for one in errors.values():
        assert one["response"]["status_code"] == 401
        assert one["response"]["body"]["error"]["code"] == "invalid_api_key"
    assert len(backend.received) == 2
