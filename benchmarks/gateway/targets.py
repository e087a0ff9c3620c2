"""What is compared: nothing in between, nginx as the floor, Motley, and peers by command line."""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path

NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log /dev/null;
events {{ worker_connections 8192; }}
http {{
  access_log off;
  client_body_temp_path {folder}; proxy_temp_path {folder}; fastcgi_temp_path {folder};
  uwsgi_temp_path {folder}; scgi_temp_path {folder};
  client_body_buffer_size 1m; keepalive_requests 1000000;
  upstream engines {{ {rule} {servers} keepalive 1024; keepalive_requests 1000000; }}
  server {{
    listen 127.0.0.1:{port};
    location / {{
      proxy_pass http://engines; proxy_http_version 1.1; proxy_set_header Connection "";
      proxy_buffering off;
    }}
  }}
}}
"""

BARE = "bare relay (Python)"
PATIENCE_S = 2.0
"""smg takes 5 s to leave, and nobody has anything to save."""


@dataclass
class Target:
    """Something that answers on a port.

    Attributes:
        name: for the table.
        port: where.
        pid: root of its processes.
        idle_mb: resident memory before anything was asked of it.
    """

    name: str
    port: int
    pid: int
    idle_mb: float = 0.0

    def stop(self) -> None:
        """Let it do nothing, not even its chores, while another one is measured."""
        _tell(_family(self.pid), signal.SIGSTOP)

    def go_on(self) -> None:
        """End ``stop``."""
        _tell(_family(self.pid), signal.SIGCONT)

    def cpu_s(self) -> float:
        """CPU seconds of all its processes so far, from the scheduler's nanoseconds."""
        total = 0
        for pid in _family(self.pid):
            for stat in Path(f"/proc/{pid}/task").glob("*/schedstat"):
                total += int(stat.read_text().split()[0])
        return total / 1e9

    def rss_mb(self) -> float:
        """Resident memory of all its processes."""
        pages = 0
        for pid in _family(self.pid):
            pages += int(Path(f"/proc/{pid}/statm").read_text().split()[1])
        return pages * os.sysconf("SC_PAGE_SIZE") / 1e6


def _family(pid: int) -> list[int]:
    children = Path(f"/proc/{pid}/task/{pid}/children").read_text().split()
    return [pid, *(member for child in children for member in _family(int(child)))]


def _tell(pids: Sequence[int], what: signal.Signals) -> None:
    for pid in pids:
        with suppress(ProcessLookupError):
            os.kill(pid, what)


def free_port() -> int:
    return free_ports(1)[0]


def free_ports(count: int) -> list[int]:
    """So many different ones: each stays taken until all are found."""
    with ExitStack() as found:
        probes = [found.enter_context(socket.socket()) for _ in range(count)]
        for probe in probes:
            probe.bind(("127.0.0.1", 0))
        return [probe.getsockname()[1] for probe in probes]


@contextmanager
def process(
    command: Sequence[str], core: int, port: int, folder: Path | None = None
) -> Iterator[int]:
    """Run a command pinned to a core until the block ends; waits for its port."""
    pinned = ["taskset", "-c", str(core), *command]
    with subprocess.Popen(
        pinned, stdout=subprocess.DEVNULL, stderr=sys.stderr, cwd=folder
    ) as running:
        try:
            _wait_for(port, running)
            yield running.pid
        finally:
            family = _family(running.pid) if running.poll() is None else []
            _tell(family, signal.SIGCONT)
            running.send_signal(signal.SIGTERM)
            try:
                running.wait(PATIENCE_S)
            except subprocess.TimeoutExpired:
                running.kill()
            _tell(family[1:], signal.SIGKILL)  # smg's child drains for minutes, on a fixed port


def _wait_for(port: int, running: subprocess.Popen[bytes]) -> None:
    for _ in range(600):
        if running.poll() is not None:
            raise SystemExit(f"{running.args!r} ended with {running.returncode}")
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.05)
    raise SystemExit(f"{running.args!r} does not listen on {port}")


@contextmanager
def nginx(
    engines: Sequence[int], core: int, weights: Sequence[int] = ()
) -> Iterator[Target | None]:
    """nginx with keep-alive to the engines, in turn or, with weights, by ``least_conn``.

    ``None`` where it is not installed.
    """
    binary = shutil.which("nginx", path=f"{os.environ['PATH']}:/usr/sbin")
    if binary is None:
        yield None
        return
    port = free_port()
    with tempfile.TemporaryDirectory() as folder:
        servers = " ".join(
            f"server 127.0.0.1:{engine} weight={weight};"
            for engine, weight in zip(engines, weights or [1] * len(engines), strict=True)
        )
        path = Path(folder) / "nginx.conf"
        path.write_text(
            NGINX.format(
                folder=folder, rule="least_conn;" if weights else "", servers=servers, port=port
            )
        )
        with process([binary, "-c", str(path)], core, port) as pid:
            yield Target("nginx", port, pid)


@contextmanager
def motley(
    engines: Sequence[int], core: int, policy: str, checkout: Path | None = None
) -> Iterator[Target]:
    """``motley serve`` with its defaults: scraper, health checks, feedback and metrics on.

    ``checkout`` is the folder of another Motley than this.
    """
    port = free_port()
    gpus = ["a100-80", "a100-40", "v100-32", "l4"]
    backends = [
        {"gpu": gpus[n % 4], "model": "llama-3.1-8b", "url": f"http://127.0.0.1:{engine}"}
        for n, engine in enumerate(engines)
    ]
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        json.dump({"backends": backends, "policy": {"name": policy}}, file)
        file.flush()
        command = [sys.executable, "-c", "from router.cli.main import main; main()"]
        command += ["serve", "-c", file.name, "--port", str(port), "--log-level", "error"]
        with process(command, core, port, checkout) as pid:
            yield Target(f"motley ({policy}, {len(engines)} backends)", port, pid)


@contextmanager
def bare(engines: Sequence[int], core: int) -> Iterator[Target]:
    """The least that a gateway in Python can cost."""
    port, script = free_port(), Path(__file__).parent / "bare_relay.py"
    command = [sys.executable, str(script), str(port), ",".join(map(str, engines))]
    with process(command, core, port) as pid:
        yield Target(BARE, port, pid)
