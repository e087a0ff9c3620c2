"""A ``motley`` that is warm: the pages run sixty commands, and most of each is importing.

One process imports everything and forks for each command, which then runs ``main`` of
``router.cli.main`` as the installed command does, in the caller's folder, environment and pipes.
The ``motley`` of the reader's PATH only hands those over, and Ctrl-C.
"""

from __future__ import annotations

import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.docs.blocks import LINUX, end_with_parent

IMPORTED = (
    *("router.cli.main", "router.cli.plan", "router.cli.whatif", "router.cli.bench"),
    *("router.cli.check", "router.cli.simulate", "router.cli.evaluate", "router.cli.import_"),
    *(
        "router.cli.demo_act",
        "router.cli.demo_file",
        "router.gateway.app",
        "router.gateway.server",
        "simulator.run",
    ),
    *("simulator.whatif.study", "simulator.compare", "simulator.bench.drive", "solver.planner"),
    *(
        "solver.place",
        "router.cli.serve",
        "simulator.engine_server.host",
        "simulator.evaluate",
        "simulator.workload",
        "simulator.report.table",
    ),
)
VARIABLE = "MOTLEY_WARM"
READY_S = 60.0
CLIENT = f"""#!{sys.executable} -IS
import json, os, socket, sys
with socket.socket(socket.AF_UNIX) as server:
    server.connect(os.environ["{VARIABLE}"])
    told = json.dumps([sys.argv[1:], os.getcwd(), dict(os.environ)]).encode()
    socket.send_fds(server, [b"!"], [0, 1, 2])
    server.sendall(told)
    server.shutdown(socket.SHUT_WR)
    replies = server.makefile()
    child = int(replies.readline())
    try:
        code = replies.readline()
    except KeyboardInterrupt:
        os.kill(child, 2)
        code = replies.readline()
sys.exit(int(code or 70))
"""


@contextmanager
def warm_motley(folder: Path) -> Iterator[dict[str, str]]:
    """While inside, the environment whose ``motley`` is the warm one."""
    path = folder / "socket"
    program = folder / "motley"
    program.write_text(CLIENT)
    program.chmod(0o755)
    server = subprocess.Popen(
        [sys.executable, "-m", __name__, str(path)],
        start_new_session=True,
        preexec_fn=end_with_parent if LINUX else None,  # noqa: PLW1509 - no threads
    )
    try:
        deadline = time.monotonic() + READY_S
        while not path.exists():
            assert server.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.02)
        here = Path(sys.executable).parent
        yield {"PATH": f"{folder}:{here}:{os.environ['PATH']}", VARIABLE: str(path)}
    finally:
        os.killpg(server.pid, signal.SIGKILL)
        server.wait()


def serve(path: str) -> None:
    """Fork for whoever comes, for ever."""
    for name in IMPORTED:
        importlib.import_module(name)
    signal.signal(signal.SIGCHLD, signal.SIG_IGN)  # who has ended is nobody's
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(f"{path}.new")
        listener.listen()
        Path(f"{path}.new").rename(path)  # there only once it answers
        while True:
            caller, _ = listener.accept()
            if os.fork() == 0:
                listener.close()
                answer(caller)
            caller.close()


def answer(caller: socket.socket) -> None:
    """Run what a caller asks in a child, tell it the exit code, and end."""
    _, pipes, _, _ = socket.recv_fds(caller, 1, 3)
    words, folder, environment = json.loads(b"".join(iter(lambda: caller.recv(1 << 16), b"")))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    child = os.fork()
    if child == 0:
        caller.close()
        for number, pipe in enumerate(pipes):
            os.dup2(pipe, number)
        os.chdir(folder)
        os.environ.clear()
        os.environ.update(environment)
        run(words)
    for pipe in pipes:
        os.close(pipe)
    caller.sendall(f"{child}\n".encode())
    watch = select.poll()
    ended = os.pidfd_open(child)
    watch.register(ended, select.POLLIN)
    watch.register(caller, 0)  # its hanging up
    if ended not in dict(watch.poll()):
        os.kill(child, signal.SIGINT)
    _, status = os.waitpid(child, 0)
    caller.sendall(f"{os.waitstatus_to_exitcode(status)}\n".encode())
    os._exit(0)


def run(words: list[str]) -> None:
    """The command, as the installed one runs it."""
    from router.cli.main import main

    sys.stdout.reconfigure(line_buffering=True)  # type: ignore[union-attr]
    sys.argv = ["motley", *words]
    code: object = 70
    try:
        main()
        code = 0
    except SystemExit as error:
        code = error.code or 0
    finally:
        sys.stdout.flush()
        sys.stderr.flush()
        os._exit(code if isinstance(code, int) else 1)


if __name__ == "__main__":
    serve(sys.argv[1])
