"""``motley serve --workers N``: one port, several processes, shared limits, a clean end."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from hashlib import sha256
from pathlib import Path

import pytest

from tests.fakes.http_server import Handler, served

MODEL = "llama-3.1-8b"


class Engine(Handler):
    """Answers at once."""

    def get(self) -> None:
        self.say(b"{}")

    def post(self) -> None:
        self.read()
        usage = b'"usage":{"prompt_tokens":5,"completion_tokens":3,"total_tokens":8}'
        self.say(b'{"choices":[{"message":{"content":"hi"}}],' + usage + b"}")


@pytest.fixture
def engine() -> Iterator[str]:
    with served(Engine) as url:
        yield url


def ask(url: str) -> int:
    """Status of one request over a fresh connection; 0 if there is none."""
    body = json.dumps({"model": MODEL, "messages": []}).encode()
    headers = {"authorization": "Bearer k", "connection": "close"}
    request = urllib.request.Request(f"{url}/v1/chat/completions", body, headers)
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:
            return int(answer.status)
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def children(parent: int) -> list[int]:
    """Processes that ``parent`` started."""
    path = Path(f"/proc/{parent}/task/{parent}/children")
    return [int(pid) for pid in path.read_text().split()]


def test_what_workers_record_is_read_as_one_trace(engine: str, tmp_path: Path) -> None:
    """``motley serve --workers 2 --record DIR``, then ``motley trace DIR``."""
    path, record = tmp_path / "fleet.yaml", tmp_path / "traffic"
    config = {
        "backends": [{"gpu": "a100-80", "model": MODEL, "url": engine}],
        "server": {"port": 0},
        "telemetry": {"enabled": False},
    }
    path.write_text(json.dumps(config))
    motley = [sys.executable, "-c", "from router.cli.main import main; main()"]
    command = [*motley, "serve", "-c", str(path), "--workers", "2", "--record", str(record)]
    asked = 0
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stderr is not None
            url = parent.stderr.readline().split(" at ")[1].split("/v1")[0]
            deadline_s = time.monotonic() + 60
            while not all((record / f"worker-{n}").is_dir() for n in (0, 1)):
                assert time.monotonic() < deadline_s
                time.sleep(0.1)
            journals: list[Path] = []
            while len({file.parent for file in journals if file.stat().st_size}) < 2:
                assert time.monotonic() < deadline_s
                asked += ask(url) == 200
                journals = list(record.glob("worker-*/*.journal"))
            parent.send_signal(signal.SIGTERM)
            assert parent.wait(timeout=30) == 0
        finally:
            parent.kill()
    assert [file.name for file in record.iterdir() if file.is_file()] == [".salt"]
    read = tmp_path / "all.jsonl"
    subprocess.run([*motley, "trace", str(record), "--out", str(read)], check=True)
    assert len(read.read_text().splitlines()) == asked


@pytest.mark.skipif(not Path("/proc/self/task").exists(), reason="needs Linux's /proc")
def test_workers_share_a_port_limits_and_fate(engine: str, tmp_path: Path) -> None:
    limit = {"name": "k", "hash": f"sha256:{sha256(b'k').hexdigest()}", "requests_per_minute": 40}
    config = {
        "backends": [{"gpu": "a100-80", "model": MODEL, "url": engine}],
        "server": {"port": 0, "workers": 2},
        "access": {"keys": [limit]},
        "telemetry": {"enabled": False},
    }
    path = tmp_path / "fleet.yaml"
    path.write_text(json.dumps(config))
    command = [sys.executable, "-c", "from router.cli.main import main; main()", "serve"]
    with subprocess.Popen([*command, "-c", str(path)], stderr=subprocess.PIPE, text=True) as parent:
        try:
            assert parent.stderr is not None
            greeting = parent.stderr.readline()
            assert greeting.rstrip().endswith(", 2 workers"), greeting
            url = greeting.split(" at ")[1].split("/v1")[0]
            deadline_s = time.monotonic() + 30
            while ask(url) != 200 or len(children(parent.pid)) < 2:
                assert time.monotonic() < deadline_s
                time.sleep(0.1)
            victim = children(parent.pid)[0]
            os.kill(victim, signal.SIGKILL)
            while victim in children(parent.pid) or len(children(parent.pid)) < 2:
                assert time.monotonic() < deadline_s
                time.sleep(0.05)
            statuses = []
            while 429 not in statuses:
                assert time.monotonic() < deadline_s
                statuses.append(ask(url))
                time.sleep(0.05)
            # Each would let in 40 by itself: together they let in 40, give or take an exchange.
            assert statuses.count(200) <= 44, statuses
            parent.send_signal(signal.SIGTERM)
            assert parent.wait(timeout=30) == 0
            assert "is started again" in parent.stderr.read()
        finally:
            for pid in children(parent.pid) if parent.poll() is None else []:
                os.kill(pid, signal.SIGKILL)
            parent.kill()


def test_what_no_worker_can_run_ends_them_all(tmp_path: Path) -> None:
    path = tmp_path / "fleet.yaml"
    entry = {"gpu": "a100-80", "model": MODEL}  # no url: the parent does not look at that
    path.write_text(json.dumps({"backends": [entry], "server": {"port": 0, "workers": 2}}))
    command = [sys.executable, "-c", "from router.cli.main import main; main()", "serve"]
    ended = subprocess.run(
        [*command, "-c", str(path)], capture_output=True, text=True, timeout=60, check=False
    )
    assert ended.returncode == 2
    assert "has no url" in ended.stderr
    assert "Traceback" not in ended.stderr
