"""The web page of a real relay: what it shows of mail that went through, and what its buttons do, counted upstream."""

from __future__ import annotations

import html
import re
from typing import TYPE_CHECKING

import aiohttp
import pytest
from parts.counted_relay import addresses
from parts.ports import HOST
from parts.shared_relay import SharedRelay
from parts.waiting import until_told

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Iterator
    from pathlib import Path

    from parts.counted_relay import CountedRelay
    from parts.peer import ScriptedPeer

ONE = addresses(1)
_ID = re.compile(rb"record ([0-9a-f]{12}),")


@pytest.fixture(scope="module")
def shared_relay(tmp_path_factory: pytest.TempPathFactory) -> Iterator[SharedRelay]:
    folder: Path = tmp_path_factory.mktemp("page")
    with SharedRelay({"record.keep": f"maildir:{folder}/kept", "dedup.reply": "explain"}) as relay:
        yield relay


@pytest.fixture
async def peer(shared_relay: SharedRelay) -> AsyncIterator[ScriptedPeer]:
    async with shared_relay.peer() as server:
        yield server


@pytest.fixture
async def page(shared_relay: SharedRelay) -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(f"http://{HOST}:{shared_relay.http_port}") as client:
        yield client


async def get(page: aiohttp.ClientSession, path: str, **query: str) -> str:
    async with page.get(path, params=query) as response:
        assert response.status == 200, await response.text()
        return html.unescape(re.sub(r"<[^>]+>", "", await response.text()))


async def say_no_repeat(page: aiohttp.ClientSession, record: str) -> str:
    async with page.get(f"/messages/{record}") as response:
        token = re.findall(r'name="token" value="(\w+)"', await response.text())[0]
    async with page.post(f"/messages/{record}/no-repeat", data={"token": token}) as response:
        assert response.status == 200, await response.text()
        return html.unescape(re.sub(r"<[^>]+>", "", await response.text()))


async def test_a_repeat_is_found_by_address_and_sent_after_all(
    relay: CountedRelay, peer: ScriptedPeer, page: aiohttp.ClientSession
) -> None:
    content = b"From: Shop <shop@example.com>\r\nSubject: Your digest\r\n\r\nHello\r\n"
    await relay.send(ONE, content)
    sent = await relay.send(ONE, content)
    found = _ID.search(sent.final.text)
    assert found
    record = found[1].decode()

    async def both_are_listed() -> bool:
        return "2 messages. Recipients:" in await get(page, "/messages", q=ONE[0].decode().upper())

    await until_told(both_are_listed, "both messages in the list")
    text = await get(page, f"/messages/{record}")
    assert "Time line of 2 copies" in text
    assert "A copy is kept. The button sends it now" in text
    text = await say_no_repeat(page, record)
    assert "The upstream accepted the copy for 1 of 1." in text
    assert 'subject = "^Your digest$"' in text
    assert peer.copies() == {ONE[0]: 2}

    text = await say_no_repeat(page, record)
    assert "1 claim was freed: the next copy goes through." in text
    await relay.send(ONE, content)
    assert peer.copies() == {ONE[0]: 3}


async def test_rules_count_what_matched(relay: CountedRelay, page: aiohttp.ClientSession) -> None:
    await relay.send(ONE, b"Subject: another\r\n\r\nmail\r\n")
    text = " ".join((await get(page, "/rules")).split())
    assert re.search(
        r"default all other messages dedupe, window 10m none: all messages that no rule matches [1-9]", text
    )
