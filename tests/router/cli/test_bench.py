"""``motley bench`` against servers over real sockets."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from router.cli.main import run
from tests.router.gateway.fakes import (
    Behaviour,
    FakeEngine,
    Received,
    answer,
    stream,
)

USAGE = {"prompt_tokens": 40, "completion_tokens": 3, "total_tokens": 43}
WORDS = stream(["a", "b", "c"], usage=USAGE)


async def bench(capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, str, str]:
    """Exit code, standard output, standard error."""
    code = await asyncio.to_thread(run, ["bench", *words])
    said = capsys.readouterr()
    return code, said.out, said.err


@pytest.fixture
async def server() -> Any:
    started: list[FakeEngine] = []

    async def start(*script: Behaviour) -> FakeEngine:
        engine = FakeEngine(*script)
        await engine.start()
        started.append(engine)
        return engine

    yield start
    for engine in started:
        await engine.stop()


async def test_a_closed_loop_counts_what_came(
    server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = await server(WORDS)
    words = ("--model", "m", "-n", "6", "-c", "2", "--warm-up", "1", "--input-tokens", "40")
    code, out, _ = await bench(capsys, engine.url, *words, "--json", "-")
    found = json.loads(out)
    assert code == 0
    assert (found["completed"], found["failed"]) == (6, 0)
    assert found["input_tokens"] == 40.0
    assert found["output_tokens"] == 3.0
    assert found["loop"] == "closed 2"
    assert found["ttft_s"]["p50"] > 0.0
    assert len(engine.received) == 7
    body = json.loads(engine.received[-1].body)
    assert body["stream_options"] == {"include_usage": True}
    assert body["ignore_eos"] is True
    assert body["temperature"] == 0.0


async def test_the_classical_profile_is_one_flag(
    server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = await server(stream(["a", "b"]))  # does not count tokens: a word stands for one
    code, out, _ = await bench(capsys, engine.url, "--model", "m", "--classic", "--json", "-")
    assert code == 0
    assert json.loads(out)["completed"] == 100
    first = json.loads(engine.received[0].body)
    assert first["max_tokens"] == 1024
    assert len(first["messages"][0]["content"].split()) == 2048


async def test_token_ids_make_exact_prompts(
    server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = await server(WORDS)
    words = ("--model", "m", "--endpoint", "completions", "-n", "2", "--rate", "100")
    await bench(capsys, engine.url, *words, "--input-tokens", "77")
    assert engine.received[-1].head.startswith("POST /v1/completions")
    assert len(json.loads(engine.received[-1].body)["prompt"]) == 77


async def test_failures_are_kept_apart(server: Any, capsys: pytest.CaptureFixture[str]) -> None:
    full = answer(503, b'{"error": {"message": "full"}}')

    async def by_turns(request: Received) -> bool | None:
        turn = len(engine.received) % 2
        return await (WORDS if turn else full)(request)

    engine = await server(by_turns)
    words = ("--model", "m", "-n", "8", "-c", "1", "--warm-up", "0")
    code, out, _ = await bench(capsys, engine.url, *words)
    assert code == 0
    assert "4 of 8 completed" in out
    assert "4 x HTTP 503" in out


async def test_when_all_fail_it_says_why_and_fails(
    server: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    engine = await server(answer(500, b"boom"))
    code, _, err = await bench(capsys, engine.url, "--model", "m", "-n", "2", "--warm-up", "0")
    assert code == 1
    assert "no request was answered" in err
    assert "HTTP 500: boom" in err


async def test_a_dead_url_is_one_line(capsys: pytest.CaptureFixture[str]) -> None:
    code, _, err = await bench(capsys, "http://127.0.0.1:9")
    assert code == 2
    assert "cannot reach http://127.0.0.1:9" in err


@pytest.mark.parametrize(
    ("words", "named"),
    [
        (["--rate", "1", "--trace", "azure-conv-like"], "give one of them"),
        (["--endpoint", "telepathy"], "--endpoint 'telepathy'"),
        (["--extra", "{"], "--extra is not JSON"),
        (["--extra", "[]"], "--extra must be a JSON object"),
        (["-n", "0"], "--requests"),
        (["--trace", "no-such-file.csv"], "no-such-file.csv"),
    ],
)
async def test_wrong_options_are_named(
    capsys: pytest.CaptureFixture[str], words: list[str], named: str
) -> None:
    code, _, err = await bench(capsys, "http://127.0.0.1:9", "--model", "m", *words)
    assert code == 2
    assert named in " ".join(err.split())


async def test_a_run_is_appended_and_drawn(
    server: Any, capsys: pytest.CaptureFixture[str], tmp_path: Path
) -> None:
    engine = await server(WORDS)
    table, picture = tmp_path / "runs.csv", tmp_path / "run.png"
    for _ in range(2):
        words = ("--model", "m", "-n", "3", "--csv", str(table), "--plot", str(picture))
        assert (await bench(capsys, engine.url, *words))[0] == 0
    assert len(table.read_text().splitlines()) == 3
    assert picture.read_bytes().startswith(b"\x89PNG")
