"""Writing records: into the store, or later, or not at all, and never a fault for the mail."""

from __future__ import annotations

import asyncio
import contextlib
import dataclasses
import threading
from typing import TYPE_CHECKING

from parts.logged import events
from parts.waiting import until

from relay.claims.memory import MemoryStore
from relay.claims.store_client import BatchingStoreClient
from relay.core.claim import Original
from relay.core.content import Content
from relay.core.errors import StoreError
from relay.core.outcome import Outcome
from relay.core.record import Record, Repeat, SuppressedCopy
from relay.records.codec import decode
from relay.records.kept_copies import KeptCopies
from relay.records.writer import RecordWriter

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Sequence
    from pathlib import Path
    from typing import Any

    import pytest

    from relay.core.claim import Answer, Command

ORIGINAL = Original("0123456789ab", "<1@example.test>", "2.0.0 Ok: <a@example.test> queued as 4X", 1_700_000_000.0)
COPY = SuppressedCopy(b"s@example.test", (b"a@example.test",), Content(b"Subject: x\r\n\r\nbody\r\n"))
DAY = 86400.0


class AwayStore(MemoryStore):
    """A store that goes away and comes back."""

    away = False

    async def execute(self, commands: Sequence[Command]) -> list[Answer]:
        if self.away:
            raise StoreError("away")
        return await super().execute(commands)


class House:
    """A ledger on a guarded store, and what came of it."""

    def __init__(self, keep: KeptCopies | None = None, keep_for: float = DAY, **more: Any) -> None:
        self.store = AwayStore()
        self.guard = BatchingStoreClient(self.store, limit=5.0, probe_every=0.01)
        self.lost = 0
        self.ledger = RecordWriter(self.guard, keep_for, keep, on_lost=self._on_lost, **more)
        self.guard.subscribe(lambda up: self.ledger.store_returned() if up else None)

    def _on_lost(self) -> None:
        self.lost += 1

    async def written(self) -> list[Record]:
        """Give what the store holds, oldest first."""
        found = [decode(line) async for line in self.store.records(DAY)]
        assert all(found)
        return [record for record in reversed(found) if record]

    async def ids(self) -> list[str]:
        return [record.id for record in await self.written()]

    async def go_away(self) -> None:
        self.store.away = True
        await self.ledger.note(record(99), None)
        assert not self.guard.up

    async def come_back(self) -> None:
        self.store.away = False
        await until(lambda: self.guard.up, "the store back")


@contextlib.asynccontextmanager
async def house(*args: Any, **more: Any) -> AsyncIterator[House]:
    its = House(*args, **more)
    await its.guard.start()
    its.ledger.start()
    yield its
    await its.ledger.close()
    await its.guard.close()


def record(number: int) -> Record:
    repeat = Repeat("h:0", Outcome.SUPPRESSED, "default", "v1:0", 34.0, ORIGINAL)
    return Record(f"{number:012x}", 1_700_000_034.0, "<2@example.test>", "h:1", (repeat, repeat), {}, {})


async def test_a_record_is_in_the_store_when_note_returns() -> None:
    async with house() as its:
        await its.ledger.note(record(1), COPY)
        assert await its.written() == [record(1)]
        assert its.lost == 0


async def test_with_keep_for_0_nothing_is_recorded_or_kept(tmp_path: Path) -> None:
    async with house(KeptCopies(tmp_path / "kept"), keep_for=0.0) as its:
        await its.ledger.note(record(1), COPY)
        assert await its.written() == []
        assert KeptCopies(tmp_path / "kept").find(record(1).id) is None


# A store that goes away


async def test_what_the_store_could_not_take_is_written_when_it_returns() -> None:
    async with house() as its:
        await its.ledger.note(record(1), None)
        await its.go_away()
        for number in range(2, 502):
            await its.ledger.note(record(number), None)
        assert its.ledger.waiting == 501
        await its.come_back()
        await until(lambda: its.ledger.waiting == 0, "all written")
        assert set(await its.ids()) == {record(number).id for number in [*range(1, 502), 99]}
        assert its.lost == 0


async def test_only_so_many_wait_and_the_oldest_are_dropped_and_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with house(most_waiting=10) as its:
        await its.go_away()
        caplog.clear()
        for number in range(25):
            await its.ledger.note(record(number), None)
        assert (its.ledger.waiting, its.lost) == (10, 16)
        assert [event for event in events(caplog) if "store unavailable" not in event[1]] == [
            ("WARNING", "too many records wait for the store; the oldest are dropped", {"records": 1})
        ]
        await its.come_back()
        await until(lambda: its.ledger.waiting == 0, "all written")
        assert await its.ids() == [record(number).id for number in range(15, 25)]


async def test_a_long_record_that_waits_counts_as_several() -> None:
    long = dataclasses.replace(record(77), message_id="<" + "1" * 5_000 + "@example.test>")
    async with house(most_waiting=10) as its:
        await its.go_away()
        for _ in range(3):
            await its.ledger.note(long, None)
        assert its.ledger.waiting == 1
        for number in range(4):
            await its.ledger.note(record(number), None)
        assert (its.ledger.waiting, its.lost) == (5, 3)
        await its.come_back()
        await until(lambda: its.ledger.waiting == 0, "all written")
        assert len(await its.ids()) == 5


async def test_what_waits_is_tried_at_the_end() -> None:
    async with house() as its:
        its.store.away = True
        unaware = RecordWriter(its.guard, DAY)  # nobody tells it that the store is back
        await unaware.note(record(1), None)
        await its.come_back()
        assert unaware.waiting == 1
        await unaware.close()
        assert unaware.waiting == 0
        assert await its.ids() == [record(1).id]


async def test_what_cannot_be_written_at_the_end_is_counted(caplog: pytest.LogCaptureFixture) -> None:
    async with house() as its:
        await its.go_away()
        await its.ledger.note(record(1), None)
        await its.ledger.close()
        assert (its.lost, its.ledger.waiting) == (2, 0)
    text = "records of suppressions are lost, because the store did not answer before the end"
    assert events(caplog)[-1] == ("WARNING", text, {"records": 2})


async def test_what_a_hang_left_goes_out_behind_the_next_record() -> None:
    class Forgetful:
        """An arbiter that could not say, once; it never was down, so nobody says that it is back."""

        up = True
        first = True

        def __init__(self, guard: BatchingStoreClient) -> None:
            self.guard = guard

        async def ask(self, commands: Sequence[Command]) -> list[Answer]:
            self.first, first = False, self.first
            return self.guard._unknown(commands) if first else await self.guard.ask(commands)

    async with house() as its:
        ledger = RecordWriter(Forgetful(its.guard), DAY)
        await ledger.note(record(1), None)
        assert ledger.waiting == 1
        await ledger.note(record(2), None)
        await until(lambda: ledger.waiting == 0, "both written")
        assert sorted(await its.ids()) == [record(1).id, record(2).id]
        await ledger.close()


async def test_a_caller_that_is_cancelled_loses_no_record() -> None:
    async with house() as its:
        noting = asyncio.create_task(its.ledger.note(record(1), None))
        await asyncio.sleep(0)
        noting.cancel()
        with contextlib.suppress(asyncio.CancelledError):
            await noting
        await its.ledger.note(record(2), None)
        await until(lambda: its.ledger.waiting == 0, "both written")
        assert sorted(await its.ids()) == [record(1).id, record(2).id]


# Kept copies


async def test_a_copy_is_on_the_disk_and_named_when_note_returns(tmp_path: Path) -> None:
    keep = KeptCopies(tmp_path)
    async with house(keep) as its:
        await its.ledger.note(record(1), COPY)
        await its.ledger.note(record(2), None)
        found = keep.find(record(1).id)
        assert found
        assert [one.kept for one in await its.written()] == [found.path.name, ""]


async def test_a_copy_that_cannot_be_written_costs_the_copy_only(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    (tmp_path / "file").touch()
    async with house(KeptCopies(tmp_path / "file")) as its:
        for number in (1, 2):
            await its.ledger.note(record(number), COPY)
        assert [one.kept for one in await its.written()] == ["", ""]
        assert its.lost == 2
    [(_, _, fields)] = [event for event in events(caplog) if event[1] == "a copy could not be kept"]
    assert (fields["copies"], fields["error"].strerror, fields["error"].filename) == (
        1,
        "Not a directory",
        f"{tmp_path}/file",
    )


async def test_a_disk_that_hangs_costs_copies_and_holds_up_nothing_else(tmp_path: Path) -> None:
    never = threading.Event()

    class HungCopies(KeptCopies):
        def save(self, record: str, copy: SuppressedCopy) -> str:
            never.wait()
            return super().save(record, copy)

    async with house(HungCopies(tmp_path / "kept"), longest_save=0.02) as its:
        for number in range(5):
            await its.ledger.note(record(number), COPY)
        assert await its.written() == [record(number) for number in range(5)]
        assert its.lost == 5
        assert len(its.ledger._saving._jobs) == 0, "what was given up is not kept in memory"
    never.set()


async def test_copies_whose_time_is_over_are_cleared(tmp_path: Path) -> None:
    keep = KeptCopies(tmp_path)
    keep.save(record(1).id, COPY)
    found = keep.find(record(1).id)
    assert found
    older = found.path.with_name(f"1700000000.R{record(2).id}U00000000.host")
    older.touch()
    async with house(keep, now=lambda: found.at + DAY - 1):
        await until(lambda: keep.find(record(2).id) is None, "the older one cleared")
    assert keep.find(record(1).id)
    async with house(keep, now=lambda: found.at + DAY + 1):
        await until(lambda: keep.find(record(1).id) is None, "the copy cleared")


async def test_a_fault_of_ours_is_none_of_the_mail(caplog: pytest.LogCaptureFixture) -> None:
    unwritable: Any = {"default": (object(),)}
    async with house() as its:
        await its.ledger.note(dataclasses.replace(record(1), forms=unwritable), None)
        assert its.lost == 1
    [(_, text, fields)] = events(caplog)
    assert text == "a record could not be kept"
    assert str(fields["error"]) == "Object of type object is not JSON serializable"
