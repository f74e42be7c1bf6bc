"""The paths of the admin API about records and acceptances."""

from __future__ import annotations

import asyncio
import contextlib
import json
from dataclasses import asdict
from typing import TYPE_CHECKING

from aiohttp import web

from relay.admin.protocol import FILES_LIMIT, STORE_LIMIT
from relay.admin.records import RecordFiles, files_thread, open_records
from relay.records.selection import Selection
from relay.trace.codec import encode
from relay.trace.search import decode_query

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.admin.records import OpenRecords
    from relay.admin.server import AddPath
    from relay.service import Service

_MOST_AT_ONCE = 2
"""Requests that use a store at once; further ones wait, so that commands do not take what mail needs."""


class RecordsApi:
    """Serves the store of one service. Each request opens a SQLite file or Redis anew, apart from that of mail."""

    def __init__(self, service: Service, add_path: AddPath) -> None:
        self._service = service
        self._thread = files_thread()
        self._turns = asyncio.Semaphore(_MOST_AT_ONCE)
        add_path("POST", "/traces", self._post_traces, STORE_LIMIT)
        add_path("GET", "/traces/keep_for", self._get_retention, FILES_LIMIT)
        add_path("POST", "/names", self._post_names, FILES_LIMIT)
        add_path("GET", "/copies/{record}", self._get_copy, FILES_LIMIT)
        add_path("POST", "/forget", self._post_forget, STORE_LIMIT)
        add_path("POST", "/forget/preview", self._post_preview, STORE_LIMIT)

    @contextlib.asynccontextmanager
    async def _records(self) -> AsyncIterator[OpenRecords]:
        service = self._service
        settings, memory, traces = service.loaded.settings, service.memory_store, service.trace_store
        async with self._turns, open_records(settings, self._thread, memory, traces) as records:
            yield records

    @property
    def _files(self) -> RecordFiles:
        return RecordFiles(self._service.loaded.settings, self._thread)

    async def _post_traces(self, request: web.Request) -> web.Response:
        """Returns a page of traces as lines of JSON, newest first."""
        try:
            fields = json.loads(await request.read())
            query, limit, start = decode_query(fields["query"]), int(fields["limit"]), str(fields["start"])
        except (ValueError, LookupError, TypeError, RecursionError):
            raise web.HTTPBadRequest(text="the query is missing\n") from None
        async with self._records() as records:
            page = await records.find(query, max(limit, 1), start)
        lines = [encode(trace) for trace in page.traces]
        return web.json_response({"lines": lines, "next": page.next, "damaged": page.damaged})

    async def _get_retention(self, request: web.Request) -> web.Response:
        """Returns for how long traces are kept, and of which messages."""
        del request
        return web.json_response(asdict(await self._files.retention()))

    async def _post_names(self, request: web.Request) -> web.Response:
        """Returns the names that a text may mean."""
        try:
            written = json.loads(await request.read())["text"]
        except (ValueError, LookupError, TypeError, RecursionError):
            written = None
        if not isinstance(written, str):
            raise web.HTTPBadRequest(text="the text is missing\n")
        found = await self._files.names(written)
        return web.json_response({"names": sorted(found.names), "hashed": found.hashed})

    async def _get_copy(self, request: web.Request) -> web.Response:
        """Says where the copy of a record is."""
        text = await self._files.describe_copy(request.match_info["record"], request.query.get("kept", ""))
        return web.json_response({"text": text})

    async def _post_forget(self, request: web.Request) -> web.Response:
        """Frees the selected acceptances, and returns their number."""
        return web.json_response({"number": await self.forget(await _selection(request))})

    async def forget(self, selection: Selection) -> int:
        """Frees the selected acceptances, and returns their number. Raises `AdminError` or `StoreError`."""
        async with self._records() as records:
            return await records.forget(selection)

    async def _post_preview(self, request: web.Request) -> web.Response:
        """Returns the number of selected acceptances."""
        selection = await _selection(request)
        async with self._records() as records:
            return web.json_response({"number": await records.preview(selection)})


async def _selection(request: web.Request) -> Selection:
    try:
        return Selection.decode(await request.read())
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from None
