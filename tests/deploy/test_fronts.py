"""nginx and Caddy in front, with the shipped files: tokens come through one by one."""

from __future__ import annotations

import asyncio
import contextlib
import re
import shutil
import socket
import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from itertools import pairwise
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import pytest

from tests.deploy.monitoring import DEPLOY
from tests.fakes.certificates import Authority
from tests.integration.fleet import MODEL, Gateway, engines, gateway

TOKENS = 60
NGINX = """
daemon off; worker_processes 1; pid {folder}/pid; error_log stderr;
events {{}}
http {{
    access_log off;
    client_body_temp_path {folder}/body; proxy_temp_path {folder}/proxy;
    fastcgi_temp_path {folder}/f; uwsgi_temp_path {folder}/u; scgi_temp_path {folder}/s;
    {site}
}}
"""


def with_nginx(folder: Path, port: int, target: str) -> list[str]:
    site = (DEPLOY / "nginx" / "motley.conf").read_text("utf-8")
    pem = Authority(folder).issue("front")
    changes = {
        "listen 443 ssl": f"listen 127.0.0.1:{port} ssl",
        "/etc/ssl/motley/fullchain.pem": str(pem),
        "/etc/ssl/motley/privkey.pem": str(pem),
        "server 127.0.0.1:8000 ": f"server {target} ",
    }
    for old, new in changes.items():
        assert old in site
        site = site.replace(old, new)
    (folder / "nginx.conf").write_text(NGINX.format(folder=folder, site=site))
    return ["nginx", "-c", str(folder / "nginx.conf"), "-p", str(folder)]


def with_caddy(folder: Path, port: int, target: str) -> list[str]:
    site = (DEPLOY / "caddy" / "Caddyfile").read_text("utf-8")
    pem = Authority(folder).issue("front")
    assert site.count("127.0.0.1:8000") == 1
    site = site.replace("127.0.0.1:8000", target)
    site = site.replace("llm.example.com {", f"https://127.0.0.1:{port} {{\n\ttls {pem} {pem}\n", 1)
    (folder / "Caddyfile").write_text("{\n\tadmin off\n\tauto_https off\n}\n" + site)
    return ["caddy", "run", "--config", str(folder / "Caddyfile"), "--adapter", "caddyfile"]


FRONTS = {"nginx": with_nginx, "caddy": with_caddy}


@asynccontextmanager
async def front(kind: str, gate: Gateway, folder: Path) -> AsyncIterator[str]:
    if shutil.which(kind) is None:
        pytest.skip(f"no {kind} on this machine: apt-get install {kind}")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    process = await asyncio.create_subprocess_exec(
        *FRONTS[kind](folder, port, urlsplit(gate.url).netloc),
        stdout=asyncio.subprocess.DEVNULL,
        stderr=asyncio.subprocess.DEVNULL,
        env={"HOME": str(folder), "PATH": "/usr/sbin:/usr/bin:/bin"},
    )
    try:
        deadline = time.monotonic() + 20
        while True:
            assert process.returncode is None, f"{kind} ended with {process.returncode}"
            assert time.monotonic() < deadline, f"{kind} does not listen"
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                break
            await asyncio.sleep(0.05)
        yield f"https://127.0.0.1:{port}"
    finally:
        process.terminate()
        await process.wait()


@pytest.mark.parametrize("kind", FRONTS)
async def test_tokens_come_through_one_by_one(kind: str, tmp_path: Path) -> None:
    with engines(speed=2.0) as config:
        async with gateway(config) as gate, front(kind, gate, tmp_path) as url:
            async with httpx.AsyncClient(verify=False, base_url=url, trust_env=False) as client:
                at = await arrivals(client)
                others = [
                    await client.get(path) for path in ("/workers", "/metrics", "/debug/fleet")
                ]
                assert {answer.status_code for answer in others} == {404}
                assert (await client.get("/health")).status_code == 200
                refused = await client.post("/v1/chat/completions", json={"model": "no"})
            await gate.settled()
    # Buffered, they would come in a few large pieces at the end.
    assert len(at) > TOKENS / 2
    spread_s = at[-1] - at[0]
    largest_gap_s = max(b - a for a, b in pairwise(at))
    assert largest_gap_s < spread_s / 2
    assert refused.status_code in (400, 404)
    assert refused.json()["error"]["message"]


async def arrivals(client: httpx.AsyncClient) -> list[float]:
    """When each piece of a streamed answer arrived."""
    body = {
        "model": MODEL,
        "stream": True,
        "max_tokens": TOKENS,
        "ignore_eos": True,
        "messages": [{"role": "user", "content": "Hi"}],
    }
    at = []
    async with client.stream("POST", "/v1/chat/completions", json=body, timeout=30) as answer:
        assert answer.status_code == 200
        async for _ in answer.aiter_raw():
            at.append(time.monotonic())
    return at


def test_the_fronts_wait_longer_than_the_gateway() -> None:
    """Else a proxy answers 504 where Motley would have said why, or retried."""
    from router.config.schema import ReliabilitySection

    total_s = ReliabilitySection().total_timeout_s
    nginx = (DEPLOY / "nginx" / "motley.conf").read_text("utf-8")
    assert int(re.findall(r"proxy_read_timeout (\d+)s", nginx)[0]) > total_s
    caddy = (DEPLOY / "caddy" / "Caddyfile").read_text("utf-8")
    assert int(re.findall(r"response_header_timeout (\d+)s", caddy)[0]) > total_s
    assert "proxy_buffering off" in nginx
    assert "flush_interval -1" in caddy
