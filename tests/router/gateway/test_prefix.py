"""Fingerprints of prompt beginnings."""

from __future__ import annotations

from collections.abc import Sequence

from router.domain.request import Request
from router.domain.state import BackendView
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


class Curious:
    """A policy that takes the first candidate and keeps the request."""

    def __init__(self) -> None:
        self.seen: list[Request] = []

    def choose(
        self, request: Request, candidates: Sequence[BackendView], now: float
    ) -> BackendView:
        self.seen.append(request)
        return candidates[0]


async def test_the_policy_is_told(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(chat()))
    policy = gate.relay.engine.dispatcher._policy = Curious()
    prompt = b"once upon a time " * 400
    body = b'{"model":"%b","prompt":"%b"}' % (MODEL.encode(), prompt)
    await gate.post("/v1/completions", body)
    await gate.post("/v1/embeddings", body)
    generates, embeds = policy.seen
    assert len(generates.prefix_hashes) == len(prompt) // BLOCK_BYTES
    tokens = generates.prefix_block_tokens * len(generates.prefix_hashes)
    assert 0.8 * generates.prompt_tokens < tokens <= generates.prompt_tokens
    assert embeds.prefix_hashes == (), "nothing is cached between embeddings"
    assert embeds.max_tokens == 1
