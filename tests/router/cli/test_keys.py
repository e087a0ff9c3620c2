"""``motley keys``: made once, shown once, kept as a digest."""

from __future__ import annotations

import json
import threading
from hashlib import sha256
from pathlib import Path

import pytest

from router.cli.main import run
from router.gateway.access.keys_file import read_keys


def test_a_key_is_made_listed_and_revoked(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    arguments = "--model llama-3.1-8b --class bulk --tokens-per-minute 60000 --expires 30d"
    assert run(["keys", "create", "team-a", "-f", str(path), *arguments.split()]) == 0
    key = capsys.readouterr().out.strip()
    assert key.startswith("sk-motley-")
    text = path.read_text()
    assert key not in text
    assert sha256(key.encode()).hexdigest() in text
    assert path.stat().st_mode & 0o777 == 0o600
    (kept,) = read_keys(path)
    assert (kept.name, kept.models, kept.classes) == ("team-a", ["llama-3.1-8b"], ["bulk"])
    assert kept.expires_unix_s == kept.created_unix_s + 30 * 86_400
    assert run(["keys", "list", "-f", str(path)]) == 0
    shown = capsys.readouterr().out
    assert "team-a" in shown
    assert "60000 tokens/min" in shown
    assert key not in shown
    assert run(["keys", "revoke", "team-a", "-f", str(path)]) == 0
    assert read_keys(path) == []


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        (["create", "a", "--expires", "soon"], "'soon' is no duration"),
        (["create", "a\n2026-01-01 ERROR forged"], "must be printable"),
        (["create", "a", "--class", "bulk", "--default-class", "x"], "not among classes"),
        (["revoke", "nobody"], "cannot read the keys file"),
        (["list"], "cannot read the keys file"),
    ],
)
def test_mistakes_are_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert run(["keys", *arguments, "-f", str(tmp_path / "keys.json")]) == 2
    complaint = capsys.readouterr().err
    assert says in complaint
    assert complaint.count("\n") == 1


def test_two_keys_of_one_name_cannot_be(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = str(tmp_path / "keys.json")
    assert run(["keys", "create", "a", "-f", path]) == 0
    assert run(["keys", "create", "a", "-f", path]) == 2
    assert "has a key named 'a' already" in capsys.readouterr().err


def test_commands_at_the_same_time_lose_nothing(tmp_path: Path) -> None:
    path = tmp_path / "keys.json"
    threads = [
        threading.Thread(target=run, args=(["keys", "create", f"k{n}", "-f", str(path)],))
        for n in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {key.name for key in read_keys(path)} == {f"k{n}" for n in range(8)}


def test_a_file_that_holds_something_else(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "keys.json"
    path.write_text(json.dumps({"keys": [{"name": "a", "hash": "plain"}]}))
    assert run(["keys", "list", "-f", str(path)]) == 2
    assert "keys[0].hash" in capsys.readouterr().err
