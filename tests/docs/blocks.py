"""Reads a page's fences and runs its commands as a reader would, in order, in one folder."""

from __future__ import annotations

import ctypes
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

from tests.fakes.http_server import free_port

ROOT = Path(__file__).resolve().parents[2]
PAGES = ROOT / "docs" / "pages"
COMMANDS = {"bash", "sh", "shell", "console", "python"}
DATA = {"yaml", "json", "jsonl", "csv", "text", "math", "toml", "ini", "promql", "http", "nginx"}
KNOWN = {"notest", "background", "exit", "tests", "title", "hl_lines", "linenums"}
FENCE = re.compile(r"^( *)```([^`\n]+)\n(.*?)^\1```[ ]*$", re.DOTALL | re.MULTILINE)
OPTION = re.compile(r'(\w+)="([^"]*)"')
PORT = "8000"
BLOCK_S = 280.0
READY_S = 150.0
LINUX, PR_SET_PDEATHSIG = sys.platform == "linux", 1


@dataclass(frozen=True)
class Block:
    """One fence.

    Attributes:
        page: where it stands, below ``docs/pages``.
        line: of its first line.
        language: the first word behind the fence.
        options: the rest.
        text: what is in it.
    """

    page: str
    line: int
    language: str
    options: dict[str, str]
    text: str

    @property
    def is_command(self) -> bool:
        return self.language in COMMANDS

    @property
    def name(self) -> str:
        return f"{self.page}:{self.line}"


def blocks_of(page: Path) -> list[Block]:
    text = page.read_text("utf-8")
    found = []
    for match in FENCE.finditer(text):
        indent, head, body = match.groups()
        language = re.split(r"[\s{]", head.strip(), maxsplit=1)[0]
        lines = [line.removeprefix(indent) for line in body.splitlines()]
        found.append(
            Block(
                str(page.relative_to(PAGES)),
                text.count("\n", 0, match.start()) + 1,
                language,
                dict(OPTION.findall(head)),
                "\n".join(lines) + "\n",
            )
        )
    return found


def pages() -> list[Path]:
    return sorted(PAGES.rglob("*.md"))


class Reader:
    """Somebody who follows one page.

    Args:
        folder: where to stand; the repository's ``deploy`` is there too.
        heavy: whether to run what is marked for ``make test-full``.
        warm: environment in which ``motley`` starts at once, see ``warm.py``.
    """

    def __init__(self, folder: Path, *, heavy: bool, warm: Mapping[str, str] | None = None) -> None:
        self.folder = folder
        self.heavy = heavy
        self.ports: dict[str, int] = {}
        self.running: list[subprocess.Popen[str]] = []
        (folder / "deploy").symlink_to(ROOT / "deploy")
        here = Path(sys.executable).parent
        self.env = {**os.environ, "PATH": f"{here}:{os.environ['PATH']}", "PYTHONPATH": str(ROOT)}
        self.warm = warm or {}

    def follow(self, block: Block) -> None:
        if "title" in block.options and not block.is_command:
            (self.folder / block.options["title"]).write_text(self.at_free_ports(block.text))
        elif not self.runs(block):
            return
        elif "background" in block.options:
            self.start(block)
        else:
            self.run(block)

    def runs(self, block: Block) -> bool:
        heavy = block.options.get("tests") == "full"
        return block.is_command and "notest" not in block.options and (self.heavy or not heavy)

    def run(self, block: Block) -> None:
        done = subprocess.run(
            self.command(block),
            cwd=self.folder,
            env={**self.env, **self.warm},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=BLOCK_S,
            check=False,
        )
        wanted = block.options.get("exit", "0").split("|")
        assert str(done.returncode) in wanted, (
            f"{block.name} ended with {done.returncode}\n{block.text}\n{done.stdout[-3000:]}"
        )

    def start(self, block: Block) -> None:
        out = self.folder / f"block-{block.line}.out"
        with out.open("w") as written:
            process = subprocess.Popen(
                self.command(block),
                cwd=self.folder,
                env={**self.env, **self.warm, "PYTHONUNBUFFERED": "1"},
                stdin=subprocess.DEVNULL,
                stdout=written,
                stderr=subprocess.STDOUT,
                text=True,
                start_new_session=True,
                preexec_fn=end_with_parent if LINUX else None,  # noqa: PLW1509 - no threads
            )
        self.running.append(process)
        deadline = time.monotonic() + READY_S
        while block.options["background"] not in out.read_text():
            told = f"{block.name}\n{block.text}\n{out.read_text()[-3000:]}"
            assert process.poll() is None, f"ended: {told}"
            assert time.monotonic() < deadline, f"not ready: {told}"
            time.sleep(0.1)

    def command(self, block: Block) -> list[str]:
        text = self.at_free_ports(block.text)
        if block.language == "python":
            return [sys.executable, "-c", text]
        if block.language == "console":
            typed = re.findall(r"^\$ (.*)$", text, re.MULTILINE)
            text = "\n".join(typed)
        text = re.sub(r"^(motley (?:demo|serve)\b)", self.at_my_port, text, flags=re.MULTILINE)
        return ["bash", "-euo", "pipefail", "-c", text]

    def at_my_port(self, found: re.Match[str]) -> str:
        return f"{found[1]} --port {self.free(PORT)}"

    def at_free_ports(self, text: str) -> str:
        return re.sub(r"(127\.0\.0\.1:|--port )(\d{4,5})\b", self.elsewhere, text)

    def elsewhere(self, found: re.Match[str]) -> str:
        return f"{found[1]}{self.free(found[2])}"

    def free(self, port: str) -> int:
        """A port that nobody has, the same one for the whole page."""
        return self.ports.setdefault(port, free_port())

    def leave(self) -> None:
        for process in self.running:
            if process.poll() is None:
                os.killpg(process.pid, signal.SIGINT)
        for process in self.running:
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                os.killpg(process.pid, signal.SIGKILL)
                process.wait()


@contextmanager
def reader(folder: Path, *, heavy: bool, warm: Mapping[str, str] | None = None) -> Iterator[Reader]:
    one = Reader(folder, heavy=heavy, warm=warm)
    try:
        yield one
    finally:
        one.leave()


def end_with_parent() -> None:
    """Ask the kernel to end this process with the test's, even where that one is killed."""
    ctypes.CDLL(None).prctl(PR_SET_PDEATHSIG, signal.SIGTERM)
