"""A real headless Chromium, if the machine has one."""

from __future__ import annotations

import shutil
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import pytest

CHROMIUM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = [
    "--no-sandbox",
    "--disable-gpu",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--no-first-run",
]

needs_chromium = pytest.mark.skipif(
    CHROMIUM is None, reason="no Chromium: apt-get install chromium"
)


@dataclass
class Tab:
    """One page, and whatever its console complained of."""

    page: Any
    complaints: list[str] = field(default_factory=list)

    async def text(self, selector: str) -> str:
        """What a person reads there."""
        text: str = await self.page.locator(selector).first.inner_text()
        return text

    async def shows(self, text: str, within_s: float = 15.0) -> None:
        """Wait until the page shows this text."""
        await self.page.get_by_text(text).first.wait_for(timeout=within_s * 1000)


@asynccontextmanager
async def tab(url: str, **options: Any) -> AsyncIterator[Tab]:
    """Open a page; at the end its console must be clean."""
    playwright = pytest.importorskip("playwright.async_api")
    async with playwright.async_playwright() as driver:
        browser = await driver.chromium.launch(executable_path=CHROMIUM, args=FLAGS)
        page = await browser.new_page(**options)
        opened = Tab(page)
        page.on(
            "console",
            lambda m: opened.complaints.append(m.text) if m.type in {"error", "warning"} else None,
        )
        page.on("pageerror", lambda error: opened.complaints.append(str(error)))
        await page.goto(url)
        try:
            yield opened
        finally:
            await browser.close()
