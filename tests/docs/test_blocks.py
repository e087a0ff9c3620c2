"""Every command that the documentation shows is run, or says why it is not."""

from __future__ import annotations

import re
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path

import pytest

from tests.docs.blocks import COMMANDS, DATA, KNOWN, LINUX, PAGES, Block, blocks_of, pages, reader
from tests.docs.warm import warm_motley

ALL = {str(page.relative_to(PAGES)): blocks_of(page) for page in pages()}
RUN = {
    name: blocks
    for name, blocks in ALL.items()
    if any(block.is_command and "notest" not in block.options for block in blocks)
}
HEAVY = {
    name: blocks
    for name, blocks in RUN.items()
    if any(block.options.get("tests") == "full" for block in blocks)
}


@pytest.fixture(scope="module")
def warm() -> Iterator[dict[str, str]]:
    """What makes ``motley`` start at once, where the system can tell of a caller that left."""
    if not LINUX:
        yield {}
        return
    with tempfile.TemporaryDirectory() as folder, warm_motley(Path(folder)) as environment:
        yield environment


def follow(
    blocks: list[Block], folder: Path, *, heavy: bool, warm: Mapping[str, str] | None = None
) -> None:
    with reader(folder, heavy=heavy, warm=warm) as person:
        for block in blocks:
            person.follow(block)


@pytest.mark.timeout(400)  # a busy machine takes its time
@pytest.mark.parametrize("page", RUN)
def test_the_commands_of_a_page_work(page: str, tmp_path: Path, warm: dict[str, str]):
    follow(RUN[page], tmp_path, heavy=False, warm=warm)


@pytest.mark.full
@pytest.mark.timeout(600)
@pytest.mark.parametrize("page", HEAVY)
def test_the_heavy_commands_of_a_page_work(page: str, tmp_path: Path):
    follow(HEAVY[page], tmp_path, heavy=True)


@pytest.mark.parametrize("page", ALL)
def test_every_fence_says_what_it_is(page: str):
    for block in ALL[page]:
        assert block.language in COMMANDS | DATA, f"{block.name}: a fence in {block.language!r}"
        assert set(block.options) <= KNOWN, f"{block.name}: {set(block.options) - KNOWN}"


@pytest.mark.parametrize("page", ALL)
def test_what_is_not_run_says_why(page: str):
    for block in ALL[page]:
        assert len(block.options.get("notest", "a word or two")) > 10, block.name


def written(folder: Path, text: str) -> list[Block]:
    page = PAGES / "never.md"
    lines = text.strip().splitlines()
    language, _, head = lines[0].removeprefix("```").partition(" ")
    options = dict(part.split("=", 1) for part in head.split() if part)
    options = {key: value.strip('"') for key, value in options.items()}
    return [Block(page.name, 1, language, options, "\n".join(lines[1:-1]) + "\n")]


@pytest.mark.parametrize(
    ("fence", "fails"),
    [
        ("```bash\nfalse\n```", "ended with 1"),
        ("```bash\nfalse | cat\n```", "ended with 1"),
        ('```bash exit="3"\nexit 3\n```', ""),
        ('```bash notest="a-good-reason"\nfalse\n```', ""),
        ('```bash background="up"\nexit 1\n```', "ended: "),
        ("```python\nraise SystemExit(4)\n```", "ended with 4"),
        ("```yaml\nfalse\n```", ""),
    ],
)
def test_the_reader_sees_a_command_fail(fence: str, fails: str, tmp_path: Path):
    blocks = written(tmp_path, fence)
    if not fails:
        follow(blocks, tmp_path, heavy=False)
        return
    with pytest.raises(AssertionError, match=fails):
        follow(blocks, tmp_path, heavy=False)


@pytest.mark.parametrize(
    ("command", "code", "says"),
    [
        ("motley no-such-command", 2, "no-such-command"),
        ("echo 'not a router at all' | motley import - -o x.yaml", 2, "error: "),
        ("cd / && X=1 motley check nowhere.yaml", 2, "nowhere.yaml"),
    ],
)
def test_the_warm_command_is_the_installed_one(
    command: str, code: int, says: str, tmp_path: Path, warm: dict[str, str]
):
    """The same words and the same exit code, with everything imported or nothing."""
    with reader(tmp_path, heavy=False) as person:
        told = [
            subprocess.run(
                ["bash", "-c", command],
                cwd=tmp_path,
                env=person.env | environment,
                capture_output=True,
                text=True,
                timeout=60,
                check=False,
            )
            for environment in (warm, {})
        ]
    ours, theirs = told
    assert (ours.returncode, ours.stdout, ours.stderr) == (code, theirs.stdout, theirs.stderr)
    assert theirs.returncode == code
    assert says in ours.stdout + ours.stderr


def test_ports_are_free_ones_and_the_same_all_over_a_page(tmp_path: Path):
    first, second = (
        Block("a.md", 1, "bash", {}, text)
        for text in ("motley engine --port 30003\n", "curl http://127.0.0.1:30003/health\n")
    )
    with reader(tmp_path, heavy=False) as person:
        (port,) = re.findall(r"--port (\d+)", person.command(first)[-1])
        assert port != "30003"
        assert f"127.0.0.1:{port}/health" in person.command(second)[-1]


def test_what_was_started_ends_with_a_reader_who_is_killed(tmp_path: Path):
    script = (
        "import os, signal, sys, pathlib\n"
        "from tests.docs.blocks import Block, reader\n"
        "block = Block('a.md', 1, 'bash', {'background': 'up'}, 'echo up $$; exec sleep 600')\n"
        "with reader(pathlib.Path(sys.argv[1]), heavy=False) as person:\n"
        "    person.start(block)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)\n"
    )
    killed = subprocess.run(
        [sys.executable, "-c", script, str(tmp_path)], cwd=PAGES.parents[1], check=False
    )
    assert killed.returncode == -signal.SIGKILL
    pid = int((tmp_path / "block-1.out").read_text().split()[1])
    deadline = time.monotonic() + 20
    while Path(f"/proc/{pid}").exists():
        assert time.monotonic() < deadline
        time.sleep(0.05)
