"""The page for who sees it otherwise: a screen reader, a sleeping laptop, two people at once."""

from __future__ import annotations

import asyncio
import importlib.util
import json
from itertools import pairwise
from pathlib import Path
from typing import Any

import pytest

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.dashboard.browser import needs_chromium, tab
from tests.router.gateway.fakes import MODEL, chat

pytestmark = [needs_chromium, pytest.mark.timeout(90)]

DARK = {"viewport": {"width": 1400, "height": 900}, "color_scheme": "dark"}
LIGHT = {"viewport": {"width": 1400, "height": 900}, "color_scheme": "light"}
PHONE = {"viewport": {"width": 390, "height": 844}, "color_scheme": "light"}
OFF = {"label-content-name-mismatch": {"enabled": False}}
"""A tile's name begins with what a person would say, the backend; this rule, an experiment of
axe's, wants every figure on the tile in its name."""


@pytest.fixture
def front_end() -> str:
    """The page is the same behind both, and a browser is dear."""
    return "protocol"


def axe() -> str:
    found = importlib.util.find_spec("axe_playwright_python")
    if found is None or found.origin is None:
        pytest.skip("axe-core is not here: pip install axe-playwright-python")
    return (Path(found.origin).parent / "axe.min.js").read_text("utf-8")


async def violations(page: Any) -> list[tuple[str, str]]:
    """What axe-core finds wrong: rule, and the first element."""
    await page.evaluate(f"{axe()};0")
    found = await page.evaluate(
        "(rules) => axe.run(document, {resultTypes: ['violations'], rules})", OFF
    )
    return [(one["id"], one["nodes"][0]["html"][:200]) for one in found["violations"]]


def ask(number: int) -> bytes:
    body = {"model": MODEL, "messages": [{"role": "user", "content": str(number)}]}
    return json.dumps(body | {"max_tokens": 16}).encode()


@pytest.mark.parametrize("look", [DARK, LIGHT, PHONE], ids=["dark", "light", "phone"])
async def test_axe_has_nothing_to_say(
    engine: StartEngine, gateway: StartGateway, look: dict[str, Any]
) -> None:
    gate = await gateway(
        await engine(chat()), await engine(chat()), policy={"shadow": {"name": "round-robin"}}
    )
    await gate.post(body=ask(0), **{"x-request-id": "asked", "x-motley-explain": "1"})
    gate.relay.engine.dispatcher.set_health("e1", healthy=False, now=0.0)
    async with tab(gate.url, bypass_csp=True, **look) as page:
        await page.shows("1 of 2 up")
        await page.shows("as a shadow")
        await page.page.locator("table.requests tbody tr").first.wait_for()
        assert await violations(page.page) == []
        await page.page.get_by_role("button", name="Explain a request").click()
        await page.page.locator(".accounts button").first.click()
        await page.shows("It came to")
        assert await violations(page.page) == []


async def test_tiles_are_buttons_and_trouble_is_announced(gateway: StartGateway) -> None:
    gate = await gateway("http://127.0.0.1:9", "http://127.0.0.1:9")
    async with tab(gate.url) as page:
        tile = page.page.get_by_role("button", name="e0, ")
        await tile.press(" ")
        await page.shows("only e0")
        assert await tile.get_attribute("aria-pressed") == "true"
        live = page.page.get_by_role("list", name="Events")
        assert await live.get_attribute("aria-live") == "polite"  # before anything happens
        gate.relay.engine.dispatcher.set_health("e1", healthy=False, now=0.0)
        await live.get_by_text("fails its health check").wait_for()
        levels = await page.page.evaluate(
            "[...document.querySelectorAll('h1,h2,h3,h4')].map((h) => +h.tagName[1])"
        )
        jumps = [b - a for a, b in pairwise(levels)]
        assert levels[0] == 1
        assert max(jumps) == 1


class Wire:
    """Between the browser and the gateway; it can be cut and mended."""

    def __init__(self, url: str) -> None:
        self._gateway = url.removeprefix("http://").rsplit(":", 1)
        self._open: set[asyncio.StreamWriter] = set()
        self._server: asyncio.Server | None = None
        self.port = 0

    async def mend(self) -> None:
        self._server = await asyncio.start_server(self._join, "127.0.0.1", self.port)
        self.port = self._server.sockets[0].getsockname()[1]

    async def cut(self) -> None:
        assert self._server is not None
        self._server.close()
        for writer in self._open:
            writer.transport.abort()

    async def _join(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        host, port = self._gateway
        onward, out = await asyncio.open_connection(host, int(port))
        both = {writer, out}
        self._open |= both
        await asyncio.gather(pipe(reader, out), pipe(onward, writer), return_exceptions=True)
        self._open -= both


async def pipe(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
    try:
        while piece := await reader.read(65_536):
            writer.write(piece)
            await writer.drain()
    finally:
        writer.close()


async def test_after_a_cut_network_it_is_live_again_and_knows_what_happened(
    gateway: StartGateway,
) -> None:
    gate = await gateway("http://127.0.0.1:9", "http://127.0.0.1:9")
    wire = Wire(gate.url)
    await wire.mend()
    async with tab(f"http://127.0.0.1:{wire.port}/") as page:
        await page.shows("2 of 2 up")
        await wire.cut()
        await page.shows("reconnecting")
        gate.relay.engine.dispatcher.set_health("e1", healthy=False, now=0.0)
        await asyncio.sleep(1.5)
        assert await page.page.get_by_text("2 of 2 up").count() == 1  # it cannot know
        await wire.mend()
        await page.shows("1 of 2 up")
        assert (await page.text("[role=status]")) == "live"
    await wire.cut()
    assert [text for text in page.complaints if "ERR_" not in text] == []


async def test_a_page_that_slept_shows_what_is_now(gateway: StartGateway) -> None:
    gate = await gateway("http://127.0.0.1:9", "http://127.0.0.1:9")
    async with tab(gate.url) as page:
        await page.shows("2 of 2 up")
        wire = await page.page.context.new_cdp_session(page.page)
        await wire.send("Page.setWebLifecycleState", {"state": "frozen"})
        gate.relay.engine.dispatcher.set_health("e1", healthy=False, now=0.0)
        await asyncio.sleep(9.5)  # longer than it bears silence
        await wire.send("Page.setWebLifecycleState", {"state": "active"})
        await page.shows("1 of 2 up")
        await page.page.locator("[role=status].live").wait_for()
    assert page.complaints == []


async def test_two_pages_at_once_and_one_that_leaves(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()), await engine(chat()))
    async with tab(gate.url) as one:
        async with tab(gate.url) as other:
            for page in (one, other):
                await page.shows("2 of 2 up")
            gate.relay.engine.dispatcher.set_health("e1", healthy=False, now=0.0)
            for page in (one, other):
                await page.shows("1 of 2 up")
        assert other.complaints == []
        gate.relay.engine.dispatcher.set_health("e1", healthy=True, now=0.0)
        await one.shows("2 of 2 up")
    assert one.complaints == []


async def test_two_hundred_that_all_change_are_laid_out_once_a_tick(gateway: StartGateway) -> None:
    """Bars that grow in an animation would be laid out with every frame, sixty times a second."""
    gate = await gateway(*["http://127.0.0.1:9"] * 200)
    backends = gate.relay.engine.dispatcher.state.backends
    async with tab(gate.url, **DARK) as page:
        await page.shows("200 of 200 up")
        wire = await page.page.context.new_cdp_session(page.page)
        await wire.send("Performance.enable")
        await page.page.evaluate(
            """() => { window.ticks = 0; new MutationObserver(() => { window.ticks += 1; })
                .observe(document.querySelector("header"),
                    { subtree: true, characterData: true, childList: true }); }"""
        )
        before = await layouts(wire)
        for round_ in range(6):
            for n, backend in enumerate(backends):
                backend.in_flight = backend.decoding = (n + round_) % 8
            await asyncio.sleep(1.0)
        ticks = await page.page.evaluate("window.ticks")
        assert ticks >= 3
        assert await layouts(wire) - before < 3 * ticks
        for backend in backends:
            backend.in_flight = backend.decoding = 0
    assert page.complaints == []


async def layouts(wire: Any) -> float:
    found = await wire.send("Performance.getMetrics")
    return float({one["name"]: one["value"] for one in found["metrics"]}["LayoutCount"])
