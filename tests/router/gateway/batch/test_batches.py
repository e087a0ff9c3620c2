"""The Batch API with OpenAI's own client: files in, answers out, whatever happens in between."""

from __future__ import annotations

import asyncio
import json
import sqlite3
import threading
from dataclasses import replace
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from openai import APIStatusError, AsyncOpenAI, NotFoundError

from router.gateway.batch import runner
from router.gateway.batch.output import append
from router.gateway.batch.store import Batch, Store, new_id
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, Gateway, Received, answer, chat, fleet, running
from tests.router.gateway.test_oidc import Provider, section


@pytest.fixture
def front_end() -> str:
    """Batches do not pass through either front end's hot path."""
    return "protocol"


def line(n: int, **body: Any) -> dict[str, Any]:
    message = {"role": "user", "content": f"question {n}"}
    return {
        "custom_id": f"c{n}",
        "method": "POST",
        "url": "/v1/chat/completions",
        "body": {"model": MODEL, "messages": [message], "max_tokens": 8} | body,
    }


def jsonl(*lines: dict[str, Any]) -> bytes:
    return b"".join(json.dumps(one).encode() + b"\n" for one in lines)


def client(gate: Gateway, key: str = "none") -> AsyncOpenAI:
    return AsyncOpenAI(base_url=f"{gate.url}/v1", api_key=key, max_retries=0)


async def begun(openai: AsyncOpenAI, content: bytes, window: Any = "24h") -> Any:
    file = await openai.files.create(file=("in.jsonl", content), purpose="batch")
    return await openai.batches.create(
        input_file_id=file.id,
        endpoint="/v1/chat/completions",
        completion_window=window,
        metadata={"run": "1"},
    )


async def over(openai: AsyncOpenAI, batch_id: str) -> Any:
    async with asyncio.timeout(30):
        while True:
            batch = await openai.batches.retrieve(batch_id)
            if batch.status in ("completed", "failed", "cancelled", "expired"):
                return batch
            await asyncio.sleep(0.02)


async def read(openai: AsyncOpenAI, file_id: str) -> dict[str, Any]:
    content = (await openai.files.content(file_id)).content
    return {one["custom_id"]: one for one in map(json.loads, content.splitlines())}


async def test_a_batch_from_upload_to_output(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    backend = await engine(chat("an answer"))
    gate = await gateway(backend, batch={"directory": str(tmp_path)})
    openai = client(gate)
    batch = await over(openai, (await begun(openai, jsonl(*(line(n) for n in range(30))))).id)
    assert (batch.status, batch.metadata) == ("completed", {"run": "1"})
    classes = {request.headers["x-motley-slo"] for request in backend.received}
    assert classes == {"bulk"}, "they give way to everybody else"
    counts = batch.request_counts
    assert (counts.total, counts.completed, counts.failed) == (30, 30, 0)
    output = await read(openai, batch.output_file_id)
    assert set(output) == {f"c{n}" for n in range(30)}
    response = output["c3"]["response"]
    assert response["status_code"] == 200
    assert response["body"]["choices"][0]["message"]["content"] == "an answer"
    assert {json.loads(got.body)["messages"][0]["content"] for got in backend.received} == {
        f"question {n}" for n in range(30)
    }
    assert [one.id async for one in await openai.batches.list()] == [batch.id]


async def test_failures_go_to_a_file_of_their_own(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    backend = await engine(answer(400, {"error": {"message": "too long"}}), chat())
    gate = await gateway(backend, batch={"directory": str(tmp_path), "concurrency": 1})
    openai = client(gate)
    marked = b"\xef\xbb\xbf" + jsonl(line(0), line(1))  # as PowerShell writes files
    batch = await over(openai, (await begun(openai, marked)).id)
    assert batch.status == "completed"
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 1)
    errors = await read(openai, batch.error_file_id)
    assert errors["c0"]["response"]["status_code"] == 400


@pytest.mark.parametrize(
    ("content", "code"),
    [
        (b"{", "invalid_json_line"),
        (b"", "empty_file"),
        (jsonl(line(0), line(0)), "duplicate_custom_id"),
        (jsonl(line(0, model="gpt-9")), "model_not_found"),
        (jsonl(line(0, stream=True)), "stream_not_supported"),
        (jsonl(line(0) | {"url": "/v1/embeddings"}), "mismatched_endpoint"),
    ],
)
async def test_a_file_that_is_wrong_fails_whole(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path, content: bytes, code: str
) -> None:
    backend = await engine(chat())
    gate = await gateway(backend, batch={"directory": str(tmp_path)})
    openai = client(gate)
    batch = await over(openai, (await begun(openai, content)).id)
    assert batch.status == "failed"
    assert batch.errors.data[0].code == code
    assert backend.received == []


async def test_never_more_at_once_than_allowed(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    now, most = 0, 0

    async def slow(request: Received) -> bool:
        nonlocal now, most
        now += 1
        most = max(most, now)
        await asyncio.sleep(0.02)
        now -= 1
        return bool(await chat()(request))

    gate = await gateway(await engine(slow), batch={"directory": str(tmp_path), "concurrency": 3})
    openai = client(gate)
    batch = await over(openai, (await begun(openai, jsonl(*(line(n) for n in range(12))))).id)
    assert batch.request_counts.completed == 12
    assert most == 3


async def test_cancelling_sends_nothing_more(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def held(request: Received) -> bool:
        arrived.set()
        await go_on.wait()
        return bool(await chat()(request))

    backend = await engine(held)
    gate = await gateway(backend, batch={"directory": str(tmp_path), "concurrency": 1})
    openai = client(gate)
    batch = await begun(openai, jsonl(*(line(n) for n in range(10))))
    await arrived.wait()
    assert (await openai.batches.cancel(batch.id)).status == "cancelling"
    go_on.set()
    batch = await over(openai, batch.id)
    assert batch.status == "cancelled"
    assert len(backend.received) == batch.request_counts.completed <= 2


async def test_a_restart_goes_on_where_it_stopped(engine: StartEngine, tmp_path: Path) -> None:
    stuck = asyncio.Event()

    async def hangs(request: Received) -> bool:
        stuck.set()
        await request.wait_for_leaving()
        return False

    backend = await engine(chat("first"), chat("first"), hangs)
    config = fleet(backend, batch={"directory": str(tmp_path), "concurrency": 1})
    async with running(config) as gate:
        batch = await begun(client(gate), jsonl(*(line(n) for n in range(5))))
        await stuck.wait()
    (output,) = [f for f in Store(str(tmp_path)).files("") if f.purpose == "batch_output"]
    path = tmp_path / "files" / output.id
    path.write_bytes(path.read_bytes() + b'{"custom_id": "c2", "torn')
    again = await engine(chat("second"))
    async with running(fleet(again, batch={"directory": str(tmp_path)})) as gate:
        openai = client(gate)
        batch = await over(openai, batch.id)
        assert batch.request_counts.completed == 5
        told = await read(openai, batch.output_file_id)
    texts = [
        told[f"c{n}"]["response"]["body"]["choices"][0]["message"]["content"] for n in range(5)
    ]
    assert texts == ["first"] * 2 + ["second"] * 3


async def test_what_is_left_at_the_end_of_the_window_expires(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    gate = await gateway(
        await engine(answer(503, b"")), batch={"directory": str(tmp_path), "concurrency": 2}
    )
    runner = gate.relay._rest.state.runtime.batches  # type: ignore[attr-defined]
    openai = client(gate)
    batch = await begun(openai, jsonl(line(0), line(1), line(2)), "1h")
    await asyncio.sleep(0.1)
    now_s = runner.unix_s()
    runner.unix_s = lambda: now_s + 3601.0
    batch = await over(openai, batch.id)
    assert batch.status == "expired"
    errors = await read(openai, batch.error_file_id)
    assert {one["error"]["code"] for one in errors.values()} == {"batch_expired"}
    assert len(errors) == 3


async def test_nobody_sees_what_is_another_s(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    keys = [
        {"name": name, "hash": "sha256:" + sha256(key.encode()).hexdigest()}
        for name, key in (("ann", "ka"), ("bob", "kb"))
    ]
    gate = await gateway(
        await engine(chat()), batch={"directory": str(tmp_path)}, access={"keys": keys}
    )
    ann, bob = client(gate, "ka"), client(gate, "kb")
    batch = await begun(ann, jsonl(line(0)))
    with pytest.raises(NotFoundError):
        await bob.batches.retrieve(batch.id)
    with pytest.raises(NotFoundError):
        await bob.files.content(batch.input_file_id)
    assert [one async for one in await bob.files.list()] == []
    assert (await over(ann, batch.id)).status == "completed"


@pytest.mark.parametrize(
    "name", ["..%2f..%2fetc%2fpasswd", "file-../../x", "%00", "batches.sqlite3"]
)
async def test_no_path_leaves_the_folder(gateway: StartGateway, tmp_path: Path, name: str) -> None:
    gate = await gateway("http://127.0.0.1:9", batch={"directory": str(tmp_path)})
    answered = await gate.get(f"/v1/files/{name}/content")
    assert answered.status_code == 404
    with pytest.raises(KeyError):
        gate.relay._rest.state.runtime.batches.store.path("../x")  # type: ignore[attr-defined]


async def test_a_file_in_use_stays_and_batches_may_be_off(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    off = await gateway("http://127.0.0.1:9")
    assert (await off.get("/v1/batches")).status_code == 501
    gate = await gateway(await engine(chat()), batch={"directory": str(tmp_path)})
    openai = client(gate)
    batch = await over(openai, (await begun(openai, jsonl(line(0)))).id)
    assert (await openai.files.delete(batch.input_file_id)).deleted
    with pytest.raises(NotFoundError):
        await openai.files.retrieve(batch.input_file_id)


async def test_processes_that_share_the_folder_send_every_request_once(
    engine: StartEngine, tmp_path: Path
) -> None:
    """Several workers, or an old gateway that still drains beside the new one: one of them works
    batches off, whoever is asked, and what is cancelled at another is cancelled."""
    arrived, go_on = asyncio.Event(), asyncio.Event()

    async def held(request: Received) -> bool:
        arrived.set()
        await go_on.wait()
        return bool(await chat()(request))

    backend = await engine(held)
    config = fleet(backend, batch={"directory": str(tmp_path), "concurrency": 1})
    async with running(config) as first, running(config) as second:
        one, other = client(first), client(second)
        kept = await begun(other, jsonl(*(line(n) for n in range(5))))
        await arrived.wait()
        dropped = await begun(other, jsonl(*(line(n) for n in range(10, 40))))
        assert (await other.batches.cancel(dropped.id)).status == "cancelling"
        await asyncio.sleep(1.5)  # both have looked
        assert len(backend.received) <= 2, "one of each batch at most, by one process"
        go_on.set()
        for asked in (one, other):
            assert (await over(asked, dropped.id)).status == "cancelled"
            batch = await over(asked, kept.id)
            assert batch.request_counts.completed == 5
            assert len(await read(asked, batch.output_file_id)) == 5
    assert len(backend.received) <= 6


async def test_who_shows_a_token_may_leave_before_the_batch_is_done(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    """A token is over long before a batch is: its holder keeps what tokens are granted."""
    provider = Provider()
    provider.add_key("k1")
    (tmp_path / "jwks").write_bytes(provider.jwks())
    access = section(str(tmp_path / "jwks"), grant={"models": [MODEL]})
    gate = await gateway(
        await engine(chat()), access=access, batch={"directory": str(tmp_path / "batches")}
    )
    ann = client(gate, provider.token(sub="ann"))
    batch = await over(ann, (await begun(ann, jsonl(line(0)))).id)
    assert (batch.request_counts.completed, batch.request_counts.failed) == (1, 0)


async def test_a_token_gets_no_rights_of_a_key_of_the_same_name(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    provider = Provider()
    provider.add_key("k1")
    (tmp_path / "jwks").write_bytes(provider.jwks())
    access = section(str(tmp_path / "jwks"), grant={"models": ["another"]})
    access["keys"] = [{"name": "ann", "hash": "sha256:" + sha256(b"key").hexdigest()}]
    batch = {"directory": str(tmp_path / "batches")}
    gate = await gateway(await engine(chat()), access=access, batch=batch)
    for key, done in ((provider.token(sub="ann"), (0, 1)), ("key", (1, 0))):
        ann = client(gate, key)
        counts = (await over(ann, (await begun(ann, jsonl(line(0)))).id)).request_counts
        assert (counts.completed, counts.failed) == done


async def test_a_folder_that_fails_for_a_while_only_delays(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    (tmp_path / "working.lock").mkdir()
    gate = await gateway(await engine(chat()), batch={"directory": str(tmp_path)})
    openai = client(gate)
    batch = await begun(openai, jsonl(line(0)))
    await asyncio.sleep(0.05)
    assert (await openai.batches.retrieve(batch.id)).status == "validating"
    (tmp_path / "working.lock").rmdir()
    assert (await over(openai, batch.id)).status == "completed"


async def test_a_batch_that_the_disk_fails_takes_no_room_from_the_others(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    gate = await gateway(await engine(chat()), batch={"directory": str(tmp_path), "concurrency": 1})
    openai = client(gate)
    with monkeypatch.context() as disk:
        disk.setattr(runner, "append", full)
        batch = await over(openai, (await begun(openai, jsonl(*(line(n) for n in range(3))))).id)
        assert (batch.status, batch.errors.data[0].code) == ("failed", "storage_failed")
    assert (await over(openai, (await begun(openai, jsonl(line(0)))).id)).status == "completed"


def test_a_full_disk_is_called_so_and_room_is_used_again(tmp_path: Path) -> None:
    store = Store(str(tmp_path))
    kept = Batch("batch-1", "", "/v1/embeddings", "file-1", "24h", 0, 3600)
    store.save(kept)
    (pages,) = store._db.execute("PRAGMA page_count").fetchone()
    store._db.execute(f"PRAGMA max_page_count = {pages}")
    with pytest.raises(sqlite3.Error, match="full"):
        store.save(replace(kept, metadata="long" * 10_000))
    store._db.execute("PRAGMA max_page_count = 1000000")
    store.save(replace(kept, status="completed"))
    assert store.batch("batch-1", "").status == "completed"
    store.close()


async def test_lists_come_in_pages(gateway: StartGateway, tmp_path: Path) -> None:
    gate = await gateway("http://127.0.0.1:9", batch={"directory": str(tmp_path)})
    openai = client(gate)
    made = [
        (await openai.files.create(file=(f"{n}", b"x"), purpose=purpose)).id
        for n, purpose in enumerate(("batch", "user_data", "batch", "batch", "batch"))
    ]
    newest_first = [made[4], made[3], made[2], made[0]]
    page = await openai.files.list(purpose="batch", limit=3)
    assert ([one.id for one in page.data], page.has_more) == (newest_first[:3], True)
    assert [one.id async for one in openai.files.list(purpose="batch", limit=1)] == newest_first
    assert [one.id async for one in openai.files.list(order="asc", limit=2)] == made
    batch = await begun(openai, b"{")
    assert [one.id async for one in openai.batches.list(limit=1)] == [batch.id]
    for wrong in ("limit=0", "limit=many", "order=up", "after=file-x"):
        answered = await gate.get(f"/v1/files?{wrong}")
        assert answered.status_code == 400, wrong
        assert wrong.partition("=")[0] in answered.json()["error"]["message"]


async def test_half_a_character_is_the_clients_mistake(
    gateway: StartGateway, tmp_path: Path
) -> None:
    gate = await gateway("http://127.0.0.1:9", batch={"directory": str(tmp_path)})
    file = await client(gate).files.create(file=("in.jsonl", b"{}"), purpose="batch")
    asked = {"input_file_id": file.id, "endpoint": "/v1/completions", "metadata": {"a": "\ud800"}}
    body, kind = json.dumps(asked).encode(), "application/json"
    answered = await gate.post("/v1/batches", body, content_type=kind)
    assert answered.status_code == 400
    assert "half a character" in answered.json()["error"]["message"]


async def test_who_is_told_of_no_room_has_begun_nothing(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Or one who tries again would have everything done, and paid, twice."""
    backend = await engine(chat())
    gate = await gateway(backend, batch={"directory": str(tmp_path)})
    openai = client(gate)

    def full(*_: object, **__: object) -> None:
        raise sqlite3.OperationalError("database or disk is full")

    with monkeypatch.context() as disk:
        disk.setattr(Store, "forget_batches", full)
        with pytest.raises(APIStatusError) as refused:
            await begun(openai, jsonl(line(0)))
        assert (refused.value.status_code, refused.value.code) == (507, "disk_full")
    assert [one async for one in await openai.batches.list()] == []


async def test_the_end_of_a_long_batch_keeps_nobody_waiting(
    engine: StartEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What is left may be all of it: it is written in one piece, beside the others' traffic."""
    store = Store(str(tmp_path))
    content = jsonl(*(line(n) for n in range(3_000)))
    file = store.add_file("", "in.jsonl", "batch", content, 0)
    kept = Batch(new_id("batch"), "", "/v1/chat/completions", file.id, "1h", 0, 3600)
    store.save(kept)
    store.close()
    written: list[tuple[bool, int]] = []

    def watched(path: Path, lines: bytes) -> None:
        in_loop = threading.current_thread() is threading.main_thread()
        written.append((in_loop, lines.count(b"\n") + 1))
        append(path, lines)

    monkeypatch.setattr(runner, "append", watched)
    async with running(fleet(await engine(chat()), batch={"directory": str(tmp_path)})) as gate:
        batch = await over(client(gate), kept.id)
        assert (batch.status, batch.request_counts.failed) == ("expired", 3_000)
        assert len(await read(client(gate), batch.error_file_id)) == 3_000
    assert written == [(False, 3_000)]
