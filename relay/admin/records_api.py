"""The paths of the admin API about records and acceptances."""

from __future__ import annotations

import asyncio
import contextlib
import json
import math
from typing import TYPE_CHECKING

from aiohttp import web

from relay.admin.protocol import FILES_LIMIT, STORE_LIMIT
from relay.admin.records import RecordFiles, files_thread, open_records
from relay.records.selection import Selection

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    from relay.admin.records import OpenRecords
    from relay.admin.server import AddPath
    from relay.service import Service

_MOST_AT_ONCE = 2
"""Requests that use a store at once; further ones wait, so that commands do not take what mail needs."""
_PIECE = 64 * 1024
"""Bytes that are sent at once."""


class RecordsApi:
    """Serves the store of one service. Each request opens a SQLite file or Redis anew, apart from that of mail."""

    def __init__(self, service: Service, add_path: AddPath) -> None:
        self._service = service
        self._thread = files_thread()
        self._turns = asyncio.Semaphore(_MOST_AT_ONCE)
        add_path("GET", "/records", self._get_records, STORE_LIMIT)
        add_path("GET", "/records/keep_for", self._get_keep_for, FILES_LIMIT)
        add_path("POST", "/records/address", self._post_address, FILES_LIMIT)
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

    async def _get_records(self, request: web.Request) -> web.StreamResponse:
        """Returns the records up to `age` seconds old, newest first, one JSON object a line."""
        try:
            age = float(request.query["age"])
        except (KeyError, ValueError):
            age = math.nan
        if not age >= 0:
            raise web.HTTPBadRequest(text="age: a number of seconds is missing\n")
        response = web.StreamResponse(headers={"Content-Type": "application/x-ndjson"})
        piece = bytearray()
        async with self._records() as records:
            async for line in records.lines(age):
                piece += line.encode() + b"\n"
                if len(piece) >= _PIECE:
                    # Not before there is something to send: until then an error has a status of its own.
                    await _send(request, response, piece)
        await _send(request, response, piece)
        await response.write_eof()
        return response

    async def _get_keep_for(self, request: web.Request) -> web.Response:
        del request
        return web.json_response({"seconds": await self._files.keep_for()})

    async def _post_address(self, request: web.Request) -> web.Response:
        """Returns an address as records contain it."""
        try:
            written = json.loads(await request.read())["address"]
        except (ValueError, LookupError, TypeError, RecursionError):
            written = None
        if not isinstance(written, str):
            raise web.HTTPBadRequest(text="the address is missing\n")
        found = await self._files.find(written)
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


async def _send(request: web.Request, response: web.StreamResponse, piece: bytearray) -> None:
    if not response.prepared:
        await response.prepare(request)
    await response.write(bytes(piece))
    piece.clear()


async def _selection(request: web.Request) -> Selection:
    try:
        return Selection.decode(await request.read())
    except (ValueError, RecursionError) as error:
        raise web.HTTPBadRequest(text=f"{error}\n") from None
