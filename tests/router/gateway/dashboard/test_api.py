"""The page's files and its stream, without a browser."""

from __future__ import annotations

import asyncio
import json
import re
from importlib.resources import files

from router.gateway.dashboard.api import ASSETS
from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.fakes import chat

DEAD = "http://127.0.0.1:9"
STATIC = files("router.gateway.dashboard") / "static"


async def test_every_file_the_page_asks_for_is_served(gateway: StartGateway) -> None:
    gate = await gateway(DEAD)
    page = await gate.get("/")
    assert page.headers["content-type"].startswith("text/html")
    wanted = set(re.findall(r'"dashboard/assets/([^"]+)"', page.text))
    for name in ASSETS:
        if name.endswith(".js") and not name.startswith("vendor/"):
            source = (STATIC / name).read_text()
            wanted |= set(re.findall(r'from "\./([^"]+)"', source))
    assert {"app.js", "vendor/htm-preact.js"} <= wanted <= ASSETS.keys()
    for name, media_type in ASSETS.items():
        answer = await gate.get(f"/dashboard/assets/{name}")
        assert answer.status_code == 200, name
        assert answer.headers["content-type"].startswith(media_type)


async def test_nothing_but_the_page_can_be_fetched(gateway: StartGateway) -> None:
    gate = await gateway(DEAD)
    for name in ("../api.py", "..%2fapi.py", "%2e%2e/api.py", "/etc/passwd", "index.html", ""):
        assert (await gate.get(f"/dashboard/assets/{name}")).status_code == 404


async def test_the_page_works_offline_and_runs_no_foreign_script(gateway: StartGateway) -> None:
    gate = await gateway(DEAD)
    policy = (await gate.get("/")).headers["content-security-policy"]
    assert "script-src 'self'" in policy
    assert "connect-src 'self'" in policy
    for name in ASSETS:
        if not name.startswith("vendor/"):
            source = (STATIC / name).read_text().replace("http://www.w3.org/2000/svg", "")
            assert "://" not in source, name


async def test_the_stream_says_hello_and_then_ticks(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()))
    await gate.post()
    async with gate.client() as client, client.stream("GET", "/dashboard/stream") as answer:
        assert answer.headers["content-type"].startswith("text/event-stream")
        lines = answer.aiter_lines()
        seen: list[tuple[str, dict[str, object]]] = []
        while len(seen) < 2:
            name = (await anext(lines)).removeprefix("event: ")
            data = json.loads((await anext(lines)).removeprefix("data: "))
            assert await anext(lines) == ""
            seen.append((name, data))
    (first, hello), (second, tick) = seen
    assert (first, second) == ("hello", "tick")
    assert hello.keys() == {"snapshot", "history"}
    assert tick["totals"]["completed"] == 1  # type: ignore[index]
    assert [b["name"] for b in tick["backends"]] == ["e0"]  # type: ignore[index,attr-defined]


async def test_the_state_needs_a_key_where_keys_are_set(gateway: StartGateway) -> None:
    gate = await gateway(DEAD, server={"api_keys": ["k"]})
    assert (await gate.get("/")).status_code == 200  # holds nothing but the page
    for path in ("/dashboard/state", "/dashboard/stream"):
        assert (await gate.get(path)).status_code == 401
    state = await gate.get("/dashboard/state", authorization="Bearer k")
    assert state.json()["backends"][0]["state"] == "up"


async def test_it_can_be_switched_off(gateway: StartGateway) -> None:
    gate = await gateway(DEAD, server={"dashboard": False})
    assert (await gate.get("/")).status_code == 404
    assert (await gate.get("/dashboard/state")).status_code == 404


async def test_an_open_page_does_not_hold_up_the_end(gateway: StartGateway) -> None:
    gate = await gateway(DEAD)
    async with gate.client() as client, client.stream("GET", "/dashboard/stream") as answer:
        lines = answer.aiter_lines()
        await anext(lines)
        gate.relay.on_stop()
        async with asyncio.timeout(5.0):
            async for _ in lines:  # the stream ends by itself
                pass
