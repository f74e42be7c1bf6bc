"""A real browser (Debian's chromium), and what it found wrong with a page."""

from __future__ import annotations

import shutil
from contextlib import asynccontextmanager
from importlib.resources import files
from typing import TYPE_CHECKING, Any

from playwright.async_api import async_playwright

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, ConsoleMessage, Page, Request

_AXE = files("axe_playwright_python").joinpath("axe.min.js").read_text("utf-8")
_SERIOUS = {"serious", "critical"}
LONGEST = 10_000
"""Milliseconds for each step."""


@asynccontextmanager
async def browser() -> AsyncIterator[Browser]:
    """Starts the browser. It has no sandbox, because the tests run as root."""
    async with async_playwright() as playwright:
        started = await playwright.chromium.launch(
            executable_path=shutil.which("chromium"), args=["--no-sandbox", "--disable-gpu"]
        )
        try:
            yield started
        finally:
            await started.close()


@asynccontextmanager
async def tab(browser: Browser, origin: str, *, ignored: tuple[str, ...] = (), **options: Any) -> AsyncIterator[Page]:
    """A tab with cookies of its own.

    At the end it must have asked `origin` only, and have reported no error and no violation of the content security
    policy, except for lines that contain one of `ignored`.
    """
    wrong: list[str] = []

    def note_request(request: Request) -> None:
        if not request.url.startswith(origin + "/"):
            wrong.append(f"request to {request.url}")

    def note_line(line: ConsoleMessage) -> None:
        if line.type in {"error", "warning"} and not any(each in line.text for each in ignored):
            wrong.append(f"{line.type}: {line.text}")

    context = await browser.new_context(base_url=origin, **options)
    context.set_default_timeout(LONGEST)
    page = await context.new_page()
    page.on("request", note_request)
    page.on("console", note_line)
    page.on("pageerror", lambda error: wrong.append(str(error)))
    try:
        yield page
    finally:
        await context.close()
    assert wrong == []


async def barriers(page: Page) -> list[str]:
    """What axe-core finds on the page that is a serious barrier to some readers."""
    await page.evaluate(_AXE)
    found = await page.evaluate("axe.run()")
    return [
        f"{each['id']}: {node['html']}: {node['failureSummary']}"
        for each in found["violations"]
        if each["impact"] in _SERIOUS
        for node in each["nodes"]
    ]
