"""What-if from the page: ``motley whatif`` in a process of its own, one at a time.

It runs at the lowest priority and is told nothing but the fleet as it is now, what has been learned
so far and where the traffic record lies, so it can neither slow the gateway down nor change it.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
import tempfile
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

import msgspec
import yaml
from pydantic import Field

from router.config.load import MotleyConfig
from router.config.section import Section
from router.domain.errors import BadInputError
from router.domain.fleet import BackendSpec
from router.gateway.problems import Problem, ProblemError
from router.gateway.runtime import Runtime
from telemetry.learned import encode

LIMIT_S = 900.0
NICEST = 19
_MOTLEY = [sys.executable, "-c", "from router.cli.main import main; main()"]

State = Literal["none", "running", "done", "failed", "cancelled"]


class Ask(Section):
    """What the page asks; see ``motley whatif --help``."""

    add: list[str] = Field(default_factory=list, max_length=16)
    remove: list[str] = Field(default_factory=list, max_length=16)
    policy: str = ""
    load: float = Field(default=1.0, gt=0, allow_inf_nan=False)
    last_s: float = Field(default=3600.0, gt=0, le=7 * 86_400, allow_inf_nan=False)
    seeds: int = Field(default=3, ge=1, le=20)


@dataclass(slots=True)
class Report:
    """How far it is, or what came out.

    Attributes:
        state: of the newest study.
        share, what: progress.
        study: see ``simulator.whatif.study.Study``; ``None`` until it is done.
        error: why it failed.
    """

    state: State = "none"
    share: float = 0.0
    what: str = ""
    study: dict[str, Any] | None = None
    error: str = ""


class WhatIf:
    """Runs studies for the page."""

    def __init__(self, runtime: Runtime) -> None:
        self._runtime = runtime
        self._process: asyncio.subprocess.Process | None = None
        self._task: asyncio.Task[None] | None = None
        self.report = Report()

    def described(self) -> dict[str, Any]:
        """For JSON."""
        return asdict(self.report)

    def start(self, ask: Ask) -> None:
        """Begin a study.

        Raises:
            ProblemError: one is running (409), or no traffic is recorded (409).
        """
        if self.report.state == "running":
            message = "A study is running: wait for it, or cancel it first."
            raise ProblemError(Problem(409, message, code="busy"))
        record = self._runtime.config.telemetry.record
        if record is None:
            message = "Nothing is recorded: set telemetry.record.directory and serve for a while."
            raise ProblemError(Problem(409, message, code="nothing_recorded"))
        self.report = Report(state="running", what="starting")
        self._task = asyncio.create_task(self._run(ask, self.report, record.directory))

    def cancel(self) -> None:
        """Stop the study that runs, if one does."""
        if self.report.state == "running":
            self.report.state = "cancelled"
            self._kill()

    async def close(self) -> None:
        """Stop whatever runs and wait for its end."""
        self.cancel()
        if self._task is not None:
            with suppress(asyncio.CancelledError):
                await self._task

    async def _run(self, ask: Ask, report: Report, directory: str) -> None:
        with tempfile.TemporaryDirectory(prefix="motley-whatif-") as folder:
            fleet = Path(folder) / "fleet.yaml"
            backends = [b.spec for b in self._runtime.engine.dispatcher.state.backends]
            fleet.write_text(yaml.safe_dump(world(self._runtime.config, backends)))
            learned = Path(folder) / "learned.json"
            learned.write_bytes(encode(await self._runtime.memory.so_far()))
            command = [*_MOTLEY, *words(ask, fleet, directory), f"--learned={learned}"]
            try:
                async with asyncio.timeout(LIMIT_S):
                    await self._study(command, report)
            except TimeoutError:
                self._kill()
                report.state, report.error = "failed", f"it took longer than {LIMIT_S:g} s"
            except OSError as error:
                report.state, report.error = "failed", f"it could not be started: {error}"

    async def _study(self, command: list[str], report: Report) -> None:
        pipe = asyncio.subprocess.PIPE
        process = self._process = await asyncio.create_subprocess_exec(
            *command, stdout=pipe, stderr=pipe, stdin=asyncio.subprocess.DEVNULL
        )
        with suppress(OSError):  # it may be over already
            os.setpriority(os.PRIO_PROCESS, process.pid, NICEST)
        if report.state == "cancelled":
            self._kill()
        assert process.stdout is not None
        assert process.stderr is not None
        out, said = await asyncio.gather(process.stdout.read(), _follow(process.stderr, report))
        await process.wait()
        if report.state == "cancelled":
            return
        if process.returncode == 0:
            report.state, report.share, report.study = "done", 1.0, json.loads(out)
        else:
            report.state, report.error = "failed", said or f"exit code {process.returncode}"

    def _kill(self) -> None:
        if self._process is not None and self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()


async def _follow(stream: asyncio.StreamReader, report: Report) -> str:
    """Read progress as it comes; the last line that was none is why it failed."""
    said = ""
    while line := await stream.readline():
        try:
            told = msgspec.json.decode(line, type=dict[str, Any])
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            said = line.decode(errors="replace").strip().removeprefix("error: ") or said
        else:
            report.share, report.what = told.get("share", 0.0), told.get("what", "")
    return said


def words(ask: Ask, fleet: Path, directory: str) -> list[str]:
    """The command line of one study; values are never taken for options."""
    command = ["whatif", f"--fleet={fleet}", f"--from={directory}", f"--last={ask.last_s!r}"]
    command += [f"--seeds={ask.seeds}", f"--load={ask.load!r}", "--json=-", "--progress=lines"]
    command += [f"--add={word}" for word in ask.add]
    command += [f"--remove={word}" for word in ask.remove]
    return [*command, f"--policy={ask.policy}"] if ask.policy else command


def world(config: MotleyConfig, backends: list[BackendSpec]) -> dict[str, Any]:
    """The fleet file of the world as it is: the file's own settings, the live fleet's backends.

    Raises:
        BadInputError: never for a file that the gateway was started with.
    """
    kept = ("slos", "models", "overrides", "aliases")
    source = Path(config.source)
    said: dict[str, Any] = {}
    if source.is_file():
        said = yaml.safe_load(source.read_text()) or {}
        if not isinstance(said, dict):
            raise BadInputError(f"{source} is no mapping any more")
    found: dict[str, Any] = {name: said[name] for name in kept if name in said}
    found["backends"] = [_entry(spec) for spec in backends]
    found["policy"] = config.policy.model_dump()
    if config.planner.usd_per_hour:
        found["planner"] = {"usd_per_hour": dict(config.planner.usd_per_hour)}
    return found


def _entry(spec: BackendSpec) -> dict[str, Any]:
    fields = asdict(spec) | {"labels": dict(spec.labels)}
    fields.pop("url")  # it may hold credentials, and nobody is going to be called
    return {name: value for name, value in fields.items() if value not in (None, "", {})}
