"""SQLite: a full disk, one that cannot be written, a locked, damaged, older or newer file."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import subprocess
from typing import TYPE_CHECKING

from parts.waiting import until

from faults.scenario import scenario

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable, Iterator
    from pathlib import Path

    from faults.run import Run

GROUP = "SQLite fails"
MESSAGES_A_FAILURE = 150
DEGRADED = (
    "`store unavailable, working without it: FILE: …` with the reason, `store is back`; `/readyz` 200, store `degraded`"
)
FIRST_SCHEMA = """
CREATE TABLE meta (name TEXT PRIMARY KEY, value TEXT NOT NULL) WITHOUT ROWID;
CREATE TABLE claims (
    key TEXT PRIMARY KEY, token TEXT, original TEXT, since REAL NOT NULL, until REAL NOT NULL
) WITHOUT ROWID;
CREATE INDEX claims_until ON claims (until);
PRAGMA user_version = 1;
"""
"""What the first version wrote."""


def _fails(name: str, sees: str = DEGRADED, **rest: object) -> Callable[..., object]:
    return scenario(
        f"SQLite {name}",
        **{"group": GROUP, "hears": "250 as ever", "sees": sees, "store": "sqlite", **rest},
    )


@contextlib.contextmanager
def small_disk(folder: Path) -> Iterator[None]:
    """Put a file system of 4 MiB at a folder. Only root may."""
    subprocess.run(["mount", "-t", "tmpfs", "-o", "size=4m", "none", str(folder)], check=True)
    try:
        yield
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True)


def _remount(folder: str, how: str) -> None:
    subprocess.run(["mount", "-o", f"remount,{how}", folder], check=True)


def _fill(file: Path) -> None:
    """Write until there is no room for one more octet."""
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
    """Let the relay end in its own good order."""
    run.restarted.add(0)
    run.relays[0].terminate()
    await run.relays[0].wait()


async def _move_to_small_disk(run: Run) -> None:
    """Start the relay again with its store on a small disk."""
    run.stack.enter_context(small_disk(run.sqlite.parent))
    await run.restart(0)


@_fails("on a full disk")
async def full(run: Run) -> None:
    await _move_to_small_disk(run)
    filler = run.sqlite.with_name("filler")

    async def fail() -> None:
        _fill(filler)
        await asyncio.sleep(run.chance.uniform(0.5, 2))
        filler.unlink()

    await _again_and_again(run, fail, "the disk is full")


@_fails("on a disk that is read-only, and later is not")
async def read_only(run: Run) -> None:
    disk = str(run.sqlite.parent)
    await _move_to_small_disk(run)
    # A file system with a file that is being written to cannot be made read-only: the relay is away meanwhile.
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
        connection = sqlite3.connect(run.sqlite, timeout=5, isolation_level=None)
        connection.execute("BEGIN IMMEDIATE")
        await asyncio.sleep(run.chance.uniform(1.5, 3))
        connection.execute("ROLLBACK")
        connection.close()

    await _again_and_again(run, fail, "another process keeps it locked")


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


@_fails("damaged while it runs", "a line that names the file and where it was set aside")
async def damaged_meanwhile(run: Run) -> None:
    async with run.load(copies=2, repeats=1):
        await run.reached(run.done + run.messages // 4)
        size = run.sqlite.stat().st_size
        with run.sqlite.open("r+b") as file:
            file.write(os.urandom(size))
        await run.reached(run.done + run.messages // 4)
    await _see_set_aside(run)


@_fails("of the first version", "nothing, or what was done with the file")
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
