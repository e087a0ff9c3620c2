"""Every target holds on its seeds and on plain mutations; ``full`` lets atheris look for more."""

from __future__ import annotations

import random
from importlib.util import find_spec

import pytest

from tests.fuzz.__main__ import fuzz
from tests.fuzz.targets import TARGETS, seeds

FOUND: dict[str, list[bytes]] = {
    "answer": [b"\xffHTTP/1.1 006 X\r\n\r\n{}"],
    "config": [b"{backends: [{url: {a: b}}]}:\n/a: b\n"],
    "batch": [b'{"custom_id":"0\x8e"}\n'],
    "body": [b'{"model": "m", "max_tokens":"5, "stream": true}'],
    "stream": [b'\x00data: {"error": "\xd9"}\n\n'],
}
"""What fuzzing once found; it must not come back."""


def mutated(rng: random.Random, data: bytes) -> bytes:
    raw = bytearray(data)
    for _ in range(rng.randint(1, 6)):
        at = rng.randrange(len(raw) + 1)
        kind = rng.randrange(4)
        if kind == 0:
            raw[at : at + 1] = bytes([rng.randrange(256)])
        elif kind == 1:
            del raw[at : at + rng.randint(1, 9)]
        elif kind == 2:
            raw[at:at] = rng.choice([b"\n", b'"', b"{", b"]", b"\x00", b"\xff", b"1e999", b"NaN"])
        else:
            raw[at:at] = raw[: rng.randint(0, len(raw))]
    return bytes(raw)


@pytest.mark.parametrize("name", TARGETS)
def test_seeds_and_mutations(name: str) -> None:
    rng, target = random.Random(name), TARGETS[name]
    for seed in [*seeds(name), *FOUND.get(name, [])]:
        target.run(seed)
        for _ in range(150):
            target.run(mutated(rng, seed))


@pytest.mark.full
@pytest.mark.timeout(300)
@pytest.mark.skipif(find_spec("atheris") is None, reason="needs atheris")
@pytest.mark.parametrize("name", TARGETS)
def test_atheris_finds_nothing(name: str) -> None:
    fine, told = fuzz(name, 10)
    assert fine, told[-4000:]
