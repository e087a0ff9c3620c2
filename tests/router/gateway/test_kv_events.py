"""KV events as engines send them, over real ZMQ: what they make of the policy's index."""

from __future__ import annotations

import asyncio
import json
import sys
from collections import deque
from collections.abc import AsyncIterator, Callable
from typing import Any

import msgspec
import pytest
import zmq
import zmq.asyncio

from router.domain.errors import BadInputError, ConfigError
from router.gateway.kv_events.follow import Follower
from router.gateway.kv_events.subscribe import Subscriber, load_zmq
from router.gateway.kv_events.wire import Cleared, Removed, Stored, read_batch
from tests.fakes import ask, outcome, spec
from tests.router.gateway.fakes import MODEL, FakeEngine, Received, chat, eventually, fleet, running

# vLLM's own structs: maps today, arrays before and in SGLang.


class _Map(msgspec.Struct, omit_defaults=True, tag=True):
    pass


class MapStored(_Map, tag="BlockStored"):
    block_hashes: list[Any]
    parent_block_hash: Any
    token_ids: list[int]
    block_size: int
    lora_id: int | None = None
    medium: str | None = None
    lora_name: str | None = None
    group_idx: int | None = None


class MapRemoved(_Map, tag="BlockRemoved"):
    block_hashes: list[Any]
    medium: str | None = None


class MapCleared(_Map, tag="AllBlocksCleared"):
    pass


class MapBatch(msgspec.Struct, omit_defaults=True):
    ts: float
    events: list[Any]
    data_parallel_rank: int | None = None


class _Array(msgspec.Struct, array_like=True, omit_defaults=True, tag=True):
    pass


class ArrayStored(_Array, tag="BlockStored"):
    block_hashes: list[Any]
    parent_block_hash: Any
    token_ids: list[int]
    block_size: int
    lora_id: int | None = None
    medium: str | None = None


class ArrayRemoved(_Array, tag="BlockRemoved"):
    block_hashes: list[Any]
    medium: str | None = None


class ArrayCleared(_Array, tag="AllBlocksCleared"):
    pass


class ArrayBatch(msgspec.Struct, array_like=True, omit_defaults=True):
    ts: float
    events: list[Any]
    data_parallel_rank: int | None = None


LAYOUTS = {
    "maps": (MapBatch, MapStored, MapRemoved, MapCleared),
    "arrays": (ArrayBatch, ArrayStored, ArrayRemoved, ArrayCleared),
}
BLOCK = 16


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("key", [7, b"\x01" * 32])
def test_both_layouts_say_the_same(layout: str, key: Any):
    batch, stored, removed, cleared = LAYOUTS[layout]
    events = [
        stored([key], None, list(range(BLOCK)), BLOCK),
        stored([key], None, list(range(BLOCK)), BLOCK, None, "CPU_PINNED"),
        removed([key], "GPU"),
        removed([key], "CPU_PINNED"),
        cleared(),
    ]
    payload = msgspec.msgpack.encode(batch(1.0, events, 0))
    told = [Stored((key,), None, BLOCK), Removed((key,)), Cleared()]
    assert list(read_batch(payload)) == told, "what lies in other memory is not on the card"


@pytest.mark.parametrize(
    "payload",
    [b"\xc1", msgspec.msgpack.encode(7), msgspec.msgpack.encode([1.0, [["BlockStored", 3]]])],
)
def test_what_is_no_batch_is_refused(payload: bytes):
    with pytest.raises(BadInputError, match="KV event"):
        list(read_batch(payload))


class Told:
    """Stands in for the dispatcher."""

    def __init__(self) -> None:
        self.stored: list[int] = []
        self.evicted: list[int] = []
        self.restarts = 0

    def cached(self, backend: str, now: float, **told: Any) -> None:
        self.stored += told["stored"]
        self.evicted += told["evicted"]

    def restarted(self, backend: str, now: float) -> None:
        self.restarts += 1


def chain(name: int, blocks: int, parent: int | None = None, first: int = 0) -> Stored:
    keys = tuple(1_000 * name + n for n in range(first, first + blocks))
    return Stored(keys, parent, BLOCK)


PROMPT = {"prompt_tokens": 512, "prefix_hashes": (71, 72), "prefix_block_tokens": 256}


def learned() -> tuple[Follower, Told]:
    """A follower that knows where a prompt of two text blocks ends: engine blocks 15 and 31."""
    follower = Follower("a", told := Told())
    follower.sent(ask("r", **PROMPT), 1.0)
    follower.heard([chain(1, 32)], 1.5)
    follower.heard([chain(1, 2, 1_031, 32)], 2.0)  # its answer
    follower.observe(outcome("a", request_id="r", prompt_tokens=512, output_tokens=33))
    assert follower.counts["learned"] == 1
    return follower, told


class TestFollowing:
    """What an engine says of tokens is brought to the text that they came from."""

    def test_an_eviction_is_one_of_the_text_that_ends_there(self):
        follower, told = learned()
        follower.heard([Removed((1_033, 1_032, 1_020))], 3.0)
        assert told.evicted == [], "no text ends in those"
        follower.heard([Removed((1_031,))], 3.0)
        assert told.evicted == [72]
        follower.heard([Removed((1_031, 1_015))], 4.0)
        assert told.evicted == [72, 71], "and nobody is told twice"

    def test_what_is_stored_again_is_held_again_whoever_sent_it(self):
        follower, told = learned()
        follower.heard([Removed((1_031,))], 3.0)
        follower.heard([Stored((1_031,), 1_030, BLOCK)], 4.0)
        assert (told.evicted, told.stored) == ([72], [72])

    def test_all_cleared_begins_anew(self):
        follower, told = learned()
        follower.heard([Cleared()], 3.0)
        assert told.restarts == 1
        follower.heard([Removed((1_031,))], 4.0)
        assert told.evicted == []

    def test_two_requests_alike_at_one_time_teach_nothing(self):
        follower = Follower("a", Told())
        follower.sent(ask("r", **PROMPT), 1.0)
        follower.heard([chain(1, 34), chain(2, 34)], 1.5)
        follower.observe(outcome("a", request_id="r", prompt_tokens=512, output_tokens=33))
        assert (follower.counts["learned"], follower.counts["ambiguous"]) == (0, 1)

    def test_but_others_beside_it_are_told_apart_by_their_lengths(self):
        follower = Follower("a", told := Told())
        follower.sent(ask("r", **PROMPT), 1.0)
        follower.heard([chain(1, 34), chain(2, 90), chain(3, 7)], 1.5)
        follower.observe(outcome("a", request_id="r", prompt_tokens=512, output_tokens=33))
        follower.heard([Removed((1_015, 2_015))], 2.0)
        assert told.evicted == [71]


class Engine:
    """Publishes as vLLM's ``ZmqEventPublisher`` does, replay included."""

    def __init__(self, context: zmq.asyncio.Context) -> None:
        self.pub, self.router = context.socket(zmq.PUB), context.socket(zmq.ROUTER)
        for socket in (self.pub, self.router):
            socket.linger = 0
        self.port = self.pub.bind_to_random_port("tcp://127.0.0.1")
        self.replay_port = self.router.bind_to_random_port("tcp://127.0.0.1")
        self.buffer: deque[tuple[int, bytes]] = deque(maxlen=100)
        self.next = 0
        self.serving = asyncio.create_task(self._serve())

    async def publish(self, *events: Any, heard: bool = True) -> None:
        payload = msgspec.msgpack.encode(MapBatch(1.0, list(events), 0))
        number = self.next
        self.next += 1
        self.buffer.append((number, payload))
        if heard:
            await self.pub.send_multipart((b"", number.to_bytes(8, "big"), payload))

    async def _serve(self) -> None:
        while True:
            client, _, start = await self.router.recv_multipart()
            for number, payload in self.buffer:
                if number >= int.from_bytes(start, "big"):
                    frames = (client, b"", number.to_bytes(8, "big"), payload)
                    await self.router.send_multipart(frames)
            end = (-1).to_bytes(8, "big", signed=True)
            await self.router.send_multipart((client, b"", end, b""))

    def close(self) -> None:
        self.serving.cancel()
        self.pub.close()
        self.router.close()


class Ear:
    """An engine, and a subscriber that is known to hear it."""

    def __init__(self, engine: Engine, subscriber: Subscriber, told: Told) -> None:
        self.engine, self.subscriber, self.told = engine, subscriber, told


@pytest.fixture(params=[True, False], ids=["replay", "no replay"])
async def ear(request: pytest.FixtureRequest) -> AsyncIterator[Ear]:
    context = zmq.asyncio.Context()
    engine = Engine(context)
    fields = {"kv_events": f"tcp://127.0.0.1:{engine.port}"}
    if request.param:
        fields["kv_replay"] = f"tcp://127.0.0.1:{engine.replay_port}"
    follower = Follower("a", told := Told())
    subscriber = Subscriber(spec("a", **fields), follower, lambda: 1.0, context)
    listening = asyncio.create_task(subscriber.run())
    heard = Ear(engine, subscriber, told)

    async def until_heard() -> None:
        while not follower.counts["cleared"]:
            await engine.publish(MapCleared())
            await asyncio.sleep(0.02)

    await asyncio.wait_for(until_heard(), 10)
    follower.counts.clear()
    subscriber.counts.clear()
    told.restarts = 0
    yield heard
    listening.cancel()
    engine.close()
    context.destroy(linger=0)


def stored(name: int, blocks: int = 1) -> MapStored:
    return MapStored([1_000 * name + n for n in range(blocks)], None, [0] * BLOCK, BLOCK)


async def test_events_are_heard_in_order(ear: Ear) -> None:
    for name in range(5):
        await ear.engine.publish(stored(name))
    counts = ear.subscriber.follower.counts
    await eventually(lambda: counts["stored"] == 5)
    assert not ear.subscriber.counts


async def test_a_gap_is_replayed_or_else_the_index_is_approximate_again(ear: Ear) -> None:
    counts = ear.subscriber.follower.counts
    await ear.engine.publish(stored(1))
    await eventually(lambda: counts["stored"] == 1)
    await ear.engine.publish(stored(2), heard=False)
    await ear.engine.publish(stored(3), heard=False)
    await ear.engine.publish(stored(4))
    if ear.subscriber._spec.kv_replay:
        await eventually(lambda: counts["stored"] == 4)
        assert ear.subscriber.counts == {"replayed": 1}
        assert ear.told.restarts == 0
    else:
        await eventually(lambda: ear.subscriber.counts["lost"] == 1)
        assert ear.told.restarts == 1


async def test_an_engine_that_starts_anew_is_noticed(ear: Ear) -> None:
    await ear.engine.publish(stored(1))
    await eventually(lambda: ear.subscriber.follower.counts["stored"] == 1)
    ear.engine.next = 0
    ear.engine.buffer.clear()
    await ear.engine.publish(stored(2))
    await eventually(lambda: ear.subscriber.counts["restarts"] == 1)
    assert ear.told.restarts == 1


async def test_what_cannot_be_read_is_counted_and_passed_over(ear: Ear) -> None:
    number = ear.engine.next.to_bytes(8, "big")
    ear.engine.next += 1
    await ear.engine.pub.send_multipart((b"", number, b"\xc1"))
    await ear.engine.pub.send_multipart((b"only", b"two"))
    await ear.engine.publish(stored(1))
    await eventually(lambda: ear.subscriber.follower.counts["stored"] == 1)
    assert ear.subscriber.counts == {"unreadable": 2}


async def test_the_policy_of_a_gateway_follows_what_its_engine_evicts() -> None:
    context = zmq.asyncio.Context()
    publisher = Engine(context)
    body = {"model": MODEL, "messages": [{"role": "user", "content": "word " * 900}]}
    prompt = 1_024
    blocks = [stored(1, prompt // BLOCK + 2)]

    async def answers(request: Received) -> bool:
        await publisher.publish(*blocks)
        await asyncio.sleep(0.2)
        return bool(await chat(prompt_tokens=prompt, completion_tokens=33)(request))

    fake = FakeEngine(answers)
    await fake.start()
    config = fleet(fake, policy={"name": "motley"})
    config["backends"][0] |= {
        "kv_events": f"tcp://127.0.0.1:{publisher.port}",
        "kv_replay": f"tcp://127.0.0.1:{publisher.replay_port}",
    }
    try:
        async with running(config) as gate:
            requests = []
            gate.relay.engine.tell_sent(lambda request, _: requests.append(request))
            dispatcher = gate.relay.engine.dispatcher
            policy, backend = dispatcher.policy, dispatcher.state.get("e0")

            async def told(name: str) -> bool:
                text = (await gate.get("/metrics")).text
                return f'motley_prefix_index_events_total{{backend="e0",event="{name}"}}' in text

            async with asyncio.timeout(10):
                while not await told("cleared"):
                    await publisher.publish(MapCleared())
                    await asyncio.sleep(0.05)
            assert (await gate.post(body=json.dumps(body).encode())).status_code == 200
            again = requests[0]
            assert policy.believed_cached(again, backend) > 800  # type: ignore[attr-defined]
            await eventually_true(lambda: told("learned"))
            await publisher.publish(MapRemoved(blocks[0].block_hashes))
            await eventually(lambda: policy.believed_cached(again, backend) == 0)  # type: ignore[attr-defined]
            assert await told("evicted")
            await publisher.publish(*blocks)
            await eventually(lambda: policy.believed_cached(again, backend) > 800)  # type: ignore[attr-defined]
    finally:
        await fake.stop()
        publisher.close()
        context.destroy(linger=0)


async def eventually_true(what: Callable[[], Any]) -> None:
    async with asyncio.timeout(10):
        while not await what():
            await asyncio.sleep(0.02)


def test_without_the_extra_it_says_which_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "zmq.asyncio", None)
    with pytest.raises(ConfigError, match=r"motley-router\[kv-events\]"):
        load_zmq()
