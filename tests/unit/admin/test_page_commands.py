"""What the buttons of the page do: the code of `relay release` and `relay forget`."""

from __future__ import annotations

import asyncio
import socket
import threading
from dataclasses import replace
from typing import TYPE_CHECKING

import pytest
from parts.waiting import until

from relay.admin.page_commands import PageCommands
from relay.admin.server import AdminServer
from relay.core.content import Content
from relay.core.errors import AdminError
from relay.core.record import SuppressedCopy
from relay.records.kept_copies import KeptCopies
from relay.records.selection import Selection
from relay.service import Service
from relay.settings.sources import load

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

ID = "3f9c0a1b2c4d"


@pytest.fixture
def silent_server() -> Iterator[int]:
    """The port of a server that accepts connections, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listening:
        yield listening.getsockname()[1]


def commands(tmp_path: Path, **flags: str) -> PageCommands:
    own = {"store.url": "memory:", "upstream.url": f"maildir:{tmp_path / 'mail'}", "record.addresses": "true"}
    loaded = load(None, own | flags, {}, user_id=0)
    service = Service(loaded)
    AdminServer(service, lambda: loaded)
    assert isinstance(service.commands, PageCommands)
    return service.commands


async def test_a_kept_copy_is_sent_once(tmp_path: Path) -> None:
    copies = KeptCopies(tmp_path / "kept")
    copies.save(ID, SuppressedCopy(b"a@example.com", (b"ada@example.org",), Content.from_plain(b"Subject: x\r\n\r\n")))
    page = commands(tmp_path, **{"record.keep": f"maildir:{copies.path}"})
    released = await page.release_copy(ID)
    assert (released.errors, released.done) == ([], "the upstream accepted the copy for 1 of 1")
    assert len([*(tmp_path / "mail" / "new").iterdir()]) == 1
    with pytest.raises(AdminError, match="was released before"):
        await page.release_copy(ID)


async def test_an_upstream_that_does_not_answer_is_left_alone(tmp_path: Path, silent_server: int) -> None:
    copies = KeptCopies(tmp_path / "kept")
    copies.save(ID, SuppressedCopy(b"a@example.com", (b"ada@example.org",), Content.from_plain(b"Subject: x\r\n\r\n")))
    keep = {"record.keep": f"maildir:{copies.path}", "upstream.url": f"smtp://127.0.0.1:{silent_server}"}
    page = replace(commands(tmp_path, **keep), longest=0.05)
    with pytest.raises(AdminError, match=r"no result within 0\.05 s; the release goes on"):
        await page.release_copy(ID)


async def test_a_release_that_waits_for_an_earlier_one_goes_on_after_the_limit(tmp_path: Path) -> None:
    copies = KeptCopies(tmp_path / "kept")
    copies.save(ID, SuppressedCopy(b"a@example.com", (b"ada@example.org",), Content.from_plain(b"Subject: x\r\n\r\n")))
    page = replace(commands(tmp_path, **{"record.keep": f"maildir:{copies.path}"}), longest=0.05)
    ended = threading.Event()
    earlier = asyncio.ensure_future(page.actions._releasing.run(ended.wait))
    await asyncio.sleep(0)
    with pytest.raises(AdminError, match="the release goes on"):
        await page.release_copy(ID)
    ended.set()
    await earlier
    await until(lambda: [*tmp_path.glob("mail/new/*")], "the copy in the Maildir")


async def test_without_a_copy_or_a_claim_nothing_is_done(tmp_path: Path) -> None:
    page = commands(tmp_path)
    with pytest.raises(AdminError, match=r"record\.keep is off"):
        await page.release_copy(ID)
    assert await page.forget(Selection(records=frozenset((ID,)))) == 0
