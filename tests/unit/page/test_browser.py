"""The page in a real browser, with hostile mails and log lines."""

from __future__ import annotations

import logging
import re
from contextlib import AsyncExitStack
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from parts.browser import barriers, browser, tab
from parts.listed_traces import trace
from parts.page_server import NOW, PASSWORD, PageServer, page_server

from relay.core.trace import TraceOutcome
from relay.page.live import MOST_STREAMS

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    from playwright.async_api import Browser

pytestmark = pytest.mark.asyncio(loop_scope="module")

HOSTILE = '"><img src=x onerror=alert(1)><script>alert(2)</script>\u202egnp.exe \x1b[2J http://evil.example/'
PATHS = ("/", "/settings")
NARROW, WIDE = {"width": 360, "height": 740}, {"width": 1920, "height": 1080}


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def page() -> AsyncIterator[PageServer]:
    """A page with traffic, and with a warning that quotes a hostile server."""
    async with page_server(live_every=0.05) as server:
        outcomes = list(TraceOutcome)
        for number in range(200):
            found = outcomes[: 1 + number % len(outcomes)]
            server.traces.traces.append(trace(number, NOW - number**2, *found))
        values = {"msg": HOSTILE, "levelno": logging.WARNING, "levelname": "WARNING", "created": NOW}
        server.warnings.handle(logging.makeLogRecord(values))
        for counter in server.metrics._repeats.values():
            counter.inc()
        yield server


@pytest.mark.parametrize("path", PATHS)
async def test_no_page_has_a_serious_barrier_or_scrolls_sideways(
    chromium: Browser, page: PageServer, path: str
) -> None:
    for scheme, size in (("light", NARROW), ("dark", WIDE)):
        async with tab(chromium, page.url, color_scheme=scheme, viewport=size) as opened:
            await opened.goto(path)
            assert await barriers(opened) == []
            assert await opened.evaluate("document.documentElement.scrollWidth") <= size["width"]


async def test_hostile_text_is_shown_and_does_nothing(chromium: Browser, page: PageServer) -> None:
    async with tab(chromium, page.url) as opened:
        opened.on("dialog", lambda _: pytest.fail("a script of a mail runs"))
        await opened.goto("/")
        text = await opened.locator("#warnings li").first.inner_text()
        assert "<script>alert(2)</script>\\u202egnp.exe \\x1b[2J http://evil.example/" in text
        assert await opened.locator("img, a[href*=evil]").count() == 0


async def test_the_overview_renews_itself(chromium: Browser, page: PageServer) -> None:
    async with tab(chromium, page.url) as opened:
        await opened.goto("/")
        assert await opened.locator("#state h2").inner_text() == "Mail flows"
        page.ready, before = False, dict(page.parts)
        page.parts["upstream"] = "down"
        await opened.get_by_role("heading", name="Mail cannot flow").wait_for()
        page.ready = True
        page.parts.update(before)
        await opened.get_by_role("heading", name="Mail flows").wait_for()


async def test_a_page_that_is_not_renewed_says_so(chromium: Browser, page: PageServer) -> None:
    async with AsyncExitStack() as stack, tab(chromium, page.url, ignored=("status of 503",)) as opened:
        for _ in range(MOST_STREAMS):
            await stack.enter_async_context(page.client.get(page.url + "/events"))
        await opened.goto("/")
        notice = opened.get_by_role("status").filter(has_text="Not renewed since")
        await notice.wait_for()
        assert re.search(
            r"Not renewed since \d+:\d\d:\d\d.*: the relay does not answer, your session is over",
            await notice.inner_text(),
        )
        assert await barriers(opened) == []


async def test_times_are_shown_in_the_zone_of_the_reader(chromium: Browser, page: PageServer) -> None:
    async with tab(chromium, page.url, timezone_id="Asia/Tokyo", locale="en-GB") as opened:
        await opened.goto("/")
        time = opened.locator("#warnings time").first
        assert await time.inner_text() == "21 Sept, 23:13:20"
        assert (
            await time.get_attribute("title") == "Monday, 21 September 2026 at 23:13:20 GMT+9 · 2026-09-21 14:13:20 UTC"
        )
        assert (await opened.locator("figure time").all_inner_texts())[2] == "23:14"
        title = opened.locator("figure g title").last
        assert (await title.text_content() or "").startswith("23:00 to 23:15: ")


async def test_without_scripts_everything_is_there_in_utc(chromium: Browser, page: PageServer) -> None:
    async with tab(chromium, page.url, java_script_enabled=False) as opened:
        await opened.goto("/")
        assert (await opened.locator("figure time").all_inner_texts())[2] == "14:14 UTC"
        await opened.get_by_role("link", name="Settings").click()
        assert await opened.locator("h1").inner_text() == "Settings in force"


async def test_the_page_is_usable_by_keyboard(chromium: Browser, page: PageServer) -> None:
    async with tab(chromium, page.url) as opened:
        await opened.goto("/settings")
        await opened.keyboard.press("Tab")
        assert await opened.evaluate("document.activeElement.textContent") == "Skip to content"
        await opened.keyboard.press("Enter")
        assert await opened.evaluate("document.activeElement.id") == "main"
        for name in ("smtp-dedup-relay", "Overview"):
            await opened.get_by_role("link", name=name, exact=True).focus()
            outline = await opened.evaluate("getComputedStyle(document.activeElement).outlineStyle")
            assert outline != "none"
        await opened.keyboard.press("Enter")
        await opened.wait_for_url("**/")


async def test_a_user_logs_in_and_out(chromium: Browser, tmp_path: Path) -> None:
    refused = ("status of 403",)
    async with page_server(tmp_path / "users") as page, tab(chromium, page.url, ignored=refused) as opened:
        await opened.goto("/settings")
        assert await barriers(opened) == []
        await opened.get_by_label("Name").fill("ada")
        await opened.get_by_label("Password").fill("wrong")
        await opened.get_by_role("button", name="Log in").click()
        assert await opened.get_by_role("alert").inner_text() == "Name or password is wrong."
        await opened.get_by_label("Name").fill("ada")
        await opened.get_by_label("Password").fill(PASSWORD)
        await opened.get_by_role("button", name="Log in").click()
        await opened.wait_for_url("**/settings")
        await opened.get_by_role("button", name="Log out").click()
        await opened.wait_for_url("**/login")
        await opened.goto("/")
        await opened.wait_for_url("**/login?next=/")


@pytest.mark.parametrize("state", ["empty", "broken"])
async def test_an_empty_or_broken_trace_is_explained(chromium: Browser, state: str) -> None:
    async with page_server() as page, tab(chromium, page.url) as opened:
        page.traces.broken = "disk I/O error" if state == "broken" else ""
        await opened.goto("/")
        words = "No message in the last day" if state == "empty" else "The trace cannot be read now: disk I/O error"
        assert words in await opened.locator("#outcomes").inner_text()
        assert await barriers(opened) == []
