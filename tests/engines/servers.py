"""Starts real engines on the CPU, with random models, and stops them again."""

from __future__ import annotations

import os
import signal
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from tests.engines.guard import guarding
from tests.engines.install import is_ready, python_of
from tests.fakes.http_server import free_port

HERE = Path(__file__).parent
PYTHONS = {
    "vllm": "MOTLEY_VLLM_PYTHON",
    "sglang": "MOTLEY_SGLANG_PYTHON",
    "llamacpp": "MOTLEY_LLAMACPP_PYTHON",
}
"""Environment variables: the Python of an environment of your own, instead of ``make engines``."""

VLLM_LIMITS = {"--max-num-seqs": "32", "--max-num-batched-tokens": "512"}
LIMITS: Mapping[str, Mapping[str, str]] = {"vllm": VLLM_LIMITS, "sglang": {}, "llamacpp": {}}
"""What an engine does not tell of itself, and so has to be told to Motley."""
VLLM_FLAGS = {
    "--dtype": "float32",  # bfloat16 is emulated, ten times slower, where the CPU lacks it
    "--max-model-len": "4096",
    "--block-size": "32",
    "--num-gpu-blocks-override": "1024",
    **VLLM_LIMITS,
}
SGLANG_FLAGS = {
    "--device": "cpu",
    "--attention-backend": "torch_native",  # the default wants AMX
    "--dtype": "float32",
    "--context-length": "4096",
    "--mem-fraction-static": "0.05",
    "--max-total-tokens": "32768",
    "--max-running-requests": "32",
    "--cuda-graph-backend-decode": "disabled",
    "--cuda-graph-backend-prefill": "disabled",
    "--decode-log-interval": "1",  # or its gauges move every 40 iterations only
}
SGLANG_SWITCHES = ("--enable-metrics", "--disable-overlap-schedule", "--sleep-on-idle")
LLAMACPP_FLAGS = {"--ctx-size": "4096", "--parallel": "2", "--threads": "1"}
LLAMACPP_SWITCHES = ("--metrics", "--no-webui", "--offline")
ENVIRONMENT = {
    "DO_NOT_TRACK": "1",
    "HF_HUB_OFFLINE": "1",
    "OMP_NUM_THREADS": "1",
    "SGLANG_USE_CPU_ENGINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "VLLM_NO_USAGE_STATS": "1",
}
_STOP_S, _LOOK_EVERY_S = 20.0, 0.5

EngineName = Literal["vllm", "sglang", "llamacpp"]


@dataclass(frozen=True)
class Patience:
    """How long an engine may take to come up. On a busy machine that is any number of seconds, so
    what counts is its own work.

    Attributes:
        cpu_s: CPU time that it may use (a vLLM or SGLang needs a minute or two).
        idle_s: seconds in which it says nothing and computes for less than a hundredth of them.
    """

    cpu_s: float = 900.0
    idle_s: float = 180.0


@dataclass(frozen=True)
class Wanted:
    """An engine to start.

    Attributes:
        engine: which.
        size, tokenizer: of its model, see ``random_llama.py``.
        serves: the name it gives the model.
        flags, switches: beyond the usual ones.
    """

    engine: EngineName = "vllm"
    size: str = "small"
    tokenizer: str = "words"
    serves: str = "random-llama"
    flags: Mapping[str, str] = field(default_factory=dict)
    switches: tuple[str, ...] = ()


@dataclass
class Server:
    """A running engine."""

    url: str
    process: subprocess.Popen[bytes]
    log: Path

    def tail(self) -> str:
        """The end of what it said."""
        return self.log.read_text(errors="replace")[-2_000:]


def engine_python(engine: EngineName) -> Path | None:
    """The Python to run an engine with; ``None`` if there is none."""
    named = os.environ.get(PYTHONS[engine])
    if named:
        return Path(named) if Path(named).is_file() else None
    return python_of(engine) if is_ready(engine) else None


def missing(engine: EngineName) -> str:
    """Why an engine cannot be started, and what to do."""
    return f"no {engine} here: run `make engines`, or set {PYTHONS[engine]} to a Python that has it"


@contextmanager
def serving(folder: Path, *wanted: Wanted) -> Iterator[list[Server]]:
    """Engines that answer, all started together; stopped at the end, and gone with the tests.

    Args:
        folder: for models and logs.
        wanted: what to start.

    Raises:
        RuntimeError: one did not come up; holds the end of its log.
    """
    with ExitStack() as stack:
        guard = stack.enter_context(guarding())
        servers = []
        for one in wanted:
            servers.append(_start(folder, one))
            guard.watch(servers[-1].process.pid)
            stack.callback(stop, servers[-1])
        for server in servers:
            wait(server)
        yield servers


def _start(folder: Path, wanted: Wanted) -> Server:
    python = engine_python(wanted.engine)
    if python is None:
        raise RuntimeError(missing(wanted.engine))
    environment = os.environ | ENVIRONMENT
    model = _model(python, folder, wanted, environment)
    port = free_port()
    log = folder / f"{wanted.engine}-{port}.log"
    command = [*_command(python, wanted, model.name), "--host", "127.0.0.1"]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, "--port", str(port)],
            cwd=folder,
            env=environment,
            stdout=output,
            stderr=output,
            process_group=0,
        )
    return Server(f"http://127.0.0.1:{port}", process, log)


def _model(python: Path, folder: Path, wanted: Wanted, environment: Mapping[str, str]) -> Path:
    """The model, made once."""
    if wanted.engine == "llamacpp":
        model = folder / f"{wanted.size}.gguf"
        maker = ["random_gguf.py", str(model), wanted.size]
    else:
        model = folder / f"{wanted.size}-{wanted.tokenizer}"
        maker = ["random_llama.py", str(model), wanted.size, wanted.tokenizer]
    if not model.exists():
        subprocess.run([python, HERE / maker[0], *maker[1:]], check=True, env=environment)
    return model


def _command(python: Path, wanted: Wanted, model: str) -> list[str]:
    name = "--served-model-name"
    flags: Mapping[str, str]
    if wanted.engine == "vllm":
        program = [str(python), "-m", "vllm.entrypoints.openai.api_server", "--model", model]
        program, flags = [*program, "--enforce-eager"], VLLM_FLAGS
    elif wanted.engine == "sglang":
        program = [str(python), str(HERE / "sglang_cpu.py"), "--model-path", model]
        program, flags = [*program, *SGLANG_SWITCHES], SGLANG_FLAGS
    else:
        program = [str(python.with_name("llama-server-vulkan")), "--model", model]
        program, flags, name = [*program, *LLAMACPP_SWITCHES], LLAMACPP_FLAGS, "--alias"
    pairs = [part for flag in {**flags, **wanted.flags}.items() for part in flag]
    return [*program, name, wanted.serves, *pairs, *wanted.switches]


def wait(server: Server, patience: Patience = Patience()) -> None:
    """Until it answers ``/health``.

    Raises:
        RuntimeError: it ended, hangs or goes on for ever; holds the end of its log.
    """
    seen, moved_s = (0, 0.0), time.monotonic()
    while server.process.poll() is None:
        try:
            with urllib.request.urlopen(f"{server.url}/health", timeout=30):
                return
        except (urllib.error.URLError, TimeoutError, ConnectionError):
            time.sleep(_LOOK_EVERY_S)
        now_seen = (server.log.stat().st_size, _cpu_s(server.process.pid))
        if now_seen[0] > seen[0] or now_seen[1] > seen[1] + 0.01 * patience.idle_s:
            seen, moved_s = now_seen, time.monotonic()
        if time.monotonic() - moved_s > patience.idle_s:
            raise RuntimeError(f"an engine hangs at its start:\n{server.tail()}")
        if now_seen[1] > patience.cpu_s:
            raise RuntimeError(f"an engine works for ever at its start:\n{server.tail()}")
    raise RuntimeError(f"an engine did not come up:\n{server.tail()}")


def _cpu_s(group: int) -> float:
    """CPU time of the processes of a group and of their children that have ended."""
    ticks = 0
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            fields = stat.read_text().rpartition(")")[2].split()
        except (FileNotFoundError, ProcessLookupError):
            continue  # it ended
        if int(fields[2]) == group:
            ticks += sum(map(int, fields[11:15]))
    return ticks / os.sysconf("SC_CLK_TCK")


def stop(server: Server) -> None:
    """The whole group: engines have a scheduler and a worker besides."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(server.process.pid, how)
            server.process.wait(_STOP_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
