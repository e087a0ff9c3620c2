"""Sets up the environments of the real engines and clients: ``make engines``.

``python -m tests.engines.install [vllm] [sglang] [llamacpp] [clients]``. Each gets a virtual
environment of its own in ``.engines/NAME``, from a lock file with hashes. About 6 GB in all, and
ten minutes the first time; nothing the second.

PyTorch's wheel for the CPU is not on PyPI (a "local version" such as ``2.13.0+cpu`` cannot be),
so it comes from where pip was told to look: its ``find-links`` or an extra index.
"""

from __future__ import annotations

import argparse
import hashlib
import platform
import shutil
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
HOME = ROOT / ".engines"
LOCKS = Path(__file__).parent / "locks"
TORCH = "torch==2.13.0+cpu"
TORCHES = ("vllm", "sglang")
NAMES = (*TORCHES, "llamacpp", "clients")
NODE_CLIENT = "openai@6.49.0"

NO_TORCH = f"""\
no wheel of {TORCH} for this Python was found. PyPI cannot hold it. Either name the folder where you
have it in PIP_FIND_LINKS, or PyTorch's own index for the CPU in PIP_EXTRA_INDEX_URL."""


class CannotInstallError(Exception):
    """One line (or two) that says what is missing and what to do."""


def python_of(name: str) -> Path:
    """The Python of an environment, whether it is there or not."""
    return HOME / name / "bin" / "python"


def is_ready(name: str) -> bool:
    """Whether the environment is complete and from today's lock file."""
    stamp = HOME / name / "ready"
    return stamp.is_file() and stamp.read_text() == _wanted(name)


def check_machine(system: str, machine: str, version: tuple[int, ...], libc: str) -> None:
    """Refuse a machine that the lock files are not for.

    Raises:
        CannotInstallError: says why and what to do.
    """
    if (system, machine) != ("Linux", "x86_64"):
        raise CannotInstallError(
            f"the engines are pinned for Linux on x86_64; this is {system} on {machine}"
        )
    if version[:2] != (3, 11):
        told = ".".join(map(str, version[:2]))
        raise CannotInstallError(
            f"the engines are pinned for Python 3.11; this is {told}. Remove .venv and run "
            "make engines PYTHON=/path/to/python3.11"
        )
    if not libc or tuple(int(part) for part in libc.split(".")[:2]) < (2, 34):
        raise CannotInstallError(
            f"SGLang's wheel needs glibc 2.34 or newer; this is {libc or 'another C library'}"
        )


def install(name: str) -> None:
    """Make ``.engines/NAME``, unless it is ready.

    Raises:
        CannotInstallError: no wheel of PyTorch for the CPU, or pip failed.
    """
    if is_ready(name):
        return
    folder = HOME / name
    print(f"engines: setting up {name}", flush=True)
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([sys.executable, "-m", "venv", folder], check=True)
    if name in TORCHES:
        _pip(name, [TORCH], otherwise=NO_TORCH)
    lock = LOCKS / f"{name}.txt"
    _pip(name, ["--require-hashes", "-r", str(lock)], otherwise=f"pip could not install {lock}")
    if name == "clients":
        _node_client(folder)
    (folder / "ready").write_text(_wanted(name))


def _wanted(name: str) -> str:
    lock = (LOCKS / f"{name}.txt").read_bytes()
    return f"{hashlib.sha256(lock).hexdigest()} {TORCH} {NODE_CLIENT}\n"


def _pip(name: str, arguments: list[str], *, otherwise: str) -> None:
    """The lock is complete, so nothing is resolved: that is what keeps the CUDA wheels out."""
    command = [python_of(name), "-m", "pip", "install", "--no-deps", "--only-binary", ":all:"]
    command += ["--quiet", "--disable-pip-version-check", "--progress-bar", "off", *arguments]
    if subprocess.run(command, check=False).returncode:
        raise CannotInstallError(otherwise)


def _node_client(folder: Path) -> None:
    if shutil.which("npm") is None:
        print("engines: no npm here; the Node client will be skipped")
        return
    command = ["npm", "install", "--silent", "--no-audit", "--no-fund", "--ignore-scripts"]
    subprocess.run([*command, "--prefix", str(folder / "node"), NODE_CLIENT], check=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"of: {', '.join(NAMES)}")
    names = parser.parse_args().names or list(NAMES)
    try:
        check_machine(
            platform.system(), platform.machine(), sys.version_info[:2], platform.libc_ver()[1]
        )
        for name in names:
            install(name)
    except CannotInstallError as error:
        sys.exit(f"error: {error}")


if __name__ == "__main__":
    main()
