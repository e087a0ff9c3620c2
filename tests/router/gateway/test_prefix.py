"""Fingerprints of prompt beginnings."""

from __future__ import annotations

from router.gateway.prefix import BLOCK_BYTES, MAX_BLOCKS, prefix_hashes
from router.gateway.wire import routing_fields
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, chat


def hashes(text: bytes) -> tuple[int, ...]:
    return prefix_hashes(memoryview(text))


def test_one_hash_a_whole_block() -> None:
    assert hashes(b"x" * (BLOCK_BYTES - 1)) == ()
    assert len(hashes(b"x" * (3 * BLOCK_BYTES + 5))) == 3
    assert len(hashes(b"x" * (2 * MAX_BLOCKS * BLOCK_BYTES))) == MAX_BLOCKS


def test_equal_beginnings_have_equal_hashes_as_far_as_they_are_equal() -> None:
    one = b"s" * BLOCK_BYTES + b"a" * BLOCK_BYTES + b"t" * BLOCK_BYTES
    two = b"s" * BLOCK_BYTES + b"b" * BLOCK_BYTES + b"t" * BLOCK_BYTES
    first, second = hashes(one), hashes(two)
    assert first[0] == second[0]
    assert first[1] != second[1]
    assert first[2] != second[2], "a hash stands for everything before it"


def test_the_prompt_is_what_is_compared_not_its_place_in_the_body() -> None:
    one = routing_fields(b'{"model":"m","user":"u","messages": [{"content":"hi"}],"n":1}')
    two = routing_fields(b'{"messages":[{"content":"hi"}],"model":"m"}')
    assert one.prompt_text() == two.prompt_text() == b'[{"content":"hi"}]'
    assert routing_fields(b'{"model":"m","prompt":"hi"}').prompt_text() == b'"hi"'
    assert routing_fields(b'{"model":"m"}').prompt_text() == b""


async def test_a_conversation_returns_to_where_it_is_cached(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(*[await engine(chat()) for _ in range(4)], policy={"name": "motley"})
    body = b'{"model":"%b","prompt":"%b"}' % (MODEL.encode(), b"once upon a time " * 4_000)
    backends = {
        (await gate.post("/v1/completions", body)).headers["x-motley-backend"] for _ in range(6)
    }
    assert len(backends) == 1
