"""Zero loss: every request ends once, and all who count say the same.

Mixed traffic over engines that fail in every way, clients that leave at any time, keys at their
limits and bodies that make no sense. Afterwards four books are laid side by side: what the clients
saw, the gateway's counters, the rows of the traffic record, and what the engines were sent.
"""

from __future__ import annotations

import asyncio
import random
from collections import Counter
from dataclasses import dataclass, field
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest

from tests.fire.census import nothing_left_behind
from tests.fire.client import Seen, body_of, read, request_of
from tests.fire.faults import PLAIN, STREAMED
from tests.fire.test_engine_faults import counts, well
from tests.router.gateway.fakes import FakeEngine, Gateway, Received, eventually, fleet, running

pq = pytest.importorskip("pyarrow.parquet")

AT_ONCE = 48
AT_THE_DOOR = {"rejected:rate_limit_exceeded", "rejected:concurrency_limit_exceeded"}
ENGINES = 5
SICK = {
    streamed: [one for one in table.values() if one.behaviour is not None and not one.completed]
    for streamed, table in ((False, PLAIN), (True, STREAMED))
}


def moody(rng: random.Random, share: float) -> Any:
    """An engine that fails in this share of its answers, each time in another way."""

    async def behave(request: Received) -> bool | None:
        await asyncio.sleep(rng.uniform(0.0, 0.01))
        if rng.random() >= share:
            return await well(request)
        fault = rng.choice(SICK[b'"stream": true' in request.body])
        assert fault.behaviour is not None
        return await fault.behaviour(request)

    return behave


@dataclass
class Ledger:
    """What the clients saw, by request id; ``None`` for those that left."""

    ends: dict[str, Seen | None] = field(default_factory=dict)

    def of(self, *words: str) -> set[str]:
        """Ids of the requests that ended in one of these ways: ok, error, cut, left."""
        return {name for name, seen in self.ends.items() if _word(seen) in words}


def _word(seen: Seen | None) -> str:
    if seen is None:
        return "left"
    if seen.end == "ok":
        return "ok"
    return "cut" if not seen.whole else "error"


async def one(gate: Gateway, ledger: Ledger, number: int, rng: random.Random) -> None:
    """One request of some kind."""
    name = f"r{number}"
    streamed, key = rng.random() < 0.6, rng.choice(["fast", "fast", "fast", "tight"])
    model = {} if rng.random() < 0.97 else {"model": "nobody-serves-this"}
    body = body_of(stream=streamed, **model)
    if rng.random() < 0.02:
        body = body[:-5]
    leave_after_s = rng.uniform(0.0, 0.05) if rng.random() < 0.15 else 60.0
    reader, writer = await gate.connect()
    writer.write(request_of(body, ("x-request-id", name), ("authorization", f"Bearer {key}")))
    came = bytearray()
    try:
        async with asyncio.timeout(leave_after_s):
            while data := await reader.read(65_536):
                came += data
        ledger.ends[name] = read(bytes(came))
    except TimeoutError:
        ledger.ends[name] = None
    except ConnectionError:
        ledger.ends[name] = read(bytes(came))
    finally:
        writer.close()


def digest(key: str) -> str:
    return f"sha256:{sha256(key.encode()).hexdigest()}"


def configuration(engines: list[FakeEngine], record: Path) -> dict[str, Any]:
    keys = [
        {"name": "fast", "hash": digest("fast")},
        {"name": "tight", "hash": digest("tight"), "requests_per_minute": 60, "max_concurrent": 8},
    ]
    return fleet(
        *engines,
        policy={"name": "motley", "seed": 1},
        telemetry={"enabled": False, "record": {"directory": str(record)}},
        access={"keys": keys},
        hedging={"enabled": True},
        reliability={
            "first_byte_timeout_s": 0.5,
            "idle_timeout_s": 0.5,
            "queue_timeout_s": 2.0,
            "breaker": {"failure_threshold": 4, "open_s": 0.1, "max_open_s": 0.3},
            "continuation": {"enabled": True},
        },
    )


@pytest.mark.parametrize(
    ("requests", "seed"),
    [(800, 1), pytest.param(20_000, 2, marks=[pytest.mark.full, pytest.mark.timeout(1200)])],
)
async def test_four_books_agree(front_end: str, requests: int, seed: int, tmp_path: Path) -> None:
    """20 000 requests are four hours of traffic at 1.4 a second, in compressed time."""
    rng, ledger = random.Random(seed), Ledger()
    engines = [
        FakeEngine(moody(random.Random(seed * 10 + n), 0.02 * n * n)) for n in range(ENGINES)
    ]
    slots = asyncio.Semaphore(AT_ONCE)

    async def limited(number: int) -> None:
        async with slots:
            await one(gate, ledger, number, rng)

    async with nothing_left_behind():
        for engine in engines:
            await engine.start()
        async with running(configuration(engines, tmp_path), front_end) as gate:
            await asyncio.gather(*(limited(n) for n in range(requests)))
            await eventually(lambda: gate.relay.engine.live == 0)
            gate.assert_at_rest()
            hedging = gate.relay.engine.dispatcher.hedging
            assert hedging is not None
            books = {**gate.books, "hedged": hedging.sent}
            answered = await counts(gate, "motley_requests_total", "code")
            attempts = await counts(gate, "motley_attempts_total", "status")
        for engine in engines:
            await engine.stop()
        gate.relay = None  # type: ignore[assignment]
    rows = [r for f in tmp_path.glob("*.parquet") for r in pq.read_table(f).to_pylist()]
    compare(ledger, requests, books, answered, attempts, rows, engines)


def compare(  # noqa: PLR0917
    ledger: Ledger,
    requests: int,
    books: dict[str, int],
    answered: Counter[str],
    attempts: Counter[str],
    rows: list[dict[str, Any]],
    engines: list[FakeEngine],
) -> None:
    """Lay the books side by side."""
    # Every request ended for its client in one way, and every way occurred.
    assert len(ledger.ends) == requests
    assert all(ledger.of(word) for word in ("ok", "error", "cut", "left"))
    status = {row["request_id"]: row["status"] for row in rows}
    assert len(status) == len(rows), "no request has two rows"
    # Whoever was understood has a row; a row says what the client saw.
    for name, seen in ledger.ends.items():
        found = status.get(name)
        match _word(seen):
            case "ok":
                assert found == "completed", (name, found)
            case "cut":
                assert found == "failed", (name, found)
            case "error":
                assert seen is not None
                malformed = seen.status == 400
                assert (found is None) if malformed else found is not None, (name, seen.end)
                known = found is None or found == "failed" or found.startswith("rejected:")
                assert known, (name, seen.end, seen.body[-300:], found)
    # Who left was cancelled, unless its answer was on its way already.
    assert "cancelled" in {status.get(name) for name in ledger.of("left")}
    kinds = Counter(told.partition(":")[0] for told in status.values())
    at_the_door = sum(told in AT_THE_DOOR for told in status.values())
    # The gateway's books, its counters and the record agree to the last request.
    assert kinds["completed"] == books["completed"] == attempts["completed"]
    assert kinds["failed"] == books["failed"]
    assert kinds["cancelled"] == books["cancelled"] == attempts["cancelled"]
    assert kinds["rejected"] - at_the_door == books["rejected"]
    # The other 429s are an engine's own, after every engine was tried; who left saw none of it.
    passed_on = {name for name in status if status[name] == "failed"}
    told_so = {name for name in passed_on if (seen := ledger.ends[name]) and seen.status == 429}
    unseen = passed_on & ledger.of("left")
    assert len(told_so) <= answered["429"] - at_the_door <= len(told_so | unseen)
    assert books["arrived"] == len(rows) - at_the_door
    assert answered.total() == len(rows) + answered["400"]
    for code, seen_by_clients in Counter(str(s.status) for s in ledger.ends.values() if s).items():
        assert seen_by_clients <= answered[code] <= seen_by_clients + len(ledger.of("left")), code
    # Engines were sent what the gateway says; only who left at once may never have got there.
    asked = [{r.headers["x-request-id"] for r in engine.received} for engine in engines]
    reached = sum(map(len, asked))
    # A second attempt that another one beat has no outcome of its own.
    most = attempts.total() + books["hedged"]
    assert attempts.total() - kinds["cancelled"] <= reached <= most
