"""The records and acceptances of a relay, for the commands about them: in a store that this process opens, or asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
import time
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from relay.admin.protocol import FILES_LIMIT, LONGEST_LINE, MOST_RECORDS, STORE_LIMIT
from relay.check.store_remedies import store_remedy
from relay.core.errors import AdminError, StoreError
from relay.core.trace import REPEATS, TraceQuery
from relay.records.kept_copies import KeptCopies
from relay.records.pseudonyms import Pseudonyms, address
from relay.records.secret import find_secret
from relay.records.selection import count
from relay.runtime.executor import Executor
from relay.runtime.terminal import printable
from relay.service.build import build_store, build_trace_store
from relay.settings.sources import default_secret_file
from relay.settings.urls import MemoryUrl, SqliteUrl
from relay.trace.codec import encode

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from relay.admin.client import RunningRelay
    from relay.core.store import Store
    from relay.core.trace import TraceStore
    from relay.records.selection import Selection
    from relay.settings import Settings

_PAGE = 500
"""Traces that are read at a time."""


@dataclass(frozen=True, slots=True)
class Addressed:
    """A mail address as records may contain it."""

    names: frozenset[str]
    hashed: bool
    """Whether `names` has its hash. Without the secret only records with unhashed addresses are found."""


class Records(Protocol):
    """What the commands use of a store. Methods raise `AdminError` or `StoreError`."""

    def lines(self, age: float) -> AsyncIterator[str]:
        """Yields the records that are at most `age` seconds old, as stored, newest first."""

    async def forget(self, selection: Selection) -> int:
        """Frees the selected acceptances, and returns their number."""

    async def preview(self, selection: Selection) -> int:
        """Returns the number of selected acceptances."""

    async def keep_for(self) -> float:
        """Returns for how many seconds the relay keeps records."""

    async def find(self, written: str) -> Addressed:
        """Returns an address as the records here may contain it. Raises `SettingsError` if the secret is unusable."""

    async def describe_copy(self, record: str, kept: str) -> str:
        """Returns where the copy of a record is, for people. `kept` is its file name in the record, or empty."""


class RecordFiles:
    """What the files beside a store say. They are read in a thread: a folder may be on a disk that hangs."""

    def __init__(self, settings: Settings, thread: Executor) -> None:
        self._settings = settings
        self._thread = thread

    async def keep_for(self) -> float:
        """Returns `record.keep_for`."""
        return self._settings.record.keep_for

    async def find(self, written: str) -> Addressed:
        """Returns an address as the records here may contain it."""
        return await self._thread.run(lambda: _find(self._settings, written))

    async def describe_copy(self, record: str, kept: str) -> str:
        """Returns where the copy of a record is."""
        keep = self._settings.record.keep
        if not kept:
            return "not kept" + ("" if keep else " (record.keep is off)")
        if not keep:
            return f"was kept as {printable(kept)}; record.keep no longer names where"
        return await self._thread.run(lambda: _describe_copy(keep.path, record, kept))


class OpenRecords(RecordFiles):
    """The records in a store that this process has opened."""

    def __init__(self, settings: Settings, thread: Executor, store: Store, traces: TraceStore | None) -> None:
        super().__init__(settings, thread)
        self._store = store
        self._traces = traces
        self.forget = store.forget

    async def lines(self, age: float) -> AsyncIterator[str]:
        """Yields the traces of suppressions, newest first. An empty line stands for a damaged one."""
        if self._traces is None:
            return
        query, start = TraceQuery(outcomes=REPEATS, since=time.time() - age), ""
        while True:
            page = await self._traces.find(query, _PAGE, start)
            for trace in page.traces:
                yield encode(trace)
            for _ in range(page.damaged):
                yield ""
            if not page.next:
                return
            start = page.next

    async def preview(self, selection: Selection) -> int:
        """Returns the number of selected acceptances."""
        return await count(selection, self._store)


def files_thread() -> Executor:
    """Returns the thread for `RecordFiles`."""
    return Executor("records", 1, FILES_LIMIT)


def _find(settings: Settings, written: str) -> Addressed:
    record = settings.record
    secret = find_secret(record.secret_file, default_secret_file(settings, os.environ))
    if secret is None:
        return Addressed(frozenset((str(address(written)),)), hashed=False)
    return Addressed(Pseudonyms(secret, plain=record.addresses).find(written), hashed=True)


def _describe_copy(folder: Path, record: str, kept: str) -> str:
    try:
        found = KeptCopies(folder).find(record)
    except OSError as error:
        return f"was kept as {printable(kept)}; {error.filename}: {error.strerror}"
    if not found:
        return f"was kept as {printable(kept)} and is gone"
    if found.released:
        return "kept, and released already"
    return f"kept; to deliver it after all: relay release {record}"


@contextlib.asynccontextmanager
async def open_records(
    settings: Settings, thread: Executor, memory: Store | None = None, own_traces: TraceStore | None = None
) -> AsyncIterator[OpenRecords]:
    """Opens the stores of the settings. Uses the `memory` and the `own_traces` of this process if they are given.

    Creates no claims. Raises `AdminError`.
    """
    url = settings.store.url
    if isinstance(url, SqliteUrl):
        try:
            url.path.stat()
        except OSError as error:
            raise AdminError(
                f"store.url {url}: {error.strerror}; name the store of the relay by -c FILE or --store URL, "
                "and run this as a user who may read it"
            ) from None
    store = memory or build_store(settings)
    traces = own_traces or build_trace_store(settings)
    limit = settings.store.timeout * 3
    try:
        try:
            async with asyncio.timeout(limit):
                await store.open()
                if traces:
                    await traces.open()
        except TimeoutError:
            raise StoreError(f"no answer within {limit:g} s") from None
        yield OpenRecords(settings, thread, store, traces)
    except StoreError as error:
        if isinstance(url, SqliteUrl):
            reason, remedy = str(error).removeprefix(f"{url.path}: "), "repair it, or correct store.url"
        else:
            reason, remedy = str(error), store_remedy(error)
        raise AdminError(f"store.url {url}: {reason}; {remedy}") from error
    finally:
        if store is not memory:
            await store.close()
        if traces and traces is not own_traces:
            await traces.close()


class AskedRecords:
    """The records of a running relay."""

    def __init__(self, relay: RunningRelay) -> None:
        self._relay = relay

    def lines(self, age: float) -> AsyncIterator[str]:
        """Yields the records as stored, newest first."""
        return self._relay.lines(f"/records?age={age}", STORE_LIMIT, LONGEST_LINE, MOST_RECORDS)

    async def forget(self, selection: Selection) -> int:
        """Frees the selected acceptances, and returns their number."""
        return await self._count("/forget", selection)

    async def preview(self, selection: Selection) -> int:
        """Returns the number of selected acceptances."""
        return await self._count("/forget/preview", selection)

    async def _count(self, path: str, selection: Selection) -> int:
        def decode(found: Mapping[str, Any]) -> int:
            return int(found["number"])

        return await self._relay.read("POST", path, STORE_LIMIT, decode, data=selection.encode())

    async def keep_for(self) -> float:
        """Returns the relay's `record.keep_for`."""
        return await self._relay.read("GET", "/records/keep_for", FILES_LIMIT, lambda found: float(found["seconds"]))

    async def find(self, written: str) -> Addressed:
        """Returns an address as the relay's records contain it."""

        def decode(found: Mapping[str, Any]) -> Addressed:
            return Addressed(frozenset(map(str, found["names"])), bool(found["hashed"]))

        request = {"address": written}
        return await self._relay.read("POST", "/records/address", FILES_LIMIT, decode, json=request)

    async def describe_copy(self, record: str, kept: str) -> str:
        """Returns where the copy of a record is, on the relay's host."""
        path = f"/copies/{quote(record, safe='')}?kept={quote(kept, safe='')}"
        return printable(await self._relay.read("GET", path, FILES_LIMIT, lambda found: str(found["text"])))


def memory_without_relay(settings: Settings, socket: Path | None) -> AdminError | None:
    """Returns the error for a store that only a running relay has; None if this process can open the store."""
    if not isinstance(settings.store.url, MemoryUrl):
        return None
    where = f"none answers on admin.socket {socket}" if socket else "admin.socket is empty"
    return AdminError(
        f"store.url memory: is in the memory of a running relay, and {where}; start it, or name its socket with "
        "--set admin.socket=PATH"
    )
