"""The pages about messages and rules in a real browser, with hostile mails in the store."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from parts.browser import barriers, browser, tab
from parts.listed_traces import trace
from parts.mail_stories import COPY, FIRST, hostile_mail, mail_with_copies
from parts.page_server import NOW, PageServer, page_server

from relay.core.errors import AdminError
from relay.core.trace import TraceOutcome

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from playwright.async_api import Browser, ViewportSize

    from relay.page.commands import Released
    from relay.records.selection import Selection

pytestmark = pytest.mark.asyncio(loop_scope="module")

PATHS = (
    "/messages",
    "/messages?outcome=suppressed&period=day&q=nobody",
    f"/messages/{FIRST}",
    f"/messages/{COPY}",
    "/messages/000000000bad",
    "/rules",
    f"/compare?first={FIRST}&second={COPY}",
    f"/compare?first={COPY}&second=000000000bad",
)
NARROW: ViewportSize = {"width": 360, "height": 740}
WIDE: ViewportSize = {"width": 1920, "height": 1080}
MAIL = "From: Shop <shop@example.com>\nSubject: Hello\n\nThis is number {number}.\n"


class NoClaims:
    """Commands of a relay that remembers nothing."""

    async def release_copy(self, record: str) -> Released:
        raise AdminError(record)

    async def forget(self, selection: Selection) -> int:
        del selection
        return 0


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def chromium() -> AsyncIterator[Browser]:
    async with browser() as started:
        yield started


@pytest_asyncio.fixture(loop_scope="module", scope="module")
async def page() -> AsyncIterator[PageServer]:
    """A page with many messages, a mail with copies, and a hostile one."""
    async with page_server() as server:
        outcomes = list(TraceOutcome)
        for number in range(60):
            server.traces.traces.append(trace(number + 4096, NOW - 200 - number, *outcomes[: 1 + number % 8]))
        server.traces.traces += [*mail_with_copies(NOW - 100), hostile_mail(NOW)]
        yield server


@pytest.mark.parametrize("path", PATHS)
async def test_no_page_has_a_serious_barrier_or_scrolls_sideways(
    chromium: Browser, page: PageServer, path: str
) -> None:
    scheme, size = ("light", NARROW) if PATHS.index(path) % 2 else ("dark", WIDE)
    async with tab(chromium, page.url, color_scheme=scheme, viewport=size) as opened:
        opened.on("dialog", lambda _: pytest.fail("a script of a mail runs"))
        await opened.goto(path)
        assert await barriers(opened) == []
        assert await opened.locator("main img, main script, main a[href^=http]").count() == 0
        for each in (NARROW, WIDE):
            await opened.set_viewport_size(each)
            assert await opened.evaluate("document.documentElement.scrollWidth") <= each["width"]


async def test_a_search_leads_to_a_message_and_back(chromium: Browser, page: PageServer) -> None:
    async with tab(chromium, page.url) as opened:
        await opened.goto("/messages")
        await opened.get_by_label("Address, Message-ID, id or queue id").fill("<second@videos.example>")
        await opened.keyboard.press("Enter")
        await opened.get_by_role("link", name=COPY).click()
        await opened.get_by_role("heading", name="Time line of 3 copies").wait_for()
        await opened.get_by_role("link", name=FIRST).first.click()
        await opened.get_by_role("heading", name=f"Message {FIRST}").wait_for()
        await opened.go_back()
        await opened.go_back()
        assert await opened.get_by_label("Address, Message-ID, id or queue id").input_value() == (
            "<second@videos.example>"
        )


async def test_filters_and_pages(chromium: Browser, page: PageServer) -> None:
    async with tab(chromium, page.url) as opened:
        await opened.goto("/messages")
        await opened.get_by_text("Filters").click()
        await opened.get_by_label("uncertain").check()
        await opened.get_by_label("Time", exact=True).select_option("last day")
        await opened.get_by_role("button", name="Search").click()
        await opened.get_by_text("21 messages. Recipients").wait_for()
        assert await opened.get_by_label("uncertain").is_checked()
        await opened.get_by_role("link", name="Clear").click()
        await opened.get_by_role("link", name="Older").click()
        await opened.get_by_text("on this page").wait_for()
        await opened.get_by_role("link", name="Newest").click()
        await opened.wait_for_url("**/messages")


async def test_times_of_filters_are_in_the_zone_of_the_reader(chromium: Browser, page: PageServer) -> None:
    async with tab(chromium, page.url, timezone_id="Asia/Tokyo") as opened:
        await opened.goto("/messages?since=2026-09-21T14:13&until=2026-09-21+15:00:30")
        since, until = opened.get_by_label("From", exact=True), opened.get_by_label("To", exact=True)
        assert await since.input_value() == "2026-09-21T23:13"
        assert await until.input_value() == "2026-09-22T00:00:30"
        await since.fill("2026-09-21T00:00")
        await until.fill("")
        await opened.get_by_role("button", name="Search").click()
        await opened.wait_for_url("**/messages?*since=2026-09-20T15%3A00%3A00*")
        assert await since.input_value() == "2026-09-21T00:00"
        assert await until.input_value() == ""


async def test_pasted_messages_are_tried(chromium: Browser, page: PageServer) -> None:
    async with tab(chromium, page.url) as opened:
        await opened.goto("/rules")
        await opened.get_by_label("Message", exact=True).fill(MAIL.format(number=1))
        await opened.get_by_label("Second message").fill(MAIL.format(number=2))
        await opened.get_by_role("button", name="Try").click()
        await opened.get_by_role("heading", name="Different").wait_for()
        assert await opened.locator(".edit del").inner_text() == "1"
        assert await opened.get_by_label("Message", exact=True).input_value() == MAIL.format(number=1)
        assert await barriers(opened) == []
        await opened.get_by_label("Second message").fill("")
        await opened.get_by_role("button", name="Try").click()
        await opened.get_by_role("heading", name="What would happen").wait_for()
        assert await barriers(opened) == []


async def test_a_copy_is_said_to_be_no_repeat(chromium: Browser, page: PageServer) -> None:
    page.commands = NoClaims()
    async with tab(chromium, page.url) as opened:
        await opened.goto(f"/messages/{COPY}")
        await opened.get_by_role("button", name="Let the next copy through").click()
        await opened.get_by_text("no claim is left, so that the next copy goes through").wait_for()
        assert "reverse_path = '(?i)^contact@videos\\.example$'" in await opened.locator(".toml").inner_text()
        assert await barriers(opened) == []


async def test_two_messages_are_compared(chromium: Browser, page: PageServer) -> None:
    async with tab(chromium, page.url) as opened:
        await opened.goto(f"/messages/{FIRST}")
        await opened.get_by_label("Id of the other message").fill(COPY)
        await opened.get_by_role("button", name="Compare").click()
        for number, name in enumerate((FIRST, COPY)):
            await opened.get_by_label(f"message, {name}").fill(
                MAIL.replace("This is", "The ticket").format(number=number)
            )
        await opened.get_by_role("button", name="Compare").click()
        await opened.get_by_text("With this in the settings file the two are equal.").wait_for()
        assert "(?P<ignored>[0-9]+)" in await opened.locator(".toml").inner_text()
        assert await barriers(opened) == []


async def test_everything_works_without_scripts(chromium: Browser, page: PageServer) -> None:
    async with tab(chromium, page.url, java_script_enabled=False) as opened:
        await opened.goto(f"/messages?q={COPY}")
        await opened.get_by_role("link", name=COPY).click()
        assert "2026-09-21 14:12:15 UTC" in await opened.locator(".own .when").first.inner_text()
