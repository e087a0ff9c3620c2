"""The fault matrix, processes and disks: SIGTERM, SIGKILL, reloads, dying workers, full disks."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
from collections import Counter
from collections.abc import Callable
from pathlib import Path
from typing import Any

import httpx
import pytest

from tests.fire.client import Seen, ask
from tests.fire.served import Served, served
from tests.router.gateway.conftest import StartEngine
from tests.router.gateway.fakes import (
    MODEL,
    STREAM_HEAD,
    FakeEngine,
    Received,
    chat,
    chunk,
    event,
    eventually,
    fleet,
    hang,
    stream,
)

pq = pytest.importorskip("pyarrow.parquet")
CLIENTS = [20, pytest.param(500, marks=pytest.mark.full)]
PATIENT = {"connect_timeout_s": 60.0, "first_byte_timeout_s": 60.0, "idle_timeout_s": 60.0}
"""Clients and engines share one process here, which may be late by itself."""
LINUX = pytest.mark.skipif(not Path("/proc/self/fd").exists(), reason="needs Linux's /proc")


async def slow(request: Received) -> bool | None:
    """Half a second an answer."""
    streams = b'"stream": true' in request.body
    if not streams:
        await asyncio.sleep(0.3)
    return await (stream(["a"] * 10, gap_s=0.05) if streams else chat())(request)


async def begins(request: Received) -> None:
    """Half an answer, and no more until the gateway leaves."""
    if b'"stream": true' in request.body:
        await request.send(STREAM_HEAD, chunk(event({"content": "a"})))
    await hang(request)


def begin(gate: Served, clients: int) -> asyncio.Future[list[Seen]]:
    return asyncio.gather(*(ask(gate, stream=bool(n % 2)) for n in range(clients)))  # type: ignore[arg-type]


def rows(directory: Path) -> Counter[str]:
    """Rows of the record by status."""
    found = [f for f in directory.glob("*.parquet") if f.is_file()]
    return Counter(row["status"] for f in found for row in pq.read_table(f).to_pylist())


@pytest.mark.parametrize("clients", CLIENTS)
async def test_sigterm_under_load_finishes_what_it_has(
    engine: StartEngine, tmp_path: Path, clients: int
) -> None:
    fake = await engine(slow)
    record = tmp_path / "record"
    keep = {"enabled": False, "record": {"directory": str(record)}}
    config = fleet(fake, telemetry=keep, reliability=PATIENT)
    async with served(config, tmp_path) as gate:
        asking = begin(gate, clients)
        await eventually(lambda: len(fake.received) == clients, within_s=30)
        gate.signal(signal.SIGTERM)
        seen = await asking
        assert Counter(one.end for one in seen) == {"ok": clients}
        assert await gate.ended() == 0
        assert not [line for line in gate.said if "Traceback" in line]
    assert rows(record) == {"completed": clients}, "the record is whole"


@pytest.mark.parametrize("clients", CLIENTS)
async def test_sigkill_under_load_is_no_success_for_anybody_and_no_end_for_the_record(
    engine: StartEngine, tmp_path: Path, clients: int
) -> None:
    fake = await engine(*[slow] * 10, begins)
    record = tmp_path / "record"
    keep = {"enabled": False, "record": {"directory": str(record)}}
    async with served(fleet(fake, telemetry=keep, reliability=PATIENT), tmp_path) as gate:
        first = await begin(gate, 10)
        assert Counter(one.end for one in first) == {"ok": 10}
        await asyncio.sleep(1.3)  # past the next flush
        asking = begin(gate, clients)
        await eventually(lambda: len(fake.received) == clients + 10, within_s=30)
        gate.signal(signal.SIGKILL)
        ends = Counter(one.end for one in await asking)
        assert set(ends) <= {"cut", "dropped"}, "nobody takes it for a whole answer"
        await eventually(lambda: all(r.client_left.is_set() for r in fake.received[-clients:]))
    fake.script = [slow]
    async with served(fleet(fake, telemetry=keep), tmp_path) as gate:
        assert rows(record) == {"completed": 10}, "what was flushed is there after a restart"
        assert {one.end for one in await begin(gate, 4)} == {"ok"}


@pytest.mark.parametrize("clients", CLIENTS)
async def test_reloads_under_load_drop_nothing(
    engine: StartEngine, tmp_path: Path, clients: int
) -> None:
    one, two = await engine(slow), await engine(slow)
    async with served(fleet(one, reliability=PATIENT), tmp_path) as gate:
        asking = [begin(gate, clients)]
        for n, members in enumerate([(one, two), (two,), (one, two), (one,)]):
            config = fleet(*members, reliability=PATIENT) | {"server": {"port": 0}}
            for entry, member in zip(config["backends"], members, strict=True):
                entry["name"] = "one" if member is one else "two"
            (tmp_path / "fleet.yaml").write_text("{" if n == 1 else json.dumps(config))
            gate.signal(signal.SIGHUP)
            await asyncio.sleep(0.15)
            asking.append(begin(gate, clients))
        seen = [one for batch in asking for one in await batch]
        assert Counter(one.end for one in seen) == {"ok": 5 * clients}
        assert two.received
        gate.signal(signal.SIGTERM)
        assert await gate.ended() == 0


@LINUX
@pytest.mark.parametrize("clients", CLIENTS)
async def test_a_worker_that_dies_takes_its_own_requests_and_no_others(
    engine: StartEngine, tmp_path: Path, clients: int
) -> None:
    fake = await engine(slow)
    config = fleet(fake, server={"workers": 2}, reliability=PATIENT)
    async with served(config, tmp_path) as gate:
        await eventually(lambda: len(gate.workers()) == gate.listening() == 2, 30)
        asking = begin(gate, clients)
        await eventually(lambda: len(fake.received) == clients, within_s=30)
        victim = gate.workers()[0]
        os.kill(victim, signal.SIGKILL)
        ends = Counter(one.end for one in await asking)
        assert ends.total() == clients
        assert set(ends) <= {"ok", "cut", "dropped"}
        assert ends["ok"], "the other worker's"
        await eventually(lambda: len(gate.workers()) == 2 and victim not in gate.workers(), 30)
        assert Counter(one.end for one in await begin(gate, 10)) == {"ok": 10}
        gate.signal(signal.SIGTERM)
        assert await gate.ended() == 0


def no_file_over(size: int) -> Callable[[], None]:
    """Writing beyond ``size`` bytes fails, as on a disk that is full."""

    def limit() -> None:
        signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
        resource.setrlimit(resource.RLIMIT_FSIZE, (size, size))

    return limit


async def batched(client: httpx.AsyncClient, count: int) -> str:
    """How a batch of so many requests ends."""
    ask: dict[str, Any] = {"method": "POST", "url": "/v1/chat/completions"}
    ask["body"] = {"model": MODEL, "messages": [{"role": "user", "content": "a"}]}
    lines = b"".join(
        json.dumps({"custom_id": str(n), **ask}).encode() + b"\n" for n in range(count)
    )
    form = {"data": {"purpose": "batch"}, "files": {"file": ("b.jsonl", lines)}}
    kept = (await client.post("/v1/files", **form)).json()  # type: ignore[arg-type]
    wanted = {"input_file_id": kept["id"], "endpoint": "/v1/chat/completions"}
    batch = (await client.post("/v1/batches", json=wanted | {"completion_window": "24h"})).json()
    for _ in range(600):
        batch = (await client.get(f"/v1/batches/{batch['id']}")).json()
        if batch["status"] in ("failed", "completed", "expired"):
            break
        await asyncio.sleep(0.05)
    assert batch["status"] != "failed" or "cannot store" in json.dumps(batch["errors"])
    return str(batch["status"])


async def told_of(gate: Served) -> float:
    """Rows of the record that were kept or dropped, by the gateway's own word."""
    names = ("motley_record_dropped_total{", "motley_recorded_requests_total")
    page = await gate.get("/metrics")
    return sum(float(x.split()[-1]) for x in page.splitlines() if x.startswith(names))


@LINUX
async def test_a_full_disk_costs_records_and_never_a_request(
    engine: StartEngine, tmp_path: Path
) -> None:
    """Record, decision log, history of plans and batches share one disk of 128 KiB a file."""
    fake: FakeEngine = await engine(chat("a" * 3000))
    config: dict[str, Any] = fleet(
        fake,
        telemetry={"enabled": False, "record": {"directory": str(tmp_path / "record")}},
        planner={"enabled": True, "interval_s": 0.2, "history": str(tmp_path / "plans.sqlite")},
        batch={"directory": str(tmp_path / "batch")},
        server={"decision_log": str(tmp_path / "log.jsonl")},
    )
    async with served(config, tmp_path, before=no_file_over(128 * 1024)) as gate:
        for _ in range(4):
            assert {one.end for one in await begin(gate, 60)} == {"ok"}
            await asyncio.sleep(0.6)
        line = {"custom_id": "1", "method": "POST", "url": "/v1/chat/completions"}
        line["body"] = {"model": MODEL, "messages": [{"role": "user", "content": "a" * 200_000}]}
        async with httpx.AsyncClient(base_url=gate.url, timeout=20) as client:
            refused = await client.post(
                "/v1/files",
                data={"purpose": "batch"},
                files={"file": ("b.jsonl", json.dumps(line).encode())},
            )
            assert refused.status_code == 507, refused.text
            assert refused.json()["error"]["code"] == "disk_full"
            assert (await client.get("/v1/files")).json()["data"] == [], "no half file is kept"
            assert await batched(client, 60) == "failed", "its output does not fit"
            assert await batched(client, 2) == "completed", "and others go on"
        async with asyncio.timeout(20):  # what is lost is counted when it is written
            while await told_of(gate) < 240:
                await asyncio.sleep(0.1)
        assert any("decision log" in said and "ends here" in said for said in gate.said)
        assert {one.end for one in await begin(gate, 4)} == {"ok"}
        gate.signal(signal.SIGTERM)
        assert await gate.ended() == 0
