"""Saving suppressed copies: on the disk, or not at all, and never a fault for the mail."""

from __future__ import annotations

import contextlib
import threading
from typing import TYPE_CHECKING, Any

from parts.waiting import until

from relay.core.content import Content
from relay.core.record import SuppressedCopy
from relay.records.copy_keeper import CopyKeeper
from relay.records.kept_copies import KeptCopies

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

    import pytest

COPY = SuppressedCopy(b"s@example.test", (b"a@example.test",), Content(b"Subject: x\r\n\r\nbody\r\n"))
DAY = 86400.0
ID, OTHER_ID = "000000000001", "000000000002"


class Keeper(CopyKeeper):
    """A keeper that counts what it loses."""

    lost = 0

    def __init__(self, copies: KeptCopies, **more: Any) -> None:
        super().__init__(copies, DAY, on_lost=self._count, **more)

    def _count(self) -> None:
        self.lost += 1


@contextlib.asynccontextmanager
async def keeper(copies: KeptCopies, **more: Any) -> AsyncIterator[Keeper]:
    made = Keeper(copies, **more)
    made.start()
    yield made
    await made.close()


async def test_a_copy_is_on_the_disk_when_its_name_is_known(tmp_path: Path) -> None:
    copies = KeptCopies(tmp_path)
    async with keeper(copies) as saving:
        name = await saving.save(ID, COPY)
        found = copies.find(ID)
        assert found
        assert found.path.name == name
        assert saving.lost == 0


async def test_a_copy_that_cannot_be_written_costs_the_copy_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    async with keeper(KeptCopies(tmp_path / "file")) as saving:
        assert [await saving.save(each, COPY) for each in (ID, OTHER_ID)] == ["", ""]
        assert saving.lost == 2
    assert caplog.text.count("a copy could not be kept") == 1


async def test_a_disk_that_hangs_costs_copies_and_keeps_none_in_memory(tmp_path: Path) -> None:
    never = threading.Event()

    class HungCopies(KeptCopies):
        def save(self, record: str, copy: SuppressedCopy) -> str:
            never.wait()
            return super().save(record, copy)

    async with keeper(HungCopies(tmp_path / "kept"), longest_save=0.02) as saving:
        for _ in range(5):
            assert await saving.save(ID, COPY) == ""
        assert saving.lost == 5
        assert len(saving._saving._jobs) == 0
    never.set()


async def test_expired_copies_are_removed(tmp_path: Path) -> None:
    copies = KeptCopies(tmp_path)
    copies.save(ID, COPY)
    found = copies.find(ID)
    assert found
    older = found.path.with_name(f"1700000000.R{OTHER_ID}U00000000.host")
    older.touch()
    async with keeper(copies, now=lambda: found.at + DAY - 1):
        await until(lambda: copies.find(OTHER_ID) is None, "the older one removed")
    assert copies.find(ID)
    async with keeper(copies, now=lambda: found.at + DAY + 1):
        await until(lambda: copies.find(ID) is None, "the copy removed")
