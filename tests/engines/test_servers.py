"""An engine that starts slowly is waited for; one that hangs or went wrong is not."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.engines.servers import Patience, Server, stop, wait
from tests.fakes.http_server import free_port

SERVE = """
import http.server, sys
class Answer(http.server.BaseHTTPRequestHandler):
    def do_GET(self):
        self.send_response(200)
        self.end_headers()
http.server.HTTPServer(("127.0.0.1", int(sys.argv[1])), Answer).serve_forever()
"""
TALK = "import time\nfor _ in range(8): print('.', flush=True); time.sleep(0.4)\n"
WORK = "import time\nwhile time.process_time() < 1.0: pass\n"


@contextmanager
def started(program: str, folder: Path) -> Iterator[Server]:
    port, log = free_port(), folder / "log"
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-c", program, str(port)],
            stdout=output,
            stderr=output,
            process_group=0,
        )
    server = Server(f"http://127.0.0.1:{port}", process, log)
    try:
        yield server
    finally:
        stop(server)


@pytest.mark.parametrize("slowly", [TALK, WORK])
def test_whoever_makes_progress_has_time(tmp_path: Path, slowly: str) -> None:
    """Without an answer for longer than that, but never without a word or work."""
    with started(slowly + SERVE, tmp_path) as server:
        wait(server, Patience(idle_s=1.5))


def test_whoever_hangs_is_given_up_with_the_end_of_its_log(tmp_path: Path) -> None:
    with (
        started("import time\nprint('loading', flush=True)\ntime.sleep(60)", tmp_path) as server,
        pytest.raises(RuntimeError, match=r"hangs at its start:\nloading"),
    ):
        wait(server, Patience(idle_s=1.0))


def test_whoever_works_for_ever_is_given_up(tmp_path: Path) -> None:
    with (
        started("while True: pass", tmp_path) as server,
        pytest.raises(RuntimeError, match="works for ever"),
    ):
        wait(server, Patience(cpu_s=0.5))


def test_whoever_ends_is_not_waited_for(tmp_path: Path) -> None:
    with (
        started("print('no such model'); raise SystemExit(1)", tmp_path) as server,
        pytest.raises(RuntimeError, match=r"did not come up:\nno such model"),
    ):
        wait(server)
