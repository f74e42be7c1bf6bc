"""The store of the settings, as the commands about records reach it: by itself, or in the memory of a running relay."""

from __future__ import annotations

import asyncio
import contextlib
import os
import sys
from http import HTTPStatus
from typing import TYPE_CHECKING, Protocol

import click

from relay.cli.exit_status import EX_CONFIG
from relay.cli.remedies import mend_store
from relay.core.errors import RelayError, SettingsError, StoreError
from relay.runtime.terminal import printable

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Coroutine

    import aiohttp

    from relay.core.record import Record
    from relay.core.store import Store
    from relay.records.selection import Selection
    from relay.settings import Settings
    from relay.settings.addresses import HostPort

LONGEST = 60.0
"""Seconds that a running relay may take to answer."""
EVER = 3650 * 86400.0
"""Seconds: longer than any record is kept."""
_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "::1"}


class OutOfReachError(RelayError):
    """The store cannot be asked. `str()` says which and what is to be done."""


class Reached(Protocol):
    """What the commands want of a store."""

    def lines(self, age: float) -> AsyncIterator[str]:
        """Give the records that are not older than `age` seconds as they were written, newest first."""

    async def forget(self, selection: Selection) -> int:
        """Free what is meant, and give how many that were."""

    async def preview(self, selection: Selection) -> int:
        """Give how many are meant."""


def run(work: Coroutine[object, object, bool]) -> None:
    """Run a command to its end. Exit status 0 where it says true, else 1; also 1 where the store cannot be asked."""
    try:
        status = 0 if asyncio.run(work) else 1
    except (OutOfReachError, SettingsError) as error:
        click.echo(f"error: {printable(str(error))}", err=True)  # It may quote whatever answers at an address.
        status = EX_CONFIG if isinstance(error, SettingsError) else 1
    sys.exit(status)


@contextlib.asynccontextmanager
async def reach(settings: Settings) -> AsyncIterator[Reached]:
    """Open the way to the store. Raises `OutOfReachError`. Makes nothing that is not there."""
    from relay.settings.urls import MemoryUrl

    way = _running_relay if isinstance(settings.store.url, MemoryUrl) else _opened
    async with way(settings) as reached:
        yield reached


async def records(reached: Reached, age: float) -> AsyncIterator[Record]:
    """Give the records that are not older than `age` seconds, newest first. Damaged ones are counted on stderr."""
    from relay.records.codec import decode

    damaged = 0
    async for line in reached.lines(age):
        record = decode(line)
        if record is None:
            damaged += 1
        else:
            yield record
    if damaged:
        click.echo(f"warning: {damaged} damaged records are left out", err=True)


# A store of its own


@contextlib.asynccontextmanager
async def _opened(settings: Settings) -> AsyncIterator[Reached]:
    from relay.service import build_store
    from relay.settings.urls import SqliteUrl

    url = settings.store.url
    if isinstance(url, SqliteUrl):
        try:
            url.path.stat()
        except OSError as error:
            raise OutOfReachError(
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
        yield _Opened(store)
    except StoreError as error:
        path = f"{url.path}: " if isinstance(url, SqliteUrl) else ""
        reason = str(error).removeprefix(path)
        mend = "mend it, or correct store.url" if path else mend_store(error)
        raise OutOfReachError(f"store.url {url}: {reason}; {mend}") from error
    finally:
        await store.close()


class _Opened:
    def __init__(self, store: Store) -> None:
        self._store = store

    def lines(self, age: float) -> AsyncIterator[str]:
        return self._store.records(age)

    async def forget(self, selection: Selection) -> int:
        return await self._store.forget(selection)

    async def preview(self, selection: Selection) -> int:
        from relay.records.selection import count

        return await count(selection, self._store)


# The memory of a running relay


@contextlib.asynccontextmanager
async def _running_relay(settings: Settings) -> AsyncIterator[Reached]:
    import aiohttp

    address = settings.http.address
    if address is None:
        raise OutOfReachError(
            "store.url memory: is in the relay's own memory, and http.address is empty, so nobody reaches it there; "
            "set http.address, or another store"
        )
    at = f"the relay at http.address {address}"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=LONGEST)) as client:
        try:
            yield _RunningRelay(client, address)
        except aiohttp.ClientResponseError as error:
            hint = "; its own store.url is not memory:, then" if error.status == HTTPStatus.NOT_FOUND else ""
            raise OutOfReachError(f"{at} says {error.status}: {error.message}{hint}") from error
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = _words(error)
            raise OutOfReachError(
                f"{at} does not answer: {reason}; with store.url memory: it must be running, and on this host"
            ) from error


def _words(error: Exception) -> str:
    """Say why nobody was reached, without what the library puts around the system's word."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError):
        return (os.strerror(error.errno) if error.errno and error.errno > 0 else "no such host").lower()
    return str(error) or f"no answer within {LONGEST:g} s"


class _RunningRelay:
    def __init__(self, client: aiohttp.ClientSession, address: HostPort) -> None:
        host = _ANYWHERE.get(address.host, address.host)
        self._client = client
        self._base = f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"

    async def lines(self, age: float) -> AsyncIterator[str]:
        async with self._client.get(f"{self._base}/records", params={"age": age}, headers=_header("records")) as answer:
            text = await _text(answer)
        for line in text.splitlines():
            yield line

    async def forget(self, selection: Selection) -> int:
        return await self._ask("/forget", selection, "freed")

    async def preview(self, selection: Selection) -> int:
        return await self._ask("/forget/preview", selection, "found")

    async def _ask(self, path: str, selection: Selection, name: str) -> int:
        import json

        question = self._client.post(self._base + path, data=selection.encode(), headers=_header("forget"))
        async with question as answer:
            told = await _text(answer)
        try:
            return int(json.loads(told)[name])
        except (LookupError, TypeError, ValueError):
            raise ValueError("it answers as no relay does") from None


def _header(command: str) -> dict[str, str]:
    from relay.monitor.http import COMMAND

    return {COMMAND: command}


async def _text(answer: aiohttp.ClientResponse) -> str:
    import aiohttp

    text = await answer.text()
    if answer.status != HTTPStatus.OK:
        raise aiohttp.ClientResponseError(
            answer.request_info, answer.history, status=answer.status, message=text.strip()[:200]
        )
    return text
