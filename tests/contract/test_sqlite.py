"""What SQLite adds: the file, its rights, its errors, its clock, several processes."""

from __future__ import annotations

import asyncio
import fcntl
import json
import os
import re
import sqlite3
import subprocess
import sys
import threading
from contextlib import closing
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING

import pytest
import pytest_asyncio
from parts.logged import events
from parts.old_records import OldRecord, write_to_sqlite

from relay.claims.sqlite.boot import Boot
from relay.claims.sqlite.commands import _RECORDS, _SWEEPS
from relay.claims.sqlite.store import SqliteStore
from relay.claims.wire_form import encode
from relay.core.claim import (
    AskGeneration,
    Claim,
    Confirm,
    Done,
    Entry,
    Fingerprint,
    Follow,
    Free,
    Full,
    Held,
    Original,
    Peek,
    Release,
    Sent,
    Token,
    Unknown,
    Won,
)
from relay.core.errors import StoreError
from relay.core.sequence import SequenceName, SequenceState

if TYPE_CHECKING:
    from collections.abc import AsyncIterator
    from pathlib import Path

KEY = Fingerprint("v1:" + "3f" * 32)
TOKEN = Token("mine")
ORIGINAL = Original("rec-1", "<1@example.org>", "250 ok", 1.0)
CLAIM = Claim(KEY, TOKEN, 30, 600)
PEEK = Peek(KEY, 600)
SEQUENCE = SequenceName("q4:s")
SPOILT = bytes(4096) + b"\xa5" * 4096
"""No database any more: a crash has left its first page empty."""
STRANGE = b"From: somebody\n" * 1000
"""A file that never was one."""


class Clock:
    """The wall clock, and one that counts since the host booted: it goes with the first, but cannot be set."""

    now = 1_700_000_000.0
    booted_at = now - 5_000
    boot_id = "one"

    def __call__(self) -> float:
        return self.now

    def set(self, seconds: float) -> None:
        self.now += seconds
        self.booted_at += seconds

    def reboot(self) -> None:
        self.boot_id += "'"
        self.booted_at = self.now - 10

    @property
    def boot(self) -> Boot:
        return Boot(self.boot_id, lambda: self.now - self.booted_at)


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def path(tmp_path: Path) -> Path:
    return tmp_path / "state" / "claims.db"


@pytest_asyncio.fixture
async def store(path: Path, clock: Clock) -> AsyncIterator[SqliteStore]:
    store = SqliteStore(path, clock=clock, busy_timeout=0.05, boot=clock.boot)
    yield store
    await store.close()


def other(path: Path) -> closing[sqlite3.Connection]:
    return closing(sqlite3.connect(path, isolation_level=None))


def put(path: Path, content: bytes) -> Path:
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(content)
    return path


def content(path: Path) -> bytes:
    return path.read_bytes()


async def spoil(store: SqliteStore, path: Path, now: bytes = SPOILT) -> None:
    """Have the file hold something else when it is opened for the next time, which is at once."""
    await store._thread.run(store._file.close)
    put(path, now)


def damage(path: Path) -> bytes:
    """Leave the first page alone: it looks like a database of ours. Give what it holds now."""
    whole = content(path)
    damaged = whole[:4096] + b"\xa5" * (len(whole) - 4096)
    path.write_bytes(damaged)
    return damaged


def rename(path: Path, name: str) -> None:
    path.rename(path.with_name(name))


def link(path: Path, target: Path) -> None:
    path.symlink_to(target)


def is_ours(path: Path) -> bool:
    return path.read_bytes().startswith(b"SQLite format 3")


async def fails(store: SqliteStore, path: Path, reason: str) -> None:
    with pytest.raises(StoreError, match=reason) as caught:
        await store.execute([CLAIM])
    assert str(path) in str(caught.value)


async def test_only_we_can_read_the_files(store: SqliteStore, path: Path) -> None:
    await store.execute([CLAIM])
    assert path.parent.stat().st_mode & 0o777 == 0o700
    files = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert files == {"claims.db": 0o600, "claims.db-wal": 0o600, "claims.db-shm": 0o600}


async def test_a_folder_that_exists_keeps_its_rights(path: Path, store: SqliteStore) -> None:
    path.parent.mkdir(mode=0o755)
    await store.open()
    assert path.parent.stat().st_mode & 0o777 == 0o755


async def test_claims_and_identity_outlive_the_process(store: SqliteStore, path: Path, clock: Clock) -> None:
    identity = await store.identity()
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    await store.close()
    second = SqliteStore(path, clock=clock, boot=clock.boot)
    assert await second.execute([PEEK]) == [Sent(ORIGINAL, 0.0)]
    assert await second.identity() == identity
    await second.close()


async def test_a_lock_that_stays_is_an_error_and_no_more_once_it_has_gone(store: SqliteStore, path: Path) -> None:
    await store.open()
    with other(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        await fails(store, path, "locked")
    assert await store.execute([CLAIM]) == [Won()]


async def test_a_full_disk(store: SqliteStore, path: Path) -> None:
    await store.open()
    # As full as SQLite's own limit can make it, which its next connection no longer has.
    await store._thread.run(lambda: store._file.open().execute("PRAGMA max_page_count = 1"))
    many = [Claim(Fingerprint(f"v1:{number:064x}"), TOKEN, 30, 600) for number in range(500)]
    with pytest.raises(StoreError, match="the disk is full"):
        await store.execute(many)
    assert await store.execute([Peek(many[0].key, 600), CLAIM]) == [Free(), Won()], (
        "a batch is carried out or not at all"
    )


async def test_a_fault_of_ours_in_a_batch_leaves_nothing_behind(store: SqliteStore) -> None:
    with pytest.raises(UnicodeEncodeError):
        await store.execute([CLAIM, Claim(Fingerprint("\udcff"), TOKEN, 30, 600)])
    assert await store.execute([PEEK, CLAIM]) == [Free(), Won()]


def set_aside(path: Path) -> list[Path]:
    """Returns the databases that were set aside."""
    return sorted(file for file in path.parent.glob("claims.db.damaged-*") if not file.name.endswith(("-wal", "-shm")))


async def test_a_file_that_is_no_database_is_set_aside(
    store: SqliteStore, path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    put(path, SPOILT)
    assert await store.execute([CLAIM]) == [Won()]
    [aside] = set_aside(path)
    assert re.fullmatch(r"claims\.db\.damaged-\d{8}T\d{6}Z", aside.name)
    assert aside.read_bytes() == SPOILT
    [(level, _, fields)] = events(caplog)
    assert level == "ERROR"
    assert fields["error"].startswith(f"{path}: it is not a database")
    assert fields["path"] == str(aside)
    assert store.restarts == 1


async def test_a_file_damaged_before_the_start_is_set_aside(store: SqliteStore, path: Path, clock: Clock) -> None:
    await store.execute([Confirm(Fingerprint(f"v1:{number:064x}"), ORIGINAL, 600) for number in range(500)])
    await store.close()
    damaged = damage(path)
    fresh = SqliteStore(path, clock=clock, boot=clock.boot)
    assert await fresh.execute([CLAIM, PEEK]) == [Won(), Held(30)]
    assert [aside.read_bytes() for aside in set_aside(path)] == [damaged]
    await fresh.close()


async def test_a_file_damaged_while_it_is_used_is_set_aside_with_what_lies_beside_it(
    store: SqliteStore, path: Path
) -> None:
    await store.execute([Confirm(Fingerprint(f"v1:{number:064x}"), ORIGINAL, 600) for number in range(500)])
    with other(path) as connection:
        connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    await store.execute([CLAIM])
    wal = path.with_name("claims.db-wal").read_bytes()
    assert wal
    damaged = damage(path)
    # What it has read already SQLite does not read again.
    await store._thread.run(lambda: store._file.open().execute("PRAGMA shrink_memory"))
    many = [Peek(Fingerprint(f"v1:{number:064x}"), 600) for number in range(500)]
    assert await store.execute(many) == [Free()] * 500
    assert store.restarts == 1
    [aside] = set_aside(path)
    assert aside.read_bytes() == damaged
    assert aside.with_name(f"{aside.name}-wal").read_bytes() == wal
    assert aside.with_name(f"{aside.name}-shm").exists()
    assert await store.execute([CLAIM]) == [Won()]


@pytest.mark.parametrize("name", ["claims.db", "claims.toml"])
async def test_a_file_that_is_no_relays_stays_in_its_place(
    path: Path, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    path = put(path.with_name(name), STRANGE)
    store = SqliteStore(path)
    for _ in range(2):
        await fails(store, path, "it is not a database .*Name another file in store.url, or move this one away")
    await store.close()
    assert [(file.name, file.read_bytes()) for file in path.parent.iterdir()] == [(name, STRANGE)]
    assert caplog.records == []


@pytest.mark.parametrize(
    "left",
    [
        bytes(16) + STRANGE,
        b"SQLite format 3\0" + STRANGE,
        b"\xa5" * 100 + bytes(3000) + b"CREATE TABLE claims (" + STRANGE,
    ],
    ids=["an empty header", "SQLite's header", "our schema"],
)
async def test_what_is_left_of_a_database_of_ours_is_set_aside(store: SqliteStore, path: Path, left: bytes) -> None:
    put(path, left)
    assert await store.execute([CLAIM]) == [Won()]
    assert [aside.read_bytes() for aside in set_aside(path)] == [left]


@pytest.mark.parametrize("end", ["-wal", "-shm"])
async def test_what_lies_beside_what_sqlite_keeps_is_set_aside(store: SqliteStore, path: Path, end: str) -> None:
    put(path, STRANGE)
    put(path.with_name(path.name + end), b"")
    assert await store.execute([CLAIM]) == [Won()]
    assert [aside.read_bytes() for aside in set_aside(path)] == [STRANGE]


@pytest.mark.parametrize(("mode", "size"), [(0o600, 8_192), (0o644, 8_192), (0o600, 8_191)])
async def test_whole_pages_that_only_we_can_read_are_ours(path: Path, mode: int, size: int) -> None:
    put(path, b"\xa5" * size).chmod(mode)
    store = SqliteStore(path)
    if (mode, size) == (0o600, 8_192):
        assert await store.execute([CLAIM]) == [Won()]
    else:
        await fails(store, path, "it is not a relay's database")
    assert len(set_aside(path)) == ((mode, size) == (0o600, 8_192))
    await store.close()


async def test_the_schema_of_a_real_file_tells_that_it_is_ours(store: SqliteStore, path: Path, clock: Clock) -> None:
    await store.execute([CLAIM])
    await store.close()
    put(path, b"\xa5" * 1024 + content(path)[1024:])
    fresh = SqliteStore(path, clock=clock, boot=clock.boot)
    assert await fresh.execute([CLAIM]) == [Won()]
    assert len(set_aside(path)) == 1
    await fresh.close()


async def test_what_this_process_has_used_is_ours_whatever_it_holds_now(store: SqliteStore, path: Path) -> None:
    await store.execute([CLAIM])
    await spoil(store, path, STRANGE)
    assert await store.execute([CLAIM]) == [Won()]
    assert len(set_aside(path)) == 1


async def test_a_second_damaged_file_within_an_hour_stays(
    store: SqliteStore, path: Path, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    """A broken disk would damage one after the other, and each look at it would leave a file behind."""
    put(path, SPOILT)
    assert await store.execute([CLAIM]) == [Won()]
    clock.now += 3_599
    for _ in range(3):
        await spoil(store, path)
        await fails(store, path, "a second damaged file within an hour; it stays where it is. Look at the disk")
    assert [content(file) for file in (*set_aside(path), path)] == [SPOILT] * 2
    assert len(caplog.records) == 1
    clock.set(-3_600)
    await fails(store, path, "a second damaged file")
    clock.now += 3_601
    assert await store.execute([CLAIM]) == [Won()]
    assert len(set_aside(path)) == 2


async def test_a_second_damaged_file_that_was_replaced_is_left_for_the_new_one(store: SqliteStore, path: Path) -> None:
    put(path, SPOILT)
    assert await store.execute([CLAIM]) == [Won()]
    await spoil(store, path)
    await fails(store, path, "a second damaged file")
    rename(path, "aside")
    assert await store.execute([CLAIM]) == [Won()]


async def test_nothing_is_written_over_what_was_set_aside_before(store: SqliteStore, path: Path) -> None:
    now = datetime.now(UTC)
    for seconds in range(60):
        put(path.with_name(f"claims.db.damaged-{now + timedelta(seconds=seconds):%Y%m%dT%H%M%SZ}"), b"earlier")
    put(path, SPOILT)
    assert await store.execute([CLAIM]) == [Won()]
    later = [aside.name for aside in set_aside(path) if aside.read_bytes() != b"earlier"]
    assert len(set_aside(path)) == 61
    assert [name.endswith("Z-2") for name in later] == [True]


async def test_of_two_that_find_a_damaged_file_one_sets_it_aside(path: Path) -> None:
    for number in range(20):
        put(path, SPOILT)
        both = [SqliteStore(path), SqliteStore(path)]
        claims = [Claim(KEY, Token(token), 30, 600) for token in ("one", "two")]
        answers = await asyncio.gather(*(store.execute([claim]) for store, claim in zip(both, claims, strict=True)))
        assert {type(answer) for (answer,) in answers} == {Won, Held}
        assert len(set_aside(path)) == number + 1
        for store in both:
            await store.close()


async def test_while_another_process_sets_it_aside_it_is_waited_for(
    store: SqliteStore, path: Path, clock: Clock
) -> None:
    put(path, SPOILT)
    folder = os.open(path.parent, os.O_RDONLY)
    fcntl.flock(folder, fcntl.LOCK_EX)
    waiting = asyncio.create_task(store.execute([CLAIM]))
    await asyncio.wait([waiting], timeout=0.1)
    assert not waiting.done()
    rename(path, "aside")
    second = SqliteStore(path, clock=clock, boot=clock.boot)
    assert await second.execute([Claim(KEY, Token("other"), 30, 600)]) == [Won()]
    os.close(folder)
    assert await waiting == [Held(30)]
    assert set_aside(path) == []
    await second.close()


async def test_a_process_whose_file_was_set_aside_uses_the_new_one(
    store: SqliteStore, path: Path, clock: Clock
) -> None:
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    rename(path, "aside")
    second = SqliteStore(path, clock=clock, boot=clock.boot)
    assert await second.execute([CLAIM]) == [Won()]
    assert isinstance((await store.execute([Claim(KEY, Token("other"), 30, 600)]))[0], Held)
    assert (store.restarts, second.restarts) == (1, 0)
    await store.open()
    rename(path, "aside, too")
    await store.open()
    assert store.restarts == 2, "also by who only looks"
    assert await second.execute([PEEK]) == [Free()]
    await second.close()


async def test_what_a_link_leads_to_is_set_aside(store: SqliteStore, path: Path, tmp_path: Path) -> None:
    real = put(tmp_path / "disk" / "claims.db", SPOILT)
    path.parent.mkdir()
    link(path, real)
    assert await store.execute([CLAIM]) == [Won()]
    assert (len(set_aside(path)), len(set_aside(real))) == (0, 1)
    assert is_ours(real)


async def test_who_only_looks_leaves_a_damaged_file_where_it_is(store: SqliteStore, path: Path) -> None:
    put(path, SPOILT)
    for look in (store.open, store.identity, lambda: store.forget(lambda _: True)):
        with pytest.raises(StoreError, match=f"{path}: it is not a database"):
            await look()
    assert set_aside(path) == []


async def test_a_folder_that_cannot_be(store: SqliteStore, path: Path) -> None:
    path.parent.write_text("a file where the folder should be")
    await fails(store, path, "Not a directory")


async def test_a_file_that_may_only_be_read(store: SqliteStore, path: Path) -> None:
    await store.open()
    # Rights do not bind root, as whom the tests may run.
    await store._thread.run(lambda: store._file.open().execute("PRAGMA query_only = 1"))
    await fails(store, path, "cannot be written")
    assert await store.execute([CLAIM]) == [Won()]


async def test_a_newer_schema_is_not_touched(store: SqliteStore, path: Path) -> None:
    await store.open()
    with other(path) as connection:
        connection.execute("PRAGMA user_version = 4")
    await store.close()
    newer = SqliteStore(path)
    await fails(newer, path, "newer relay")
    await fails(newer, path, "newer relay")
    await newer.close()


_VERSION_1 = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE claims (
    key TEXT PRIMARY KEY, token TEXT, original TEXT, since REAL NOT NULL, until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX claims_until ON claims (until);
INSERT INTO meta VALUES ('identity', '0123456789abcdef');
PRAGMA user_version = 1;
"""


async def test_a_file_of_an_earlier_version_is_brought_up_to_date(store: SqliteStore, path: Path, clock: Clock) -> None:
    held = Fingerprint("v1:held")
    text = '{"record":"rec-1","message_id":"<1@example.org>","reply":"250 ok","accepted_at":1.0}'
    path.parent.mkdir()
    with other(path) as connection:
        connection.executescript(_VERSION_1)
        insert = "INSERT INTO claims VALUES (?, ?, ?, ?, ?)"
        connection.execute(insert, (KEY, None, text, clock.now - 10, clock.now + 590))
        connection.execute(insert, (held, TOKEN, None, clock.now, clock.now + 30))
    assert await store.execute([PEEK, Peek(held, 600)]) == [Sent(ORIGINAL, 10.0), Held(30.0)]
    assert await store.identity() == "0123456789abcdef"
    write_to_sqlite(path, [OldRecord("rec-2", "{}", clock.now, 600)])
    assert [text async for text in store.records(600)] == ["{}"]
    assert await store.forget(lambda entry: entry.recipient == "") == 1
    with other(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (3,)


async def test_a_migration_that_breaks_off_leaves_the_file_as_it_was(path: Path) -> None:
    path.parent.mkdir()
    with other(path) as connection:
        connection.executescript(_VERSION_1)
        connection.execute("CREATE VIEW records_until AS SELECT 1")
    store = SqliteStore(path)
    await fails(store, path, "records_until")
    await store.close()
    with other(path) as connection:
        assert connection.execute("PRAGMA user_version").fetchone() == (1,)
        assert connection.execute("SELECT name FROM sqlite_schema WHERE name = 'records'").fetchall() == []


async def rebooted(store: SqliteStore, path: Path, clock: Clock) -> SqliteStore:
    await store.close()
    clock.reboot()
    return SqliteStore(path, clock=clock, boot=clock.boot)


async def test_a_clock_set_back_changes_no_age(store: SqliteStore, path: Path, clock: Clock) -> None:
    held = Fingerprint("v1:held")
    await store.execute([Confirm(KEY, ORIGINAL, 600), Claim(held, TOKEN, 300, 600)])
    clock.now += 270
    clock.set(-400)
    second = SqliteStore(path, clock=clock, boot=clock.boot)
    for one in (store, second):
        assert await one.execute([PEEK, Peek(held, 600)]) == [Sent(ORIGINAL, 270.0), Held(30.0)]
        clock.now += 1
        clock.set(-1)
        assert await one.execute([PEEK, Peek(held, 600)]) == [Sent(ORIGINAL, 271.0), Held(29.0)]
        clock.now -= 1
        clock.set(1)
    clock.now += 330
    assert await store.execute([PEEK, Claim(held, Token("theirs"), 30, 600)]) == [Free(), Won()]
    await second.close()


async def test_a_clock_set_forward_ages_all_at_once(store: SqliteStore, path: Path, clock: Clock) -> None:
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    clock.set(500)
    assert await store.execute([PEEK]) == [Sent(ORIGINAL, 500.0)]
    clock.set(-500)
    assert await store.execute([PEEK]) == [Sent(ORIGINAL, 500.0)], "in doubt it is older"
    clock.now += 100
    assert await store.execute([PEEK]) == [Free()]


async def test_entries_of_another_boot_that_lie_in_the_future_are_free(
    store: SqliteStore, path: Path, clock: Clock
) -> None:
    held = Fingerprint("v1:held")
    await store.execute([Confirm(KEY, ORIGINAL, 600), Claim(held, TOKEN, 30, 600)])
    clock.now -= 3600
    store = await rebooted(store, path, clock)
    assert await store.execute([PEEK, Peek(held, 600)]) == [Free(), Free()]
    assert [entry async for entry in store.sent()] == []
    theirs = Token("theirs")
    assert await store.execute([Claim(KEY, theirs, 30, 600), Claim(held, theirs, 30, 600)]) == [Won(), Won()]
    await store.close()


async def test_a_small_correction_of_the_clock_frees_nothing(store: SqliteStore, path: Path, clock: Clock) -> None:
    held = Fingerprint("v1:held")
    await store.execute([Confirm(KEY, ORIGINAL, 600), Claim(held, TOKEN, 30, 600)])
    clock.now -= 0.5
    store = await rebooted(store, path, clock)
    sent, still_held = await store.execute([CLAIM, Claim(held, Token("theirs"), 30, 600)])
    assert sent == Sent(ORIGINAL, 0.0)
    assert isinstance(still_held, Held)
    await store.close()


async def test_ages_go_on_over_a_reboot(store: SqliteStore, path: Path, clock: Clock) -> None:
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    clock.now += 100
    store = await rebooted(store, path, clock)
    assert await store.execute([PEEK]) == [Sent(ORIGINAL, 100.0)]
    await store.close()


@pytest.mark.parametrize("value", ["", "one", "one soon", "one nan", "one inf", "one 1 2"])
async def test_a_damaged_clock_is_read_anew(store: SqliteStore, path: Path, clock: Clock, value: str) -> None:
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    with other(path) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'clock'", (value,))
    clock.now += 100
    assert await store.execute([PEEK]) == [Sent(ORIGINAL, 100.0)]


async def test_what_is_carried_out_late_keeps_its_age(store: SqliteStore, clock: Clock) -> None:
    second = Fingerprint("v1:second")
    await store.open()
    going_on = threading.Event()
    store._thread._thread.submit(going_on.wait)  # the disk stands still
    confirming = asyncio.create_task(store.execute([Confirm(KEY, ORIGINAL, 600), Confirm(second, ORIGINAL, 300)]))
    await asyncio.sleep(0)
    clock.now += 400
    going_on.set()
    await confirming
    assert await store.execute([PEEK, Peek(second, 600)]) == [Sent(ORIGINAL, 400.0), Free()]


async def test_what_ran_out_is_deleted_piece_by_piece(store: SqliteStore, path: Path, clock: Clock) -> None:
    def rows() -> int:
        with other(path) as connection:
            return int(connection.execute("SELECT count(*) FROM claims").fetchone()[0])

    keys = [Fingerprint(f"v1:{number:064x}") for number in range(3_000)]
    await store.execute([Claim(key, TOKEN, 30, 600) for key in keys])
    clock.now += 31
    left = [rows()]
    while left[-1] > 0 and len(left) < 20:
        await store.execute([PEEK] * 250)
        left.append(rows())
    assert left == [3_000, 3_000, 2_000, 2_000, 1_000, 1_000, 0]


async def test_the_deletion_needs_no_scan(store: SqliteStore, path: Path) -> None:
    await store.open()
    with other(path) as connection:
        plan = connection.execute(
            "EXPLAIN QUERY PLAN DELETE FROM claims WHERE key IN (SELECT key FROM claims WHERE until <= 1 LIMIT 1)"
        ).fetchall()
    assert any("INDEX claims_until" in step[3] for step in plan)
    assert not any(step[3].startswith("SCAN") for step in plan)


async def test_records_are_read_and_deleted_without_a_scan(store: SqliteStore, path: Path) -> None:
    await store.open()
    statements = [
        (_RECORDS, dict.fromkeys(("at", "id", "earliest", "now", "rows"), 1)),
        *((sweep, dict.fromkeys(("now", "rows"), 1)) for sweep in _SWEEPS),
    ]
    with other(path) as connection:
        for statement, given in statements:
            plan = [step[3] for step in connection.execute("EXPLAIN QUERY PLAN " + statement, given)]
            assert not any(step.startswith("SCAN") or "TEMP" in step for step in plan), plan


async def test_records_that_ran_out_leave_the_file(store: SqliteStore, path: Path, clock: Clock) -> None:
    await store.open()
    write_to_sqlite(path, [OldRecord(f"rec-{number}", "{}", clock.now, 30) for number in range(1_700)])
    write_to_sqlite(path, [OldRecord("kept", "{}", clock.now, 32)])
    clock.now += 31
    for left in (701, 1, 1):
        await store.execute([PEEK] * 500)
        with other(path) as connection:
            assert connection.execute("SELECT count(*) FROM records").fetchone() == (left,), "a sweep is bounded"


async def test_forgetting_waits_for_a_relay_that_writes(path: Path, clock: Clock) -> None:
    store = SqliteStore(path, clock=clock, busy_timeout=20, boot=clock.boot)
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    with other(path) as connection:
        connection.execute("BEGIN IMMEDIATE")
        forgetting = asyncio.create_task(store.forget(lambda _: True))
        await asyncio.wait([forgetting], timeout=0.1)
        assert not forgetting.done()
        connection.execute("COMMIT")
    assert await forgetting == 1
    await store.close()


async def test_a_slow_reader_of_records_and_writers_do_not_lock_each_other(
    store: SqliteStore, path: Path, clock: Clock
) -> None:
    await store.open()
    write_to_sqlite(path, [OldRecord(f"rec-{number}", "{}", clock.now, 600) for number in range(1_200)])
    telling = store.records(600)
    await anext(telling)
    with other(path) as connection:
        assert connection.execute("PRAGMA wal_checkpoint(TRUNCATE)").fetchone()[0] == 0
        connection.execute("BEGIN IMMEDIATE")
        assert len([text async for text in telling]) == 1_199
        connection.execute("COMMIT")


async def test_what_is_accepted_while_it_is_looked_at_is_not_forgotten(store: SqliteStore, path: Path) -> None:
    later, held = Original("rec-2", "", "250 ok", 2.0), Fingerprint("v1:held")
    await store.execute([Confirm(KEY, ORIGINAL, 600), Confirm(held, ORIGINAL, 600)])

    def matches(entry: Entry) -> bool:
        with other(path) as connection:
            connection.execute("UPDATE claims SET original = ?, since = since + 2 WHERE key = ?", (encode(later), KEY))
            connection.execute("UPDATE claims SET original = NULL, token = 'theirs' WHERE key = ?", (held,))
        return True

    assert await store.forget(matches) == 0


async def test_what_lands_behind_the_first_look_is_forgotten_too(store: SqliteStore, path: Path, clock: Clock) -> None:
    """A relay had asked for the generation, and writes back a batch of what it knows."""
    await store.execute([Confirm(KEY, ORIGINAL, 600)])

    looks = iter([True])

    def matches(_: Entry) -> bool:
        if next(looks, False):
            row = ("v1:0", None, encode(ORIGINAL), clock.now - 60, clock.now + 540)
            with other(path) as connection:
                connection.execute("INSERT INTO claims VALUES (?, ?, ?, ?, ?)", row)
        return True

    assert await store.forget(matches) == 2
    assert await store.execute([Peek(Fingerprint("v1:0"), 600)]) == [Free()]


async def test_a_damaged_entry_is_not_forgotten(store: SqliteStore, path: Path, clock: Clock) -> None:
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    with other(path) as connection:
        for number, text in enumerate(["{", b"\xff", 5]):
            connection.execute(
                "INSERT INTO claims VALUES (?, NULL, ?, ?, ?)", (f"v1:{number}", text, clock.now, clock.now + 600)
            )
    assert await store.forget(lambda _: True) == 1


@pytest.mark.parametrize(
    "row",
    [
        (None, "{", 0, 600),
        (None, "[]", 0, 600),
        (None, '{"record": 1, "message_id": "", "reply": "", "accepted_at": 0}', 0, 600),
        (None, b"\xff\xfe", 0, 600),
        (None, None, 0, 600),
        ("t", None, "soon", 600),
        ("t", None, 0, "later"),
    ],
)
async def test_a_damaged_entry_is_never_taken_for_sent(
    store: SqliteStore, path: Path, clock: Clock, row: tuple[object, ...]
) -> None:
    token, original, *times = row
    since, until = (clock.now + time if isinstance(time, int) else time for time in times)
    await store.open()
    with other(path) as connection:
        connection.execute("INSERT INTO claims VALUES (?, ?, ?, ?, ?)", (KEY, token, original, since, until))
    (answer,) = await store.execute([PEEK])
    assert isinstance(answer, Unknown)
    (answer,) = await store.execute([Claim(KEY, TOKEN, 30, 600)])
    assert isinstance(answer, Unknown | Won)
    await store.execute([Confirm(KEY, ORIGINAL, 600)])
    assert await store.execute([PEEK]) == [Sent(ORIGINAL, 0.0)], "an acceptance mends it"


_RACER = """
import asyncio, json, sys
from relay.claims.sqlite.store import SqliteStore
from relay.core.claim import Claim, Fingerprint, Peek, Token, Won

async def main():
    store = SqliteStore(sys.argv[1], busy_timeout=20)
    print("ready", flush=True)
    sys.stdin.readline()
    won = []
    for number in range(200):
        key = Fingerprint(f"v1:{number}")
        # A look first: what was read must still hold when the same batch writes.
        _, claimed = await store.execute([Peek(key, 600), Claim(key, Token(sys.argv[2]), 300, 600)])
        if claimed == Won():
            won.append(number)
    print(json.dumps([won, await store.identity()]))
    await store.close()

asyncio.run(main())
"""


def test_of_several_processes_one_wins(path: Path) -> None:
    """The processes also create the file together: the second one must wait, not fail."""
    pipe = subprocess.PIPE
    racers = [
        subprocess.Popen([sys.executable, "-c", _RACER, path, f"t{n}"], stdin=pipe, stdout=pipe, text=True)
        for n in range(4)
    ]
    for racer in racers:
        assert racer.stdout.readline() == "ready\n"
    for racer in racers:
        racer.stdin.write("go\n")
        racer.stdin.flush()
    results = [json.loads(racer.communicate(timeout=60)[0]) for racer in racers]
    won = [number for numbers, _ in results for number in numbers]
    assert sorted(won) == list(range(200))
    assert len({identity for _, identity in results}) == 1


async def test_a_released_claim_leaves_no_row(store: SqliteStore, path: Path) -> None:
    await store.execute([CLAIM, Release(KEY, TOKEN)])
    with other(path) as connection:
        assert connection.execute("SELECT * FROM claims").fetchall() == []


@pytest.mark.parametrize("foreign", ["x)\r\nSubject: injected", "", "a" * 17, "A" * 16])
async def test_an_identity_that_no_relay_wrote_is_replaced(store: SqliteStore, path: Path, foreign: str) -> None:
    await store.identity()
    with other(path) as connection:
        connection.execute("UPDATE meta SET value = ? WHERE name = 'identity'", (foreign,))
        connection.execute("INSERT OR REPLACE INTO meta VALUES ('generation', ?)", (foreign or "?",))
    identity = await store.identity()
    assert re.fullmatch("[0-9a-f]{16}", identity)
    assert await store.identity() == identity
    assert isinstance((await store.execute([AskGeneration()]))[0], Unknown)


@pytest.mark.parametrize("damaged", ["", "q", "0123456789abcdef", "0123456789abcdef v4:a  v4:b", b"\xff", 7])
async def test_a_damaged_sequence_begins_anew(store: SqliteStore, path: Path, damaged: object) -> None:
    first = Follow(SEQUENCE, KEY, "0" * 16, 600)
    await store.execute([first])
    with other(path) as connection:
        connection.execute("UPDATE sequences SET state = ?", (damaged,))
    second = Follow(SEQUENCE, KEY, "1" * 16, 600)
    assert await store.execute([second, first]) == [SequenceState("1" * 16, (KEY,))] * 2


async def test_sequences_are_swept_and_count_against_the_bound(path: Path, clock: Clock) -> None:
    store = SqliteStore(path, clock=clock, boot=clock.boot, most_claims=1_000)

    def follow(number: int) -> Follow:
        return Follow(SequenceName(f"q4:{number:040x}"), Fingerprint(f"v4:{number:040x}"), f"{number:016x}", 600)

    answers = [
        answer
        for start in range(0, 5_000, 500)
        for answer in await store.execute([follow(number) for number in range(start, start + 500)])
    ]
    assert Full() in answers
    first, last = await store.execute([follow(0), follow(9_999)])
    assert isinstance(first, SequenceState)
    assert last == Full()
    clock.now += 601
    for _ in range(20):
        await store.execute([PEEK] * 500)
    with other(path) as connection:
        assert connection.execute("SELECT count(*) FROM sequences").fetchone() == (0,)
    assert isinstance((await store.execute([follow(9_999)]))[0], SequenceState)
    await store.close()


async def test_a_full_file_takes_no_new_claim_and_keeps_the_others(path: Path, clock: Clock) -> None:
    store = SqliteStore(path, clock=clock, boot=clock.boot, most_claims=1_000)
    batches = [[Fingerprint(f"v1:{batch:032x}{number:032x}") for number in range(500)] for batch in range(10)]
    for batch in batches:
        await store.execute([Confirm(key, ORIGINAL, 600) for key in batch])
    mine, new = batches[0][0], Fingerprint("v1:new")
    assert await store.execute([Claim(new, TOKEN, 30, 600), Confirm(new, ORIGINAL, 600)]) == [Full(), Full()]
    assert await store.execute([Claim(mine, TOKEN, 30, 600), Confirm(mine, ORIGINAL, 600)]) == [
        Sent(ORIGINAL, 0.0),
        Done(),
    ]
    assert len(content(path)) < 2e6
    clock.now += 600
    for _ in range(20):
        await store.execute([PEEK] * 500)
    assert await store.execute([Claim(new, TOKEN, 30, 600)]) == [Won()]
    await store.close()


_NEIGHBOUR = """
import asyncio, sys, time
from pathlib import Path
from relay.claims.manager import ClaimManager
from relay.claims.sqlite.store import SqliteStore
from relay.claims.store_client import BatchingStoreClient
from relay.core.claim import ClaimTerms, Confirm, Fingerprint, Original, Token

path, name, count = Path(sys.argv[1]), sys.argv[2], int(sys.argv[3])
ORIGINAL = Original(name, "<1@example.org>", "2.0.0 Ok: queued", 1.0)

class Counting(SqliteStore):
    confirms = 0

    async def execute(self, commands):
        self.confirms += sum(isinstance(command, Confirm) for command in commands)
        return await super().execute(commands)

async def accept(manager, keys):
    terms, token = {key: ClaimTerms(3600) for key in keys}, Token(keys[0])
    await manager.claim(terms, token)
    await manager.settle(token, dict.fromkeys(keys, ORIGINAL), [], terms)

async def heard(word):
    assert (await asyncio.to_thread(sys.stdin.readline)).strip() == word

async def main():
    store = Counting(path, busy_timeout=0.8)
    client = BatchingStoreClient(store, limit=1.0)
    manager = ClaimManager(client, lease=30, clock=time.monotonic)
    downs = []
    client.subscribe(lambda up: manager.store_returned() if up else downs.append(client._breaker.reason))
    await client.start()
    print("ready", flush=True)
    await heard("accept")
    for start in range(0, count, 1000):
        await accept(manager, [Fingerprint(f"v1:{name}-{number}") for number in range(start, start + 1000)])
    print(len(downs), len(manager._table.unwritten), flush=True)
    await heard("hiccup")  # the parent has locked the file until every process has seen the store go down
    number, before = 0, store.confirms
    while not downs:
        await accept(manager, [Fingerprint(f"v1:{name}-hiccup-{number}")])
        number += 1
    print("down", flush=True)
    await heard("back")
    while not client.up or manager._table.unwritten:
        await asyncio.sleep(0.01)
    print(number, store.confirms - before, flush=True)
    await heard("replaced")
    downs.clear()
    while client.data_losses == 0 or manager._table.unwritten:
        await accept(manager, [Fingerprint(f"v1:{name}-after-{number}")])  # mail goes on
        number += 1
        await asyncio.sleep(0.02)
    print(len(downs), flush=True)
    await heard("end")
    await manager.close()
    await client.close()

asyncio.run(main())
"""


def test_four_processes_with_200_000_acceptances_do_not_keep_each_other_down(path: Path) -> None:
    """Under load, after a lock that lasts, and while all write everything to a new file."""
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen([sys.executable, "-c", _NEIGHBOUR, path, f"p{n}", "50000"], stdin=pipe, stdout=pipe, text=True)
        for n in range(4)
    ]

    def say(word: str) -> None:
        for process in processes:
            process.stdin.write(word + "\n")
            process.stdin.flush()

    def numbers() -> list[list[int]]:
        return [[int(word) for word in process.stdout.readline().split()] for process in processes]

    alarm = threading.Timer(240, lambda: [process.kill() for process in processes])
    alarm.start()
    try:
        assert [process.stdout.readline() for process in processes] == ["ready\n"] * 4
        say("accept")
        assert numbers() == [[0, 0]] * 4, "nobody was down, and all is written"
        with other(path) as connection:
            connection.execute("BEGIN IMMEDIATE")
            say("hiccup")
            assert [process.stdout.readline() for process in processes] == ["down\n"] * 4
            connection.execute("ROLLBACK")
        say("back")
        for accepted, confirms in numbers():
            assert confirms <= 20 * accepted + 100, "only what was accepted meanwhile, at each attempt"
        for suffix in ("", "-wal", "-shm"):
            if (file := path.with_name(path.name + suffix)).exists():
                file.rename(f"{path}.away{suffix}")
        say("replaced")
        assert numbers() == [[0]] * 4, "nobody was down while all wrote everything"
        with other(path) as connection:
            assert connection.execute("SELECT count(*) FROM claims WHERE key NOT LIKE '%-after-%'").fetchone()[0] >= 2e5
        say("end")
        assert [process.wait(timeout=60) for process in processes] == [0] * 4
    finally:
        alarm.cancel()
        for process in processes:
            process.kill()
            process.communicate()


_READER = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(connection.execute("SELECT count(*) FROM claims").fetchone()[0])
connection.close()
"""


async def test_a_second_connection_of_the_process_leaves_the_locks_of_the_first(tmp_path: Path) -> None:
    """POSIX locks end when a process closes any descriptor of the file: another process would delete the -wal."""
    path = tmp_path / "relay.db"

    def read_elsewhere() -> str:
        return subprocess.run(
            [sys.executable, "-c", _READER, path], check=True, stdout=subprocess.PIPE, text=True
        ).stdout.strip()

    mine, other = SqliteStore(path), SqliteStore(path)
    await mine.execute([CLAIM])
    await other.open()
    await other.close()
    assert read_elsewhere() == "1"
    await mine.execute([Claim(Fingerprint("v1:second"), TOKEN, 30, 600)])
    assert read_elsewhere() == "2"
    await mine.close()
