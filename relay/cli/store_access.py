"""How the commands about records use the store of a relay: they open it, or ask the running relay that holds it."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeAlias

import click

from relay.check.store_remedies import store_remedy
from relay.cli.exit_status import CommandError
from relay.core.errors import StoreError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.cli.running_relay import RunningRelay
    from relay.core.record import Record
    from relay.core.store import Store
    from relay.records.selection import Selection
    from relay.settings import Settings

MAX_AGE = 3650 * 86400.0
"""Seconds: longer than any record is kept."""

StoreAccess: TypeAlias = "OpenStore | RunningRelay"


@contextlib.asynccontextmanager
async def open_access(settings: Settings) -> AsyncIterator[StoreAccess]:
    """Opens the store of the settings. Creates nothing. Raises `CommandError`."""
    from relay.cli.running_relay import ask_running_relay
    from relay.settings.urls import MemoryUrl

    access = ask_running_relay if isinstance(settings.store.url, MemoryUrl) else _open_store
    async with access(settings) as opened:
        yield opened


async def records(access: StoreAccess, age: float) -> AsyncIterator[Record]:
    """Yields the records that are at most `age` seconds old, newest first. Reports damaged ones on stderr."""
    from relay.records.codec import decode

    damaged = 0
    async for line in access.lines(age):
        record = decode(line)
        if record is None:
            damaged += 1
        else:
            yield record
    if damaged:
        click.echo(f"warning: {damaged} damaged records are left out", err=True)


@contextlib.asynccontextmanager
async def _open_store(settings: Settings) -> AsyncIterator[StoreAccess]:
    from relay.service import build_store
    from relay.settings.urls import SqliteUrl

    url = settings.store.url
    if isinstance(url, SqliteUrl):
        try:
            url.path.stat()
        except OSError as error:
            raise CommandError(
                f"store.url {url}: {error.strerror}; name the store of the relay by -c FILE or --store URL, "
                "and run this as a user who may read it"
            ) from None
    store = build_store(settings)
    limit = settings.store.timeout * 3
    try:
        try:
            async with asyncio.timeout(limit):
                await store.open()
        except TimeoutError:
            raise StoreError(f"no answer within {limit:g} s") from None
        yield OpenStore(store)
    except StoreError as error:
        if isinstance(url, SqliteUrl):
            reason, remedy = str(error).removeprefix(f"{url.path}: "), "repair it, or correct store.url"
        else:
            reason, remedy = str(error), store_remedy(error)
        raise CommandError(f"store.url {url}: {reason}; {remedy}") from error
    finally:
        await store.close()


class OpenStore:
    """A store that this process has opened. Its methods raise `StoreError`."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self.lines = store.records
        self.forget = store.forget

    async def preview(self, selection: Selection) -> int:
        """Returns the number of selected acceptances."""
        from relay.records.selection import count

        return await count(selection, self._store)
