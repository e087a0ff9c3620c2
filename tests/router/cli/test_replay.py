"""``motley replay``: the proof, from the command line."""

from __future__ import annotations

from pathlib import Path

import pytest

from router.cli.main import run
from tests.parity.recording import Recording


@pytest.fixture
def log(tmp_path: Path) -> Path:
    path = tmp_path / "decisions.jsonl"
    path.write_bytes(b"".join(Recording("motley", calls=60).log))
    return path


def test_says_how_many_calls_were_replayed(log: Path, capsys: pytest.CaptureFixture[str]):
    calls = log.read_bytes().count(b"\n") - 1
    assert run(["replay", str(log)]) == 0
    assert capsys.readouterr().out == f"{calls} calls replayed, every answer the same\n"


def test_names_the_first_line_that_differs(log: Path, capsys: pytest.CaptureFixture[str]):
    lines = log.read_bytes().splitlines(keepends=True)
    dispatched = b'"call":"dispatch"'
    number = next(n for n, line in enumerate(lines) if dispatched in line and b'{"assign"' in line)
    lines[number] = lines[number].replace(b'{"assign":"', b'{"assign":"x')
    log.write_bytes(b"".join(lines))
    assert run(["replay", str(log)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert said.err == f"error: line {number + 1}: the replayed call 'dispatch' answers otherwise\n"


def test_a_log_that_was_cut_off_names_its_last_line(log: Path, capsys: pytest.CaptureFixture[str]):
    lines = log.read_bytes().splitlines(keepends=True)
    log.write_bytes(b"".join(lines[:-1]) + lines[-1][:20])
    assert run(["replay", str(log)]) == 2
    assert capsys.readouterr().err.startswith(f"error: line {len(lines)}: not JSON")


@pytest.mark.parametrize("what", ["nowhere.jsonl", "."])
def test_a_file_that_cannot_be_read_is_the_users_mistake(
    what: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    assert run(["replay", str(tmp_path / what)]) == 2
    assert capsys.readouterr().err.startswith("error: cannot read ")
