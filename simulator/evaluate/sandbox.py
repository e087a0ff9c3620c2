"""Runs code that a model wrote, in a process that may compute and nothing else.

Layers, each enough for the usual mishap: a time limit and an end to all processes of its session;
limits of memory, CPU, files and processes (``setrlimit``); an audit hook that refuses processes,
sockets, ``ctypes`` and changes to files outside its folder; an empty folder and environment; on
Linux, where the system allows it, namespaces of its own, without a network and in which nobody
outlives the first process. It is meant for models that err, not for people who attack: for those
use a virtual machine.
"""

from __future__ import annotations

import contextlib
import json
import os
import secrets
import selectors
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import cache
from pathlib import Path

Clock = Callable[[], float]
INSIDE = Path(__file__).with_name("inside.py")
_MARK = "MOTLEY_SANDBOX"
_PIECE_BYTES = 65_536


@dataclass(frozen=True, slots=True)
class Limits:
    """What the code may take.

    Attributes:
        wall_s: until it is killed.
        cpu_s: of processor time.
        memory_bytes: of address space.
        file_bytes: of each file it writes.
        output_bytes: printed; more ends it.
        open_files: at once, three of them its standard streams.
        processes: of this user that may exist; ``None`` sets no limit, as root's processes are
            not counted and others' are.
    """

    wall_s: float = 10.0
    cpu_s: int = 5
    memory_bytes: int = 512 * 1024**2
    file_bytes: int = 1024**2
    output_bytes: int = 65_536
    open_files: int = 32
    processes: int | None = None


@dataclass(frozen=True, slots=True)
class Verdict:
    """Whether the asserts held; if not, why, in a few words."""

    passed: bool
    why: str = ""


def run_code(
    code: str, tests: str, limits: Limits | None = None, clock: Clock = time.monotonic
) -> Verdict:
    """Run code and then the asserts on it. Never raises for what the code does."""
    word = secrets.token_hex(16)
    limits = limits or Limits()
    with tempfile.TemporaryDirectory(prefix="motley-code-") as folder, _pipe() as (end, begin):
        job = {
            "code": code,
            "tests": tests,
            "word": word,
            "pipe": begin,
            "limits": {
                name: getattr(limits, name)
                for name in ("cpu_s", "memory_bytes", "file_bytes", "open_files", "processes")
                if getattr(limits, name) is not None
            },
        }
        command = [*isolation(), sys.executable, "-I", "-B", str(INSIDE)]
        rc, flood, late = run_apart(
            command, json.dumps(job) + "\n", folder, limits, (begin,), clock=clock
        )
        os.set_blocking(end, False)
        try:
            said = os.read(end, _PIECE_BYTES).decode(errors="replace")
        except BlockingIOError:
            said = ""
    if said == word and not flood and not late:
        return Verdict(True)
    return Verdict(False, _why(rc, said, flood=flood, late=late, limits=limits))


def _why(rc: int, said: str, *, flood: bool, late: bool, limits: Limits) -> str:
    mib = limits.memory_bytes // 1024**2
    causes = (
        (flood, f"printed more than {limits.output_bytes} bytes"),
        (late, f"took more than {limits.wall_s:g} s"),
        (_died(rc, signal.SIGXCPU), f"took more than {limits.cpu_s} s of CPU"),
        (_died(rc, signal.SIGXFSZ), f"wrote a file of more than {limits.file_bytes} bytes"),
        (_died(rc, signal.SIGSEGV), "crashed: its stack or memory ran out"),
        (said.startswith("MemoryError"), f"wanted more than {mib} MiB of memory"),
        (bool(said), said),
        (_died(rc, signal.SIGKILL), f"was killed: it took more than {limits.cpu_s} s of CPU"),
    )
    ended = f"ended by itself before the tests (exit code {rc})"
    return next((why for holds, why in causes if holds), ended)


def _died(rc: int, number: signal.Signals) -> bool:
    """Whether a signal ended it, or what was around it, which then says so as a shell does."""
    return rc in {-number, 128 + number}


def run_apart(
    command: Sequence[str],
    told: str,
    folder: str,
    limits: Limits,
    fds: tuple[int, ...] = (),
    *,
    clock: Clock = time.monotonic,
) -> tuple[int, bool, bool]:
    """Run a command in a session of its own and leave none of its processes behind.

    Returns:
        Exit code, whether it printed too much, whether it took too long.
    """
    mark = secrets.token_hex(16)
    process = subprocess.Popen(
        command,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={
            _MARK: mark,
            "PATH": os.defpath,
            "PYTHONHASHSEED": "0",
            "HOME": folder,
            "TMPDIR": folder,
        },
        pass_fds=fds,
        start_new_session=True,
    )
    assert process.stdin is not None
    assert process.stdout is not None
    try:
        with contextlib.suppress(BrokenPipeError):
            process.stdin.write(told.encode())
            process.stdin.close()
        flood, late = _watch(process, limits, clock)
    finally:
        _end(process, mark)
        process.stdout.close()
    return process.returncode, flood, late


def _watch(process: subprocess.Popen[bytes], limits: Limits, clock: Clock) -> tuple[bool, bool]:
    """Read what it prints until it ends: (too much, too long)."""
    deadline_s, printed = clock() + limits.wall_s, 0
    assert process.stdout is not None
    with selectors.DefaultSelector() as ready:
        ready.register(process.stdout, selectors.EVENT_READ)
        while (left_s := deadline_s - clock()) > 0:
            if process.poll() is not None:
                return False, False
            if not ready.select(min(left_s, 0.05)):
                continue
            piece = os.read(process.stdout.fileno(), _PIECE_BYTES)
            printed += len(piece)
            if printed > limits.output_bytes:
                return True, False
            if not piece:  # it closed its output: what is left is to wait for it
                ready.unregister(process.stdout)
                try:
                    process.wait(max(0.0, deadline_s - clock()))
                except subprocess.TimeoutExpired:
                    return False, True
                return False, False
    return False, True


def _end(process: subprocess.Popen[bytes], mark: str) -> None:
    """Kill the session, and whoever left it: its environment still carries the mark."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.killpg(process.pid, signal.SIGKILL)
    process.wait()
    for _ in range(100):  # who forks meanwhile is found in the next round
        left = list(_marked(mark))
        if not left:
            return
        for pid in left:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)


def _marked(mark: str) -> Iterator[int]:
    wanted = f"{_MARK}={mark}".encode()
    for entry in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if wanted in (entry / "environ").read_bytes():
                yield int(entry.name)


@cache
def isolation() -> tuple[str, ...]:
    """The words before a command that give it namespaces of its own; none where that fails."""
    words = ["unshare", "--user", "--map-root-user", "--net", "--ipc", "--pid", "--fork"]
    words.append("--kill-child=KILL")
    program = shutil.which("unshare")
    if program is None:
        return ()
    try:
        tried = subprocess.run(
            [*words, sys.executable, "-I", "-c", ""], check=False, capture_output=True, timeout=10
        )
    except (OSError, subprocess.TimeoutExpired):
        return ()
    return (program, *words[1:]) if tried.returncode == 0 else ()


@contextlib.contextmanager
def _pipe() -> Iterator[tuple[int, int]]:
    end, begin = os.pipe()
    try:
        yield end, begin
    finally:
        os.close(end)
        os.close(begin)
