"""Sockets, addresses, draining, and a decision log that replays."""

from __future__ import annotations

import asyncio
import socket
import subprocess
import sys
from pathlib import Path

import pytest

from router.config.build import rebuild_dispatcher
from router.config.load import load_config
from router.domain.errors import ConfigError
from router.gateway.app import build_app
from router.gateway.log_file import LogFile
from router.gateway.server import bind, url_of
from router.gateway.upstream import Address, parse_address
from router.log_replay import replay
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import MODEL, answer, chat, fleet, reset, running, stream


@pytest.mark.parametrize(
    ("url", "address"),
    [
        ("http://h:8000", Address("h", 8000, b"h:8000", b"", False)),
        ("http://h", Address("h", 80, b"h", b"", False)),
        ("https://h", Address("h", 443, b"h", b"", True)),
        ("http://h:1/v1", Address("h", 1, b"h:1", b"", False)),
        ("http://h:1/a/v1/", Address("h", 1, b"h:1", b"/a", False)),
        ("http://[::1]:1", Address("::1", 1, b"[::1]:1", b"", False)),
    ],
)
def test_addresses(url: str, address: Address) -> None:
    assert parse_address("b", url) == address


@pytest.mark.parametrize(
    "url",
    [None, "", "h:8000", "ftp://h", "http://", "http://h:99999", "http://a..b", "http://u:p@h:1"],
)
def test_what_is_no_address(url: str | None) -> None:
    with pytest.raises(ConfigError, match="'b'"):
        parse_address("b", url)


def test_a_backend_without_a_url_cannot_be_served() -> None:
    entry = {"gpu": "a100-80", "model": MODEL}
    with pytest.raises(ConfigError, match="'a100-80-0' has no url"):
        build_app(load_config({"backends": [entry]}))


def test_a_taken_port_is_a_clear_message() -> None:
    with bind("127.0.0.1", 0) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ConfigError, match=f"port {port} on 127.0.0.1 is taken"):
            bind("127.0.0.1", port)


def test_an_address_that_is_not_ours() -> None:
    with pytest.raises(ConfigError, match="cannot listen on"):
        bind("203.0.113.1", 0)
    with pytest.raises(ConfigError, match="cannot listen on host"):
        bind("no such host", 0)


def test_the_url_of_a_socket() -> None:
    with bind("127.0.0.1", 0) as listener:
        assert url_of(listener) == f"http://127.0.0.1:{listener.getsockname()[1]}"
    if socket.has_ipv6:
        with bind("::1", 0) as listener:
            assert url_of(listener).startswith("http://[::1]:")


async def test_draining_lets_streams_finish_and_takes_nothing_new(engine: StartEngine) -> None:
    backend = await engine(stream(["a"] * 30, gap_s=0.01))
    async with running(fleet(backend)) as gate:
        asked = asyncio.create_task(gate.post())
        while not gate.books["in_flight"]:
            await asyncio.sleep(0.005)
    answered = await asked
    assert answered.content.endswith(b"data: [DONE]\n\n")
    gate.assert_at_rest()
    with pytest.raises(ConnectionError):
        await gate.connect()


async def test_the_drain_has_a_deadline(
    engine: StartEngine, caplog: pytest.LogCaptureFixture
) -> None:
    """Then what still runs is cut, its backend freed, and no traceback is written."""
    backend = await engine(stream(["a"] * 100_000, gap_s=0.01))
    async with running(fleet(backend)) as gate:
        reader, writer = await gate.ask()
        await reader.readuntil(b"data: ")
    assert gate.books["cancelled"] == 1
    gate.assert_at_rest()
    assert "Traceback" not in caplog.text
    writer.close()


async def test_two_gateways_live_in_one_process(engine: StartEngine, gateway: StartGateway) -> None:
    backend = await engine(chat())
    one, two = await gateway(backend), await gateway(backend)
    await one.post()
    assert (one.books["arrived"], two.books["arrived"]) == (1, 0)


async def test_the_decision_log_of_a_live_run_replays_byte_for_byte(
    engine: StartEngine, tmp_path: Path
) -> None:
    path = tmp_path / "decisions.jsonl"
    engines = [
        await engine(stream(["a", "b"], gap_s=0.002)),
        await engine(reset, answer(503, b""), chat()),
        await engine(answer(400, b""), chat()),
    ]
    settings = fleet(
        *engines,
        policy={"name": "motley", "seed": 3},
        server={"decision_log": str(path), "api_keys": ["k"]},
    )
    async with running(settings) as gate:
        await asyncio.gather(
            *(gate.post(x_request_id=f"r{n}", authorization="Bearer k") for n in range(40))
        )
        await gate.post(body=b'{"model":"nope"}', authorization="Bearer k")
        _, writer = await gate.ask()
        writer.close()
    lines = path.read_bytes().splitlines(keepends=True)
    calls = replay(iter(lines), rebuild_dispatcher)
    assert calls == len(lines) - 1
    assert calls >= 2 * 40


def test_a_log_that_cannot_be_written_is_said_at_once(tmp_path: Path) -> None:
    with pytest.raises(ConfigError, match="cannot write the decision log"):
        LogFile(str(tmp_path / "no" / "such" / "folder.jsonl"))


def test_a_full_disk_ends_the_log_and_nothing_else(caplog: pytest.LogCaptureFixture) -> None:
    log = LogFile("/dev/full")
    for _ in range(100):
        log.write(b"x" * 1000 + b"\n")
    log.close()
    assert caplog.text.count("ends here: No space left on device") == 1


def test_the_gateway_loads_no_solver_unless_it_plans() -> None:
    """SciPy and HiGHS would take 40 MB and seconds of every start."""
    script = (
        "import sys, router.gateway.server; from router.gateway.app import build_app; "
        "from router.config.load import load_config; "
        "build_app(load_config({'backends': [{'gpu': 't4', 'model': 'qwen2.5-1.5b', "
        "'url': 'http://127.0.0.1:9'}]})); "
        "unwanted = {'cvxpy', 'numpy', 'scipy', 'highspy', 'simpy', 'httpx', 'rich'}; "
        "loaded = unwanted & set(sys.modules); "
        "sys.exit(repr(sorted(loaded)) if loaded else 0)"
    )
    ended = subprocess.run(
        [sys.executable, "-c", script], check=False, capture_output=True, text=True
    )
    assert ended.returncode == 0, ended.stderr
