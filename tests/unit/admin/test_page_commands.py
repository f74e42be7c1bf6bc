"""What the buttons of the page do: the code of `relay release` and `relay forget`."""

from __future__ import annotations

from typing import TYPE_CHECKING

import pytest

from relay.admin.server import AdminServer
from relay.core.content import Content
from relay.core.errors import AdminError
from relay.core.record import SuppressedCopy
from relay.records.kept_copies import KeptCopies
from relay.records.selection import Selection
from relay.service import Service
from relay.settings.sources import load

if TYPE_CHECKING:
    from pathlib import Path

    from relay.page.commands import Commands

ID = "3f9c0a1b2c4d"


def commands(tmp_path: Path, **flags: str) -> Commands:
    own = {"store.url": "memory:", "upstream.url": f"maildir:{tmp_path / 'mail'}", "record.addresses": "true"}
    loaded = load(None, own | flags, {}, user_id=0)
    service = Service(loaded)
    AdminServer(service, lambda: loaded)
    assert service.commands
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


async def test_without_a_copy_or_a_claim_nothing_is_done(tmp_path: Path) -> None:
    page = commands(tmp_path)
    with pytest.raises(AdminError, match=r"record\.keep is off"):
        await page.release_copy(ID)
    assert await page.forget(Selection(records=frozenset((ID,)))) == 0
