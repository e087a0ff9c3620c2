"""What one key may have stored is limited, and what is accepted is still answered."""

from __future__ import annotations

import asyncio
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from openai import BadRequestError, PermissionDeniedError

from router.gateway.batch import runner
from tests.router.gateway.batch.test_batches import begun, client, jsonl, line, over
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import Received, chat


@pytest.fixture
def front_end() -> str:
    """Batches do not pass through either front end's hot path."""
    return "protocol"


def two_keys(folder: Path, **batch: Any) -> dict[str, Any]:
    keys = [
        {"name": name, "hash": "sha256:" + sha256(key.encode()).hexdigest()}
        for name, key in (("ann", "ka"), ("bob", "kb"))
    ]
    return {"batch": {"directory": str(folder), **batch}, "access": {"keys": keys}}


async def test_a_key_stores_so_many_files_and_no_more(
    gateway: StartGateway, tmp_path: Path
) -> None:
    gate = await gateway("http://127.0.0.1:9", **two_keys(tmp_path, max_files_per_key=2))
    ann, bob = client(gate, "ka"), client(gate, "kb")
    kept = [await ann.files.create(file=("f", b"x"), purpose="user_data") for _ in range(2)]
    with pytest.raises(PermissionDeniedError, match=r"2 files.*max_files_per_key") as refused:
        await ann.files.create(file=("f", b"x"), purpose="user_data")
    assert refused.value.code == "storage_quota_exceeded"
    assert len(list((tmp_path / "files").iterdir())) == 2
    await bob.files.create(file=("f", b"x"), purpose="user_data")
    await ann.files.delete(kept[0].id)
    await ann.files.create(file=("f", b"x"), purpose="user_data")


async def test_a_key_stores_so_many_bytes_and_no_more(
    gateway: StartGateway, tmp_path: Path
) -> None:
    most = 1000 / 1024**3
    gate = await gateway("http://127.0.0.1:9", **two_keys(tmp_path, max_gib_per_key=most))
    ann = client(gate, "ka")
    first = await ann.files.create(file=("f", b"x" * 600), purpose="user_data")
    with pytest.raises(PermissionDeniedError, match=r"max_gib_per_key"):
        await ann.files.create(file=("f", b"x" * 600), purpose="user_data")
    await ann.files.delete(first.id)
    await ann.files.create(file=("f", b"x" * 600), purpose="user_data")


async def test_who_has_no_room_for_its_answers_begins_no_batch(
    gateway: StartGateway, tmp_path: Path
) -> None:
    gate = await gateway("http://127.0.0.1:9", **two_keys(tmp_path, max_files_per_key=2))
    with pytest.raises(PermissionDeniedError, match="a batch needs 2"):
        await begun(client(gate, "ka"), jsonl(line(0)))


async def test_batches_under_way_have_their_room_kept(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    """Or two of them would wait for each other's files to go."""
    go_on = asyncio.Event()

    async def held(request: Received) -> bool:
        await go_on.wait()
        return bool(await chat()(request))

    gate = await gateway(await engine(held), **two_keys(tmp_path, max_files_per_key=5))
    ann = client(gate, "ka")
    first = await begun(ann, jsonl(line(0)))
    with pytest.raises(PermissionDeniedError, match="a batch needs 2"):
        await begun(ann, jsonl(line(0)))
    go_on.set()
    assert (await over(ann, first.id)).status == "completed"


async def test_so_many_batches_at_once(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path
) -> None:
    go_on = asyncio.Event()

    async def held(request: Received) -> bool:
        await go_on.wait()
        return bool(await chat()(request))

    gate = await gateway(await engine(held), **two_keys(tmp_path, max_open_per_key=2))
    ann, bob = client(gate, "ka"), client(gate, "kb")
    batches = [await begun(ann, jsonl(line(0))) for _ in range(2)]
    with pytest.raises(PermissionDeniedError, match=r"max_open_per_key") as refused:
        await begun(ann, jsonl(line(0)))
    assert refused.value.code == "too_many_batches"
    await begun(bob, jsonl(line(0)))
    go_on.set()
    for batch in batches:
        assert (await over(ann, batch.id)).status == "completed"
    await begun(ann, jsonl(line(0)))


async def test_a_batch_whose_answers_fill_the_quota_waits_for_room(
    engine: StartEngine, gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand small questions may have long answers: none is sent that could not be kept, and
    none is dropped."""
    monkeypatch.setattr(runner, "LOOK_S", 0.02)
    backend = await engine(chat("a" * 1000))
    setup = two_keys(tmp_path, max_gib_per_key=40_000 / 1024**3, concurrency=1)
    gate = await gateway(backend, **setup)
    ann = client(gate, "ka")
    other = await ann.files.create(file=("f", b"x" * 15_000), purpose="user_data")
    batch = await begun(ann, jsonl(*(line(n) for n in range(40))))
    async with asyncio.timeout(10):
        while not (batch := await ann.batches.retrieve(batch.id)).errors:
            await asyncio.sleep(0.01)
    assert (batch.status, batch.errors.data[0].code) == ("in_progress", "storage_quota_exceeded")
    sent = len(backend.received)
    assert sent == runner.SAVE_EVERY
    await asyncio.sleep(0.1)
    assert len(backend.received) == sent
    await ann.files.delete(other.id)
    batch = await over(ann, batch.id)
    assert (batch.status, batch.request_counts.completed) == ("completed", 40)
    assert batch.errors is None, "it waits no more"


async def test_batches_that_are_over_do_not_pile_up(
    gateway: StartGateway, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    gate = await gateway("http://127.0.0.1:9", **two_keys(tmp_path, max_files_per_key=8))
    ann = client(gate, "ka")
    batches = []
    for _ in range(10):
        batch = await begun(ann, b"{")
        batches.append((await over(ann, batch.id)).id)
        await ann.files.delete(batch.input_file_id)
    assert [one.id async for one in ann.batches.list()] == batches[:1:-1]


@pytest.mark.parametrize(
    "metadata",
    [{f"k{n}": "" for n in range(17)}, {"k" * 65: ""}, {"k": "v" * 513}],
    ids=["pairs", "name", "value"],
)
async def test_metadata_are_as_long_as_openai_allows(
    gateway: StartGateway, tmp_path: Path, metadata: dict[str, str]
) -> None:
    gate = await gateway("http://127.0.0.1:9", batch={"directory": str(tmp_path)})
    openai = client(gate)
    file = await openai.files.create(file=("in.jsonl", b"{}"), purpose="batch")
    asked = {"input_file_id": file.id, "completion_window": "24h"}
    with pytest.raises(BadRequestError, match="metadata"):
        await openai.batches.create(endpoint="/v1/completions", metadata=metadata, **asked)
    most = {f"{n:064}": "v" * 512 for n in range(16)}
    kept = await openai.batches.create(endpoint="/v1/completions", metadata=most, **asked)
    assert kept.metadata == most
