"""The door of the command line: one line for a mistake, and an exit code that says whose it is."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from router.cli import main as cli
from router.cli.main import COMMANDS, run
from router.domain.errors import ConfigError, SolverError


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_says_what_it_is_for(
    command: str, capsys: pytest.CaptureFixture[str]
):
    assert run([command, "--help"]) == 0
    said = capsys.readouterr().out
    assert f"motley {command}" in said
    assert len(said.split()) > 20


def test_help_lists_the_commands_in_the_order_a_newcomer_meets_them(
    capsys: pytest.CaptureFixture[str],
):
    assert run(["--help"]) == 0
    said = capsys.readouterr().out.partition("Commands")[2]
    places = [said.index(f"│ {command} ") for command in COMMANDS]
    assert places == sorted(places)


def test_an_unknown_command_is_the_users_mistake(capsys: pytest.CaptureFixture[str]):
    assert run(["simulat"]) == 2
    assert "No such command 'simulat'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("raised", "code", "said"),
    [
        (ConfigError("no such file"), 2, "error: no such file\n"),
        (SolverError("out of time"), 1, "error: out of time\n"),
        (KeyboardInterrupt(), 130, ""),
        (SystemExit(3), 3, ""),
        (SystemExit(None), 0, ""),
        (SystemExit("bye"), 1, ""),
    ],
)
def test_errors_become_one_line_and_an_exit_code(
    raised: BaseException,
    code: int,
    said: str,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
):
    def fails(**_: object) -> None:
        raise raised

    monkeypatch.setattr(cli, "build_cli", lambda: fails)
    assert run([]) == code
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    "line",
    [
        "bench http://127.0.0.1:9",
        "calibrate --url http://127.0.0.1:9 --gpu t4",
        "demo --port 0",
        "engine --gpu a100-80 --model llama-3.1-8b --port 0",
        "trace azure-conv-like",
        "validate http://127.0.0.1:9",
    ],
)
def test_a_seed_below_zero_is_the_users_mistake(line: str):
    assert run([*line.split(), "--seed", "-1"]) == 2


def test_a_mistake_in_our_own_code_is_not_hidden(monkeypatch: pytest.MonkeyPatch):
    def fails(**_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(cli, "build_cli", lambda: fails)
    with pytest.raises(ZeroDivisionError):
        run([])


def test_a_command_loads_its_own_parts_and_no_others():
    """A fresh interpreter, since this one has loaded everything."""
    script = (
        "import sys; from router.cli.main import run; code = run(['replay', '--help']); "
        "loaded = {'cvxpy', 'fastapi', 'simpy', 'httpx', 'uvicorn'} & set(sys.modules); "
        "sys.exit(repr(sorted(loaded)) if loaded or code else 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr


@pytest.mark.skipif(shutil.which("bash") is None, reason="no bash here")
@pytest.mark.parametrize(
    ("line", "offered"),
    [
        ("motley s", {"serve", "simulate", "sweep"}),
        ("motley serve --static-", {"--static-backends", "--static-models"}),
    ],
)
def test_a_shell_completes_commands_and_flags(line: str, offered: set[str]):
    """In a real bash, with the script that ``--show-completion`` prints."""
    words = line.split()
    script = f"""
        PATH="{Path(sys.executable).parent}:$PATH"
        eval "$(motley --show-completion bash)"
        COMP_WORDS=({line}) COMP_CWORD={len(words) - 1} COMPREPLY=()
        _motley_completion motley
        printf '%s\\n' "${{COMPREPLY[@]}}"
    """
    said = subprocess.run(["bash", "-c", script], capture_output=True, text=True, check=True)
    assert offered <= set(said.stdout.split()), said.stderr
