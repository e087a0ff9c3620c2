"""No route of any application opens without a key, except those on a list that is short."""

from __future__ import annotations

import asyncio
from hashlib import sha256

import pytest
from fastapi import FastAPI
from starlette.routing import BaseRoute, Route

from router.config.load import load_config
from router.gateway.admin.door import build_admin_app
from router.gateway.app import build_app
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import FakeEngine, Gateway, chat, fleet

OPEN = {
    *("/health", "/liveness", "/ready", "/readiness", "/metrics"),
    *("/", "/dashboard/assets/{name:path}"),
    *("/docs", "/docs/oauth2-redirect", "/redoc", "/openapi.json"),
}
"""Health, figures without content, the empty page with its scripts, and the documentation."""
ADMIN = ("/workers", "/add_worker", "/remove_worker", "/reload", "/debug", "/dashboard", "/list_")
USER = f"sha256:{sha256(b'user-key').hexdigest()}"
KEYS = {
    "access": {"keys": [{"name": "u", "hash": USER}]},
    "admin": {"api_keys": ["admin-key"]},
}
WRONG = [
    {},
    {"authorization": "Bearer wrong"},
    {"authorization": "bearer"},
    {"authorization": "Basic dXNlci1rZXk6"},
    {"authorization": "user-key"},
    {"authorization": "Bearer user-ke"},
    {"authorization": "Bearer user-key2"},
    {"authorization": "Bearer " + USER},
    {"x-api-key": ""},
    {"cookie": "authorization=Bearer user-key"},
    {"x-forwarded-for": "127.0.0.1", "x-real-ip": "127.0.0.1", "forwarded": "for=127.0.0.1"},
    {"x-original-url": "/health", "x-rewrite-url": "/health", "x-forwarded-prefix": "/health"},
]


def paths_of(routes: list[BaseRoute]) -> set[tuple[str, str]]:
    """(method, path) of every route."""
    found = set()
    for route in routes:
        nested = getattr(route, "routes", None)
        if nested:
            found |= paths_of(nested)
        elif isinstance(route, Route):
            found |= {(method, route.path) for method in route.methods or {"GET"}}
    return found


def routes() -> set[tuple[str, str]]:
    """Of the gateway with everything switched on, and of its admin application."""
    config = load_config(fleet("http://127.0.0.1:9", **KEYS))
    relay = build_app(config)
    app = relay._rest
    assert isinstance(app, FastAPI)
    admin = build_admin_app(app.state.runtime)
    return paths_of(list(app.router.routes)) | paths_of(list(admin.router.routes))


def concrete(path: str) -> str:
    return (
        path.replace("{name:path}", "e0").replace("{name}", "e0").replace("{", "x").replace("}", "")
    )


async def status(gate: Gateway, method: str, path: str, headers: dict[str, str]) -> int:
    async with gate.client(**headers) as client, client.stream(method, path) as answer:
        return answer.status_code


async def test_nothing_opens_without_a_key(engine: StartEngine, gateway: StartGateway) -> None:
    backend: FakeEngine = await engine(chat())
    gate = await gateway(backend, **KEYS)
    known = routes()
    assert len(known) > 25, "the routes were not found"
    closed = sorted((method, path) for method, path in known if path not in OPEN)
    async with gate.client() as client:
        for method, path in closed:
            for headers in WRONG:
                answer = await client.request(method, concrete(path), headers=headers)
                # 404 and 405: what this application does not have at all.
                assert answer.status_code in (401, 403, 404, 405), (method, path, headers)
                if answer.status_code == 404:
                    assert "There is nothing at" in answer.text, (method, path)
    assert not backend.received


async def test_a_users_key_does_not_administer(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(chat()), **KEYS)
    for method, path in sorted(routes()):
        if path in OPEN or not path.startswith(ADMIN):
            continue
        got = await status(gate, method, concrete(path), {"authorization": "Bearer user-key"})
        assert got == 403, (method, path, got)


async def test_an_admins_key_asks_no_model(engine: StartEngine, gateway: StartGateway) -> None:
    backend = await engine(chat())
    gate = await gateway(backend, **KEYS)
    assert (await gate.post(authorization="Bearer admin-key")).status_code == 401
    assert not backend.received


@pytest.mark.parametrize(
    "path",
    [
        "/workers/",
        "//workers",
        "/./workers",
        "/health/../workers",
        "/health/..%2fworkers",
        "/%77orkers",
        "/workers%00",
        "/workers;a=b",
        "/WORKERS",
        "/v1//models",
        "/v1/models/",
        "/v1/chat/completions/",
        "/dashboard/assets/../../workers",
        "/dashboard/assets/..%2f..%2fapi.py",
        "/dashboard/assets/%2e%2e/api.py",
        "/dashboard/assets//etc/passwd",
    ],
)
async def test_odd_spellings_open_nothing(
    engine: StartEngine, gateway: StartGateway, path: str
) -> None:
    gate = await gateway(await engine(chat()), **KEYS)
    for method in ("GET", "POST"):
        reader, writer = await gate.connect()
        head = (
            f"{method} {path} HTTP/1.1\r\nhost: g\r\ncontent-length: 0\r\nconnection: close\r\n\r\n"
        )
        writer.write(head.encode())
        async with asyncio.timeout(10):
            raw = await reader.read()
        writer.close()
        code = int(raw.split()[1])
        assert code in (307, 400, 401, 403, 404, 405), (method, raw[:200])
        if code == 307:  # to the spelling without the slash, which is guarded
            assert b"location: http://g/" in raw.lower()
        assert b"e0" not in raw.partition(b"\r\n\r\n")[2]
