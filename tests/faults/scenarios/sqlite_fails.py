"""SQLite: a full disk, a read-only disk, and a locked, damaged, older or newer file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
import time
from typing import TYPE_CHECKING

from parts.waiting import until

from faults.checker import APART
from faults.clients import Manner
from faults.scenario import scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from faults.run import Run

GROUP = "SQLite fails"
MESSAGES_A_FAILURE = 150
DEGRADED = "`store_degraded` 1 and `store_up` 0 meanwhile; `/readyz` 200; the log says why, and names the file"
PAGE = 4096
ROWS = 20_000
"""Claims for a file of about 5 MiB, of which SQLite caches 2 MiB."""
USED_AGAIN_WITHIN = 10.0
"""Seconds after a lock within which every relay uses the file again."""
FIRST_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE claims (
    key TEXT PRIMARY KEY, token TEXT, original TEXT, since REAL NOT NULL, until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX claims_until ON claims (until);
PRAGMA user_version = 1;
"""
"""The schema of the first version."""


def _fails(name: str, sees: str = DEGRADED, **rest: object) -> Callable[..., object]:
    return scenario(
        f"SQLite {name}",
        **{"group": GROUP, "hears": "250 as ever", "sees": sees, "store": "sqlite", **rest},
    )


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Mounts a file system of 32 MiB, enough for the file and its log of up to 4 MiB. Needs root."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=32m", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _remount(folder: str, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


def _fill(file: Path) -> None:
    """Writes until the disk is full to the last octet."""
    with contextlib.suppress(OSError), file.open("wb", buffering=0) as filler:
        for size in (1 << 16, 1 << 10, 1):
            with contextlib.suppress(OSError):
                while True:
                    filler.write(b"\0" * size)


async def _again_and_again(run: Run, fail: Callable[[], Awaitable[None]], reason: str) -> None:
    async with run.load(copies=2, repeats=1):
        for point in run.points(run.messages // MESSAGES_A_FAILURE + 1):
            await run.reached(point)
            async with run.outage():
                await fail()
    await run.store_is("up")
    await _all_is_written(run)
    if reason not in run.relays[0].stderr():
        run.complain(f"the log does not say {reason!r}")


async def _all_is_written(run: Run) -> None:
    expected = {(copy.message, to) for copy in run.peer.taken for to in copy.recipients}
    await until(lambda: _sent(run.sqlite) >= len(expected), f"{len(expected)} acceptances in the file", seconds=20)


def _sent(path: Path) -> int:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        found: int = connection.execute("SELECT count(*) FROM claims WHERE original IS NOT NULL").fetchone()[0]
        return found


async def _stop(run: Run) -> None:
    """Drains the relay."""
    run.restarted.add(0)
    run.relays[0].terminate()
    await run.relays[0].wait()


async def _move_to_small_disk(run: Run) -> None:
    """Starts the relay again with its store on a small disk."""
    run.stack.enter_context(small_disk(run.sqlite.parent))
    await run.restart(0)


@_fails("on a full disk")
async def full(run: Run) -> None:
    await _move_to_small_disk(run)
    filler = run.sqlite.with_name("filler")
    said = "the disk is full"

    async def fail() -> None:
        _fill(filler)
        await asyncio.sleep(run.chance.uniform(0.5, 2))
        # A relay without CPU time has not noticed yet. If it never does, a check below fails.
        with contextlib.suppress(TimeoutError):
            await until(lambda: said in run.relays[0].stderr(), said)
        filler.unlink()

    await _again_and_again(run, fail, said)


@_fails("on a disk that is read-only, and later is not")
async def read_only(run: Run) -> None:
    disk = str(run.sqlite.parent)
    await _move_to_small_disk(run)
    # A file system with a file open for writing cannot become read-only, so the relay is stopped meanwhile.
    await _stop(run)
    _remount(disk, "ro")
    await run.relays[0].start()
    async with run.load(run.messages // 2, copies=2, repeats=1):
        pass
    await run.store_is("degraded")
    _remount(disk, "rw")
    await run.store_is("up")
    async with run.load(run.messages - run.messages // 2, copies=2, repeats=1):
        pass
    await _all_is_written(run)


@_fails("locked by another process")
async def locked(run: Run) -> None:
    async def fail() -> None:
        with lock_file(run.sqlite):
            await asyncio.sleep(run.chance.uniform(1.5, 3))

    await _again_and_again(run, fail, "another process keeps it locked")


@_fails(
    "is shared by four relays and remembers 200,000 messages, and is locked now and then",
    relays=4,
    messages=2_000,
    excuses=frozenset({APART}),
    alone=True,
)
async def shared(run: Run) -> None:
    fill = {"copies": 1, "repeats": 0, "at_once": 8, "recipients": (1000, 1000), "manners": (Manner.PIPELINED,)}
    async with run.load(run.messages // 10, **fill):
        pass
    # Under load alone, the relays must not keep each other out.
    async with run.load(run.messages // 2, copies=4, repeats=1, at_once=30):
        pass
    if any("store unavailable" in relay.stderr() for relay in run.relays):
        run.complain("relays kept each other from the file without a fault")
    slowest = 0.0
    async with run.load(run.messages - run.done, copies=4, repeats=1, at_once=30):
        for point in run.points(4, run.messages - run.done):
            await run.reached(point)
            async with run.outage():
                with lock_file(run.sqlite):
                    await asyncio.sleep(run.chance.uniform(1.5, 3))
            begun = time.monotonic()
            await run.store_is("up")
            slowest = max(slowest, time.monotonic() - begun)
    run.note(f"all relays used the file again {slowest:.1f} s after a lock at the latest")
    if slowest > USED_AGAIN_WITHIN:
        run.complain(f"a relay used the file again only {slowest:.1f} s after a lock")


@contextlib.contextmanager
def lock_file(path: Path) -> Iterator[None]:
    """Holds the lock of an SQLite file."""
    connection = sqlite3.connect(path, timeout=5, isolation_level=None)
    connection.execute("BEGIN IMMEDIATE")
    try:
        yield
    finally:
        connection.execute("ROLLBACK")
        connection.close()


@_fails("damaged at the start", "a line that names the file and where it was set aside")
async def damaged(run: Run) -> None:
    await _stop(run)
    spoilt = os.urandom(8192)
    for name in ("-wal", "-shm"):
        run.sqlite.with_name(run.sqlite.name + name).unlink(missing_ok=True)
    run.sqlite.write_bytes(spoilt)
    await run.relays[0].start()
    async with run.load(copies=2, repeats=1):
        pass
    if spoilt not in [file.read_bytes() for file in run.sqlite.parent.iterdir()]:
        run.complain("the damaged file is gone")
    await _see_set_aside(run)


async def _see_set_aside(run: Run) -> None:
    try:
        await run.store_is("up")
    except TimeoutError:
        run.complain("a damaged file was not set aside: the relay goes on without a store")
        run.unreadable_store = True


@_fails(
    "damaged in the middle while the relay was away, which shows only later",
    "a line that names the file and where it was set aside; what only that file knew is forgotten",
    forgets=True,
)
async def damaged_in_the_middle(run: Run) -> None:
    await _grow(run)
    await _stop(run)
    # The first page is intact: the file opens, and the damage shows when SQLite reads another page.
    spoilt = await asyncio.to_thread(_spoil, run.sqlite)
    await run.relays[0].start()
    async with run.load(run.messages - run.done, copies=2, repeats=1):
        pass
    await _see_set_aside(run)
    if spoilt not in [file.read_bytes()[: len(spoilt)] for file in run.sqlite.parent.iterdir()]:
        run.complain("the damaged file is gone")


@_fails(
    "damaged while it runs",
    "a line that names the file and where it was set aside, once it is read again",
    forgets=True,
)
async def damaged_meanwhile(run: Run) -> None:
    await _grow(run)
    async with run.load(run.messages - run.done, copies=2, repeats=1):
        await run.reached(run.done + run.messages // 4)
        await asyncio.to_thread(_spoil, run.sqlite)
    # Cached pages continued to work. A restart reads the file, and what only the file had is lost.
    await run.restart(0)
    async with run.load(max(1, run.messages // 10), copies=2, repeats=1):
        pass
    await _see_set_aside(run)


async def _grow(run: Run) -> None:
    """Sends half of the messages, and fills the file with far more pages than SQLite caches."""
    async with run.load(run.messages // 2, copies=2, repeats=1):
        pass
    await asyncio.to_thread(_fill_with_claims, run.sqlite)


def _fill_with_claims(path: Path) -> None:
    with contextlib.closing(sqlite3.connect(path, timeout=20)) as connection, connection:
        row = connection.execute("SELECT * FROM claims WHERE original IS NOT NULL LIMIT 1").fetchone()
        marks = ", ".join("?" * len(row))
        rows = ((f"v1:{os.urandom(32).hex()}", *row[1:]) for _ in range(ROWS))
        connection.executemany(f"INSERT INTO claims VALUES ({marks})", rows)


def _spoil(path: Path) -> bytes:
    """Overwrites all pages but the first, and those of the log, with random bytes. Returns the damaged file."""
    for file in (path, path.with_name(path.name + "-wal")):
        if file.exists() and file.stat().st_size > PAGE:
            with file.open("r+b") as spoilt:
                spoilt.seek(PAGE)
                spoilt.write(os.urandom(file.stat().st_size - PAGE))
    return path.read_bytes()[: 4 * PAGE]


@_fails("of the first version", "nothing: the relay updates the schema of the file")
async def older(run: Run) -> None:
    await _stop(run)
    _write(run.sqlite, FIRST_SCHEMA)
    await run.relays[0].start()
    await run.store_is("up")
    async with run.load(copies=2, repeats=1):
        pass


@_fails("of a newer version", "`written by a newer relay (schema 99; …)`; store `degraded`")
async def newer(run: Run) -> None:
    await _stop(run)
    _write(run.sqlite, FIRST_SCHEMA.replace("user_version = 1", "user_version = 99"))
    before = _dump(run.sqlite)
    await run.relays[0].start()
    await run.store_is("degraded")
    async with run.load(copies=2, repeats=1):
        pass
    if "written by a newer relay" not in run.relays[0].stderr():
        run.complain("the log does not say that the file is of a newer version")
    if _dump(run.sqlite) != before:
        run.complain("a file of a newer version was written to")


def _write(path: Path, schema: str) -> None:
    for file in path.parent.iterdir():
        file.unlink()
    with contextlib.closing(sqlite3.connect(path)) as connection:
        connection.executescript(schema)


def _dump(path: Path) -> list[str]:
    with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as connection:
        return list(connection.iterdump())
