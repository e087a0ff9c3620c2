"""``motley serve``: flags, one-line errors, and a clean end."""

from __future__ import annotations

import http.server
import json
import signal
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from router.cli.main import run
from router.cli.serve_flags import with_flags, with_own_files
from router.cli.static_fleet import static_fleet
from router.config.load import load_config
from router.domain.errors import ConfigError, UnknownNameError
from router.gateway.processes import Worker
from router.gateway.server import bind
from tests.fakes.http_server import Handler, served

MODEL = "llama-3.1-8b"


def entry(**more: object) -> dict[str, object]:
    return {"gpu": "a100-80", "model": MODEL, "url": "http://127.0.0.1:9", **more}


def write(path: Path, **content: object) -> str:
    path.write_text(json.dumps(content))  # YAML is a superset of JSON
    return str(path)


# Mistakes: one line, exit code 2, no traceback


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"backends": []}, "the fleet is empty"),
        ({"backends": [entry(url=None)]}, "'a100-80-0' has no url"),
        ({"backends": [entry(url="nonsense")]}, "not of the form http://host:port"),
        ({"backends": [entry(gpu="abacus")]}, "abacus"),
        ({"backends": [entry(gpu="t4")]}, "does not fit"),
        ({"backends": [entry()], "policy": {"name": "nope"}}, "unknown policy 'nope'"),
        ({"backends": [entry()], "speling": 1}, "speling: no such setting"),
        ({"backends": [entry()], "server": {"decision_log": "/no/such/x"}}, "decision log"),
    ],
)
def test_a_mistake_is_one_line(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], content: dict[str, object], says: str
) -> None:
    assert run(["serve", "--config", write(tmp_path / "f.yaml", **content)]) == 2
    complaint = capsys.readouterr().err
    assert complaint.startswith("error: ")
    assert says in complaint
    assert complaint.count("\n") == 1
    assert "Traceback" not in complaint


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ([], "nothing to serve"),
        (["--config", "/no/such/file.yaml"], "cannot read /no/such/file.yaml"),
        (["--static-backends", "http://127.0.0.1:9"], "does not say what it serves"),
        (
            ["--static-backends", "http://h:1,http://h:2", "--static-models", "a,b,c"],
            "--static-models lists 3 values for 2 backends",
        ),
        (["--log-level", "loud"], "unknown log level 'loud'"),
    ],
)
def test_flags_that_cannot_be_meant(
    capsys: pytest.CaptureFixture[str], arguments: list[str], says: str
) -> None:
    assert run(["serve", *arguments]) == 2
    assert says in capsys.readouterr().err


def test_a_taken_port_is_one_line(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    path = write(tmp_path / "f.yaml", backends=[entry()])
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        assert run(["serve", "-c", path, "--port", str(port)]) == 2
    assert f"port {port} on 127.0.0.1 is taken" in capsys.readouterr().err


# Flags


def test_flags_win_over_the_file() -> None:
    config = load_config({"backends": [entry()], "server": {"host": "0.0.0.0", "port": 1}})
    changed = with_flags(config, port=2, policy="round-robin", log=Path("x"))
    assert (changed.server.host, changed.server.port) == ("0.0.0.0", 2)
    assert changed.server.decision_log == "x"
    assert changed.policy.name == "round-robin"
    assert with_flags(config) == config


def test_each_worker_has_files_and_an_admin_port_of_its_own() -> None:
    sections = {"server": {"decision_log": "/x/log.jsonl"}, "admin": {"port": 9000}}
    config = load_config({"backends": [entry()], **sections})
    own = with_own_files(config, Worker(2, 8000, "", 1))
    assert own.server.decision_log == "/x/log-2.jsonl"
    assert own.admin.port == 9002
    assert with_own_files(config, None) is config


def test_parameters_stay_with_their_policy() -> None:
    config = load_config({"backends": [entry()], "policy": {"name": "motley", "seed": 4}})
    changed = with_flags(config, policy="random")
    assert (changed.policy.params, changed.policy.seed) == ({}, 4)
    with pytest.raises(UnknownNameError, match="nope"):
        with_flags(config, policy="nope")


def test_a_fleet_from_flags() -> None:
    content = static_fleet("http://a:1, http://b:2/", MODEL, "a100-80,v100-32", "vllm")
    fleet = load_config(content).fleet
    assert [(b.name, b.url, b.model) for b in fleet.backends] == [
        ("a100-80-0", "http://a:1", MODEL),
        ("v100-32-0", "http://b:2", MODEL),
    ]
    with pytest.raises(ConfigError, match="nothing to serve"):
        static_fleet("", MODEL, "a100-80", "vllm")


# A real process


class SlowEngine(Handler):
    """Streams twenty events over a second."""

    def get(self) -> None:
        self.say(b"")

    def post(self) -> None:
        self.read()
        self.send_response(200)
        self.send_header("content-type", "text/event-stream")
        self.send_header("connection", "close")
        self.end_headers()
        for n in range(20):
            self.wfile.write(b'data: {"choices":[{"delta":{"content":"%d"}}]}\n\n' % n)
            time.sleep(0.05)
        self.wfile.write(b"data: [DONE]\n\n")


@pytest.fixture
def slow_engine() -> Iterator[str]:
    with served(SlowEngine) as url:
        yield url


def test_sigterm_lets_streams_finish_and_ends_with_0(slow_engine: str) -> None:
    with bind("127.0.0.1", 0) as free:
        port = free.getsockname()[1]
    command = [
        *(sys.executable, "-c", "from router.cli.main import main; main()"),
        *("serve", "--port", str(port), "--static-backends", slow_engine),
        *("--static-models", MODEL, "--static-gpus", "a100-80"),
    ]
    with _running(command) as gateway:
        assert gateway.stderr is not None
        greeting = gateway.stderr.readline()
        assert f"serving {MODEL} on 1 backends at http://127.0.0.1:{port}/v1" in greeting
        answer = _ask(f"http://127.0.0.1:{port}")
        first = answer.readline()
        gateway.send_signal(signal.SIGTERM)
        whole = first + answer.read()
        assert whole.endswith(b"data: [DONE]\n\n")
        assert gateway.wait(timeout=20) == 0
        assert "Traceback" not in gateway.stderr.read()


def test_sigterm_is_told_before_connections_are_refused(slow_engine: str, tmp_path: Path) -> None:
    """``reliability.drain_delay_s``: load balancers look at /ready and go elsewhere."""
    config = {"backends": [entry(url=slow_engine)], "reliability": {"drain_delay_s": 1.0}}
    path = write(tmp_path / "f.yaml", **config, server={"port": 0})
    command = [sys.executable, "-c", "from router.cli.main import main; main()", "serve"]
    with _running([*command, "-c", path]) as gateway:
        assert gateway.stderr is not None
        url = gateway.stderr.readline().split(" at ")[1].split("/v1")[0]
        _ask(url).close()
        gateway.send_signal(signal.SIGTERM)
        time.sleep(0.3)
        with pytest.raises(urllib.error.HTTPError, match="503"):
            urllib.request.urlopen(f"{url}/ready", timeout=5)
        assert urllib.request.urlopen(f"{url}/health", timeout=5).status == 200
        assert gateway.wait(timeout=20) == 0


@contextmanager
def _running(command: list[str]) -> Iterator[subprocess.Popen[str]]:
    """A process that does not outlive the block, whatever fails in it."""
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        try:
            yield process
        finally:
            process.kill()


def _ask(url: str) -> http.client.HTTPResponse:
    body = json.dumps({"model": MODEL, "messages": [], "stream": True}).encode()
    request = urllib.request.Request(f"{url}/v1/chat/completions", body)
    for _ in range(200):
        try:
            answer: http.client.HTTPResponse = urllib.request.urlopen(request, timeout=20)
        except urllib.error.URLError:
            time.sleep(0.05)
        else:
            return answer
    raise AssertionError("the gateway never answered")
