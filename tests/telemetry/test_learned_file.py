"""The file itself: whole or not at all, the owner's alone, written by one process."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from router.domain.errors import LearnedError
from telemetry.learned import MOST_BYTES, Learned, encode
from telemetry.learned_file import LearnedFile, read_learned

NOTHING = Learned("gateway", 1.0)


@pytest.fixture
def file(tmp_path: Path) -> LearnedFile:
    one = LearnedFile(tmp_path / "learned.json")
    assert one.claim()
    return one


def test_who_asks_in_vain_holds_nothing_open(file: LearnedFile) -> None:
    """It asks again every minute."""
    assert file.claim()
    other = LearnedFile(file.path)
    assert not other.claim()
    before = len(os.listdir("/proc/self/fd"))
    for _ in range(5):
        assert not other.claim()
    assert len(os.listdir("/proc/self/fd")) == before
    file.release()


def test_what_is_written_is_read_and_only_its_owner_may(file: LearnedFile) -> None:
    file.write(encode(NOTHING))
    assert read_learned(file.path) == (NOTHING, [])
    modes = {path.name: path.stat().st_mode & 0o777 for path in file.path.parent.iterdir()}
    assert modes == {"learned.json": 0o600, "learned.json.lock": 0o600}


def test_one_process_writes_and_the_next_one_may_once_it_has_gone(file: LearnedFile) -> None:
    other = LearnedFile(file.path)
    assert not other.claim()
    assert file.claim()
    file.release()
    assert other.claim()
    assert not LearnedFile(file.path).claim()


_WRITER = """
import sys
from telemetry.learned import Learned, encode
from telemetry.learned_file import LearnedFile
file = LearnedFile(sys.argv[1])
assert file.claim()
file.write(encode(Learned("gateway", 1.0)))
print("ready", flush=True)
n = 1
while True:
    n += 1
    many = {f"m{k}": (4.0, 1.0) for k in range(3000)}
    file.write(encode(Learned("gateway", float(n), prompts=many)))
"""


def test_kill_9_in_the_middle_of_writing_leaves_a_whole_file_and_no_lock(tmp_path: Path) -> None:
    path = tmp_path / "learned.json"
    for _ in range(5):
        with subprocess.Popen(
            [sys.executable, "-c", _WRITER, str(path)], stdout=subprocess.PIPE
        ) as writer:
            assert writer.stdout is not None
            writer.stdout.readline()
            writer.send_signal(signal.SIGKILL)
        learned, flaws = read_learned(path)
        assert not flaws
        assert learned.written_unix_s >= 1.0
    survivor = LearnedFile(path)
    assert survivor.claim()
    survivor.write(encode(NOTHING))
    assert sorted(p.name for p in tmp_path.iterdir()) == ["learned.json", "learned.json.lock"]


def test_a_full_disk_costs_nothing_of_what_is_there(
    file: LearnedFile, monkeypatch: pytest.MonkeyPatch
) -> None:
    file.write(encode(NOTHING))

    def full(handle: int) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "fsync", full)
    with pytest.raises(OSError, match="No space left"):
        file.write(b"x" * 100)
    assert read_learned(file.path)[0] == NOTHING
    assert not file.path.with_name("learned.json.new").exists()


def test_a_link_in_the_place_of_the_new_file_is_not_followed(
    file: LearnedFile, tmp_path: Path
) -> None:
    theirs = tmp_path / "theirs"
    theirs.write_text("precious")
    (tmp_path / "learned.json.new").symlink_to(theirs)
    with pytest.raises(OSError, match=r"."):
        file.write(encode(NOTHING))
    assert theirs.read_text() == "precious"
    file.write(encode(NOTHING))
    assert read_learned(file.path)[0] == NOTHING


def test_a_link_in_the_place_of_the_file_leads_to_it(tmp_path: Path) -> None:
    real = tmp_path / "state" / "learned.json"
    real.parent.mkdir()
    (tmp_path / "link").symlink_to(real)
    file = LearnedFile(tmp_path / "link")
    assert file.claim()
    file.write(encode(NOTHING))
    assert (tmp_path / "link").is_symlink()
    assert read_learned(real)[0] == NOTHING


def test_put_aside_twice_in_a_second_keeps_both(file: LearnedFile) -> None:
    for text in ("one", "two"):
        file.path.write_text(text)
        file.put_aside()
    kept = sorted(p.read_text() for p in file.path.parent.glob("learned.json.aside-*"))
    assert kept == ["one", "two"]


@pytest.mark.parametrize("what", ["folder", "pipe", "huge", "missing", "empty"])
def test_what_is_no_such_file_is_told_in_one_line(what: str, tmp_path: Path) -> None:
    path = tmp_path / "learned.json"
    if what == "folder":
        path.mkdir()
    elif what == "pipe":
        os.mkfifo(path)
    elif what == "huge":
        with path.open("wb") as hole:
            hole.truncate(MOST_BYTES * 32)
    elif what == "empty":
        path.touch()
    with pytest.raises(LearnedError, match=r"learned\.json") as told:
        read_learned(path)
    assert "\n" not in str(told.value)
