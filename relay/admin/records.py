"""The records and acceptances of a relay, for the commands about them: in a store that this process opens, or asked."""

from __future__ import annotations

import asyncio
import contextlib
import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol
from urllib.parse import quote

from relay.admin.protocol import FILES_LIMIT, MOST_TRACES, STORE_LIMIT
from relay.check.store_remedies import store_remedy
from relay.core.errors import AdminError, StoreError
from relay.core.trace import TracePage
from relay.records.kept_copies import KeptCopies
from relay.records.pseudonyms import Pseudonyms
from relay.records.secret import find_secret
from relay.records.selection import count
from relay.runtime.executor import Executor
from relay.runtime.terminal import printable
from relay.service.build_stores import build_store, build_trace_store
from relay.settings.places import default_secret_file
from relay.settings.urls import MemoryUrl, SqliteUrl
from relay.trace.codec import decode
from relay.trace.search import encode_query, names_for

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping
    from pathlib import Path

    from relay.admin.client import RunningRelay
    from relay.core.store import Store
    from relay.core.trace import TraceQuery, TraceStore
    from relay.records.selection import Selection
    from relay.settings import Settings


@dataclass(frozen=True, slots=True)
class Names:
    """The names that a text may mean (`relay.trace.search.names_for`)."""

    names: frozenset[str]
    hashed: bool
    """Whether there is a hash among them. Without the secret only traces with unhashed addresses are found."""


@dataclass(frozen=True, slots=True)
class Retention:
    """What a relay keeps traces of."""

    seconds: float
    """`record.keep_for`."""
    repeats_only: bool
    """Whether other messages leave no trace: `record.trace = "repeats"`."""


class Records(Protocol):
    """What the commands use of a store. Methods raise `AdminError` or `StoreError`."""

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        """Returns at most `limit` traces, and at most `MOST_TRACES`, newest first. See `TraceStore.find`."""

    async def forget(self, selection: Selection) -> int:
        """Frees the selected acceptances, and returns their number."""

    async def preview(self, selection: Selection) -> int:
        """Returns the number of selected acceptances."""

    async def retention(self) -> Retention:
        """Returns for how long the relay keeps traces, and of which messages."""

    async def names(self, written: str) -> Names:
        """Returns the names that a text may mean here. Raises `SettingsError` if the secret is unusable."""

    async def describe_copy(self, record: str, kept: str) -> str:
        """Returns where the copy of a record is, for people. `kept` is its file name in the record, or empty."""


class RecordFiles:
    """What the files beside a store say. They are read in a thread: a folder may be on a disk that hangs."""

    def __init__(self, settings: Settings, thread: Executor) -> None:
        self._settings = settings
        self._thread = thread

    async def retention(self) -> Retention:
        """Returns what the settings say."""
        record = self._settings.record
        return Retention(record.keep_for, record.trace == "repeats")

    async def names(self, written: str) -> Names:
        """Returns the names that a text may mean."""
        return await self._thread.run(lambda: _names(self._settings, written))

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

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        """Returns traces, newest first; none if no traces are kept."""
        if self._traces is None:
            return TracePage(())
        return await self._traces.find(query, min(limit, MOST_TRACES), start)

    async def preview(self, selection: Selection) -> int:
        """Returns the number of selected acceptances."""
        return await count(selection, self._store)


def files_thread() -> Executor:
    """Returns the thread for `RecordFiles`."""
    return Executor("records", 1, FILES_LIMIT)


def _names(settings: Settings, written: str) -> Names:
    record = settings.record
    secret = find_secret(record.secret_file, default_secret_file(settings, os.environ))
    pseudonyms = Pseudonyms(secret, plain=record.addresses) if secret else None
    return Names(names_for(written, pseudonyms), hashed=secret is not None)


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

    async def find(self, query: TraceQuery, limit: int, start: str = "") -> TracePage:
        """Returns traces, newest first."""

        def read(found: Mapping[str, Any]) -> TracePage:
            traces = [decode(str(line)) for line in found["lines"]]
            readable = tuple(trace for trace in traces if trace is not None)
            return TracePage(readable, str(found["next"]), int(found["damaged"]) + len(traces) - len(readable))

        request = {"query": encode_query(query), "limit": limit, "start": start}
        return await self._relay.read("POST", "/traces", STORE_LIMIT, read, json=request)

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

    async def retention(self) -> Retention:
        """Returns what the relay's settings say."""

        def read(found: Mapping[str, Any]) -> Retention:
            return Retention(float(found["seconds"]), bool(found.get("repeats_only")))

        return await self._relay.read("GET", "/traces/keep_for", FILES_LIMIT, read)

    async def names(self, written: str) -> Names:
        """Returns the names that a text may mean to the relay."""

        def read(found: Mapping[str, Any]) -> Names:
            return Names(frozenset(map(str, found["names"])), bool(found["hashed"]))

        return await self._relay.read("POST", "/names", FILES_LIMIT, read, json={"text": written})

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
