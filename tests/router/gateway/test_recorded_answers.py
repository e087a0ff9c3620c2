"""What real engines answered, played back: clients see one shape of error, and true answers whole.

The recordings (vLLM 0.32, SGLang 0.5.23, llama.cpp, ``transformers serve``) lie outside the
repository; without them the tests are skipped. The quirks themselves also have tests of their own
that need no recording (``test_problems``, ``test_retries``, ``test_timeouts``).
"""

from __future__ import annotations

import json
import os
import re
from pathlib import Path

import pytest

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import REQUEST, STREAM_HEAD, Received, chunk

SHARED = os.environ.get("MOTLEY_SHARED", Path(__file__).parents[4] / "shared")
SAMPLES = Path(SHARED) / "samples"
ENGINES = ("vllm", "sglang", "llamacpp", "transformers_serve")
PARTS = re.compile(rb"HTTP/1\.1 (\d{3})[^\r\n]*\r?\n(.*?)\r?\n\r?\n(.*)", re.DOTALL)
KINDS = ("err_*", "chat*", "completion*", "responses*", "messages*", "embeddings*", "tokenize*")

pytestmark = pytest.mark.skipif(not SAMPLES.is_dir(), reason=f"no recordings at {SAMPLES}")


def recorded(path: Path) -> tuple[int, bool, bytes] | None:
    """Status, whether it is a stream, and body; ``None`` if the engine gave no answer at all."""
    raw = re.split(rb"\n\n?## http_code=", path.read_bytes())[0]
    found = PARTS.search(raw)
    if found is None:
        return None
    streamed = b"text/event-stream" in found[2].lower()
    body = found[3] if streamed else found[3].rstrip(b"\n")
    return int(found[1]), streamed, body


def playing(status: int, streamed: bool, body: bytes):  # type: ignore[no-untyped-def]
    async def behave(request: Received) -> bool:
        if streamed:
            await request.send(STREAM_HEAD, chunk(body) if body else b"", b"0\r\n\r\n")
        else:
            head = f"HTTP/1.1 {status} X\r\ncontent-length: {len(body)}\r\n"
            await request.send(head.encode(), b"content-type: application/json\r\n\r\n", body)
        return True

    return behave


@pytest.mark.parametrize("engine_name", ENGINES)
async def test_every_recorded_answer(
    engine: StartEngine, gateway: StartGateway, engine_name: str
) -> None:
    paths = sorted(path for kind in KINDS for path in (SAMPLES / engine_name).glob(kind))
    backend = await engine(playing(200, False, b"{}"))
    gate = await gateway(
        backend, reliability={"max_retries": 0, "breaker": {"failure_threshold": 1000}}
    )
    checked = 0
    async with gate.client() as client:
        for path in paths:
            answer = recorded(path)
            if answer is None:
                continue
            status, streamed, body = answer
            backend.script[:] = [playing(status, streamed, body)]
            answered = await client.post("/v1/chat/completions", content=REQUEST)
            failed = status >= 400 or b'"error"' in body[:200] or (streamed and not body)
            if failed:
                assert_one_shape(path, answered.status_code, answered.content, status)
            else:
                assert answered.content == body, path
            checked += 1
    assert checked > 15


def assert_one_shape(path: Path, status: int, content: bytes, recorded_status: int) -> None:
    error = json.loads(content)["error"]
    assert set(error) == {"message", "type", "param", "code"}, path
    assert error["message"], path
    assert error["code"] is None or not str(error["code"]).isdigit(), path
    assert status >= 400, path
    if recorded_status >= 400:
        assert status == recorded_status, path
