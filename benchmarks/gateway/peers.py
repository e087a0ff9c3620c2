"""The peers that PyPI has, each in a virtual environment of its own: ``python peers.py`` installs.

``vllm-router`` runs with ``round_robin``, the least that it can do; ``vllm-router:cache_aware``
with another policy of its own, here the one that it has unless told otherwise.

Versions are pinned, so that a table can be made again. LiteLLM 1.107.0 was a compromised release.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
import venv
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

from targets import Target, free_ports, process

FOLDER = Path(__file__).resolve().parents[2] / ".peers"
PACKAGES = {
    "vllm-router": "vllm-router==0.1.17",
    "sglang-router": "sglang-router==0.3.2",
    "smg": "smg==1.13.0",
    "litellm": "litellm[proxy]==1.106.2",
}
_OPTIONS = "--port {port} --prometheus-port {metrics} --worker-urls {urls} --policy {policy}"
"""Their metrics have a port too, and all the same one unless told otherwise."""
CHEAPEST = "round_robin"
DEFAULT = "cache_aware"
"""Of all three that are written in Rust."""
COMMANDS = {
    "vllm-router": f"vllm-router {_OPTIONS}",
    "sglang-router": f"sglang-router launch {_OPTIONS}",
    "smg": f"smg launch {_OPTIONS}",
    "litellm": "litellm --host 127.0.0.1 --port {port} --config {config}",
}


def names() -> list[str]:
    """What can be asked for."""
    return [*PACKAGES, *(f"{name}:{DEFAULT}" for name in PACKAGES if "{policy}" in COMMANDS[name])]


def install(asked: Sequence[str]) -> None:
    """Make what is missing (LiteLLM takes 600 MB, the others 100 MB each)."""
    for name in dict.fromkeys(one.partition(":")[0] for one in asked):
        home = FOLDER / name
        if (home / ".ready").exists():
            continue
        print(f"installing {PACKAGES[name]}", file=sys.stderr)
        venv.create(home, with_pip=True, clear=True)
        pip = [str(home / "bin" / "python"), "-m", "pip", "install", "-q", PACKAGES[name]]
        subprocess.run(pip, check=True)
        (home / ".ready").touch()


@contextmanager
def running(name: str, engines: Sequence[int], core: int, policy: str = "") -> Iterator[Target]:
    """One peer in front of the engines; LiteLLM knows no policy by these names.

    Args:
        name: one of ``names``.
        engines: their ports.
        core: where it runs.
        policy: its own word; else the one behind the colon of its name, else ``round_robin``.
    """
    name, _, told = name.partition(":")
    policy = policy or told or CHEAPEST
    port, metrics = free_ports(2)
    urls = [f"http://127.0.0.1:{engine}" for engine in engines]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        models = [
            {
                "model_name": "llama-3.1-8b",
                "litellm_params": {
                    "model": "openai/llama-3.1-8b",
                    "api_base": f"{url}/v1",
                    "api_key": "none",
                },
            }
            for url in urls
        ]
        # LiteLLM refuses to start without a key of its own; here nobody but us can reach it.
        keyless = {"dangerously_permit_weak_or_unset_master_key": True}
        json.dump({"model_list": models, "general_settings": keyless}, file)
        file.flush()
        filled = COMMANDS[name].format(
            port=port, metrics=metrics, urls=" ".join(urls), config=file.name, policy=policy
        )
        command = filled.split()
        command[0] = str(FOLDER / name / "bin" / command[0])
        with process(command, core, port) as pid:
            yield Target(name, port, pid)


if __name__ == "__main__":
    install(sys.argv[1:] or list(PACKAGES))
