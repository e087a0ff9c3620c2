"""Several engines of unequal speed on one card: each process gets a share of its processors.

The shares are CUDA MPS's (``CUDA_MPS_ACTIVE_THREAD_PERCENTAGE``): the processors are divided, the
memory's bandwidth, the L2 cache and the power are everybody's. MPS's control daemon is a process
of the user; no setting of the card is touched.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path

CONTROL = "nvidia-cuda-mps-control"
PLACES = ("/usr/bin", "/usr/local/nvidia/bin", "/usr/local/bin", "/usr/local/cuda/bin")
READY_S = 180.0


@dataclass(frozen=True, slots=True)
class Card:
    """One engine of the fleet.

    Attributes:
        name: of the backend.
        share: percent of the card's processors.
        gpu: which type of card the gateway is told it is.
        max_seqs: most sequences at once: a slow card has less memory, too.
        pause_s: slept after each iteration, on a CPU only.
    """

    name: str
    share: int
    gpu: str
    max_seqs: int
    pause_s: float = 0.0


FLEETS: dict[str, tuple[Card, ...]] = {
    "60-20-10-10": (
        Card("fast", 60, "h100", 96),
        Card("middle", 20, "l40s", 48),
        Card("slow-1", 10, "l4", 24),
        Card("slow-2", 10, "l4", 24),
    ),
    "cpu": (
        Card("fast", 60, "h100", 24, 0.004),
        Card("middle", 20, "l40s", 12, 0.012),
        Card("slow-1", 10, "l4", 6, 0.024),
        Card("slow-2", 10, "l4", 6, 0.024),
    ),
}


@dataclass(frozen=True, slots=True)
class Engines:
    """How the engines of a fleet are started."""

    shape: str
    device: str
    seat_tokens: int
    chunk_tokens: int
    first_port: int
    logs: Path

    def url(self, number: int) -> str:
        return f"http://127.0.0.1:{self.first_port + number}"


@contextmanager
def sharing() -> Iterator[Mapping[str, str]]:
    """MPS's daemon; the environment in which a process becomes its client.

    Raises:
        FileNotFoundError: there is no MPS on this machine.
    """
    control = shutil.which(CONTROL) or next(
        (f"{place}/{CONTROL}" for place in PLACES if Path(place, CONTROL).exists()), None
    )
    if control is None:
        raise FileNotFoundError(f"{CONTROL} is not on this machine")
    with tempfile.TemporaryDirectory(prefix="mps") as folder:
        own = {"CUDA_MPS_PIPE_DIRECTORY": folder, "CUDA_MPS_LOG_DIRECTORY": folder}
        environment = os.environ | own
        subprocess.run([control, "-d"], env=environment, check=True, timeout=20)
        try:
            yield own
        finally:
            subprocess.run([control], input="quit\n", text=True, env=environment, check=False)
            for log in sorted(Path(folder).glob("*.log")):
                print(log.name, log.read_text()[-1500:], flush=True)


@contextmanager
def running(cards: Sequence[Card], engines: Engines) -> Iterator[None]:
    """The fleet, until it is left."""
    with ExitStack() as stack:
        shared = stack.enter_context(sharing()) if engines.device == "cuda" else {}
        processes = [
            stack.enter_context(_engine(card, number, engines, shared))
            for number, card in enumerate(cards)
        ]
        for number, process in enumerate(processes):
            await_health(f"{engines.url(number)}/health", process, READY_S)
        yield


@contextmanager
def _engine(
    card: Card, number: int, engines: Engines, shared: Mapping[str, str]
) -> Iterator[subprocess.Popen[bytes]]:
    words = {
        "shape": engines.shape,
        "device": engines.device,
        "port": engines.first_port + number,
        "max-seqs": card.max_seqs,
        "seat-tokens": engines.seat_tokens,
        "chunk-tokens": engines.chunk_tokens,
        "pause-s": card.pause_s,
    }
    command = [sys.executable, "-m", "benchmarks.gpu.serve"]
    command += [f"--{name}={value}" for name, value in words.items()]
    environment = os.environ | shared
    if shared:
        environment |= {"CUDA_MPS_ACTIVE_THREAD_PERCENTAGE": str(card.share)}
    with started(command, engines.logs / f"{card.name}.log", environment) as process:
        yield process


@contextmanager
def started(
    command: Sequence[str], log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A process that ends with the block."""
    with (
        log.open("wb") as out,
        subprocess.Popen(command, stdout=out, stderr=subprocess.STDOUT, env=environment) as process,
    ):
        try:
            yield process
        finally:
            process.terminate()
            try:
                process.wait(timeout=10)
            except subprocess.TimeoutExpired:
                process.kill()


def await_health(url: str, process: subprocess.Popen[bytes], within_s: float) -> None:
    """Wait until a URL answers 200.

    Raises:
        RuntimeError: its process has ended, or it took too long.
    """
    end_s = time.monotonic() + within_s
    while time.monotonic() < end_s:
        if process.poll() is not None:
            raise RuntimeError(f"{url}: its process ended with {process.returncode}")
        try:
            with urllib.request.urlopen(url, timeout=2):
                return
        except (urllib.error.URLError, OSError):
            time.sleep(0.1)
    raise RuntimeError(f"{url} was not ready within {within_s:g} s")
