"""The page in a real browser: it loads, lives, tells of trouble, and cannot be poisoned."""

from __future__ import annotations

import asyncio
import json
from hashlib import sha256
from typing import Any

import pytest

from tests.router.gateway.conftest import StartEngine, StartGateway
from tests.router.gateway.dashboard.browser import needs_chromium, tab
from tests.router.gateway.fakes import MODEL, chat, stream

pytestmark = [needs_chromium, pytest.mark.timeout(90)]

POISON = "<img src=x onerror=\"document.title='poisoned'\">"


def ask(**fields: Any) -> bytes:
    messages = [{"role": "user", "content": "Say hello."}]
    return json.dumps({"model": MODEL, "messages": messages, "max_tokens": 16, **fields}).encode()


async def test_it_loads_and_follows_the_traffic(engine: StartEngine, gateway: StartGateway) -> None:
    gate = await gateway(await engine(stream(["a", "b", "c"])), await engine(chat()))
    async with tab(gate.url) as page:
        await page.shows("2 of 2 up")
        await page.shows("No traffic in the last minute.")
        for _ in range(4):
            await gate.post(body=ask(stream=True))
        await page.page.locator("svg.flow text", has_text="interactive").wait_for()
        await page.page.locator("table.requests tbody tr").nth(3).wait_for()
        assert "e0" in await page.text("table.requests")
        assert await page.page.locator("svg.flow path").count() >= 1
        assert await page.page.locator("canvas").count() == 4
        assert await page.page.title() == "Motley"
    assert page.complaints == []


async def test_it_shows_a_backend_dying_and_recovering(gateway: StartGateway) -> None:
    gate = await gateway("http://127.0.0.1:9", "http://127.0.0.1:9")
    core = gate.relay.engine.dispatcher
    async with tab(gate.url) as page:
        await page.shows("2 of 2 up")
        core.set_health("e1", healthy=False, now=0.0)
        await page.shows("1 of 2 up")
        await page.shows("fails its health check")
        tile = page.page.locator('[data-backend="e1"]')
        assert "down" in (await tile.get_attribute("aria-label") or "")
        core.set_health("e1", healthy=True, now=0.0)
        await page.shows("is up again")
        await page.shows("2 of 2 up")
    assert page.complaints == []


async def test_what_a_client_sends_is_text_and_never_markup(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()), slos={POISON: {"ttft_s": 1.0}}, aliases={})
    async with tab(gate.url) as page:
        await gate.post(body=ask(model=POISON))
        await gate.post(body=ask(), **{"x-request-id": "plain", "x-tenant-id": POISON})
        await page.shows("onerror")  # told as it is
        await asyncio.sleep(0.2)
        assert await page.page.title() == "Motley"
        assert await page.page.locator('img[src="x"]').count() == 0
    assert page.complaints == []


async def test_a_key_is_asked_for_and_kept_for_the_tab(gateway: StartGateway) -> None:
    team = {"name": "team", "hash": f"sha256:{sha256(b'team').hexdigest()}"}
    gate = await gateway(
        "http://127.0.0.1:9", server={"api_keys": ["sesame"]}, access={"keys": [team]}
    )
    async with tab(gate.url) as page:
        await page.shows("asks for an API key")
        for key, why in (("wrong", "does not know that key"), ("team", "it takes an admin's")):
            await page.page.locator("input").fill(key)
            await page.page.get_by_role("button", name="Open").click()
            await page.shows(why)
            await page.shows("asks for an API key")
        await page.page.locator("input").fill("sesame")
        await page.page.get_by_role("button", name="Open").click()
        await page.shows("1 of 1 up")
    refused = ("401", "403")
    assert [text for text in page.complaints if not any(r in text for r in refused)] == []


async def test_of_two_hundred_backends_only_what_changed_is_drawn(gateway: StartGateway) -> None:
    gate = await gateway(*["http://127.0.0.1:9"] * 200)
    async with tab(gate.url, viewport={"width": 1400, "height": 900}) as page:
        await page.shows("200 of 200 up")
        assert await page.page.locator(".tile").count() == 200
        await page.page.evaluate(
            """() => {
                window.touched = new Set();
                new MutationObserver((all) => all.forEach((m) => {
                    const tile = (m.target.nodeType === 1 ? m.target : m.target.parentElement)
                        .closest("[data-backend]");
                    if (tile) window.touched.add(tile.dataset.backend);
                })).observe(document.body,
                    { subtree: true, childList: true, characterData: true, attributes: true });
            }"""
        )
        gate.relay.engine.dispatcher.set_health("e7", healthy=False, now=0.0)
        await page.shows("199 of 200 up")
        assert await page.page.evaluate("[...window.touched]") == ["e7"]
    assert page.complaints == []


async def test_a_decision_is_explained_with_its_candidates_and_what_it_came_to(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()), await engine(chat()), policy={"name": "motley"})
    asked = {"x-request-id": "why-me", "x-motley-explain": "1"}
    chosen = (await gate.post(body=ask(), **asked)).headers["x-motley-backend"]
    async with tab(gate.url) as page:
        await page.page.get_by_role("button", name="Explain a request").click()
        await page.page.locator(".accounts button", has_text="why-me").click()
        await page.shows("It came to: completed")
        assert await page.text("tr.chosen th") == chosen
        assert await page.page.locator(".explain tbody tr").count() == 2
        assert "score worse by" in await page.text(".explain tbody tr:not(.chosen) td.why") or (
            "tie" in await page.text(".explain tbody tr:not(.chosen) td.why")
        )
        await page.page.locator(".explain input").fill("no-such-request")
        await page.page.get_by_role("button", name="Explain", exact=True).click()
        await page.shows("No decision of request 'no-such-request' is kept")
    assert [text for text in page.complaints if "404" not in text] == []


async def test_it_fits_a_phone(gateway: StartGateway) -> None:
    gate = await gateway("http://127.0.0.1:9")
    async with tab(gate.url, viewport={"width": 380, "height": 800}) as page:
        await page.shows("1 of 1 up")
        wider = "document.documentElement.scrollWidth > document.documentElement.clientWidth"
        assert await page.page.evaluate(wider) is False


async def test_the_keyboard_reaches_backends_and_explanations(
    engine: StartEngine, gateway: StartGateway
) -> None:
    gate = await gateway(await engine(chat()), await engine(chat()))
    await gate.post(body=ask(), **{"x-request-id": "first"})
    async with tab(gate.url) as page:
        await page.page.locator('[data-backend="e0"]').focus()
        await page.page.keyboard.press("Enter")
        await page.shows("only e0")
        about = await page.page.get_by_role("region", name="About e0").inner_text()
        assert "waiting in the engine" in about or "not told" in about
        assert "nothing learned yet" in about
        await page.page.get_by_role("button", name="show all").press("Enter")
        await page.page.get_by_role("button", name="first").press("Enter")
        await page.shows("Why did it go there?")
        await page.page.keyboard.press("Escape")
        await page.page.locator("dialog[open]").wait_for(state="detached")
