"""The server of the admin API. Anyone who may open its socket may use it: the file's permissions are the only check."""

from __future__ import annotations

import asyncio
import functools
import logging
import os
from typing import TYPE_CHECKING, TypeAlias, cast

from aiohttp import web

from relay import __version__
from relay.admin.actions_api import ActionsApi
from relay.admin.page_commands import PageCommands
from relay.admin.protocol import ANSWER_LIMIT, API, API_FIELD, LARGEST_REQUEST, VERSION_FIELD
from relay.admin.records_api import RecordsApi
from relay.admin.status import Status
from relay.core.errors import RelayError
from relay.events.service import NO_COMMANDS
from relay.monitor.http_connections import HttpConnections
from relay.runtime import unix_socket
from relay.runtime.tasks import Tasks

if TYPE_CHECKING:
    import socket
    from collections.abc import Awaitable, Callable, Sequence
    from pathlib import Path

    from relay.service import Service
    from relay.settings import Loaded

    Handler: TypeAlias = Callable[[web.Request], Awaitable[web.StreamResponse]]
    AddPath: TypeAlias = Callable[[str, str, Handler, float], None]

_MODE = 0o660
_BACKLOG = 128
_LAST_ANSWERS = 0.5
"""Seconds for which shutdown waits for running requests."""
_AFTER_ANSWER = 30.0
"""Seconds for which a connection stays open after the time limit of its request."""


class AdminServer:
    """Serves the commands of one service. Mail does not depend on it: if it cannot listen, it logs a warning."""

    def __init__(self, service: Service, load: Callable[[], Loaded]) -> None:
        """`load` reads the settings as they are on disk now."""
        self._path = service.loaded.settings.admin.socket
        self._status = Status(service)
        self._connections = HttpConnections()
        self._tasks = Tasks()
        self._app = web.Application(client_max_size=LARGEST_REQUEST, middlewares=[self._connections.note_request])
        self._app.on_response_prepare.append(_name_versions)
        self._runner = web.AppRunner(
            self._app,
            access_log=None,
            logger=logging.getLogger("relay.http"),
            handle_signals=False,
            shutdown_timeout=_LAST_ANSWERS,
        )
        self._own_socket: tuple[Path, int] | None = None
        self.address = ""
        """The path of its socket; empty before `start`, or if there is none."""
        self._add_path("GET", "/", self._get_process, ANSWER_LIMIT)
        self._add_path("GET", "/status", self._get_status, ANSWER_LIMIT)
        records, actions = RecordsApi(service, self._add_path), ActionsApi(service, load, self._add_path)
        service.commands = PageCommands(records, actions)

    def _add_path(self, method: str, path: str, handler: Handler, limit: float) -> None:
        """Adds a path, whose requests may take `limit` seconds."""

        @functools.wraps(handler)
        async def bounded(request: web.Request) -> web.StreamResponse:
            self._connections.allow(request, limit + _AFTER_ANSWER)
            try:
                async with asyncio.timeout(limit):
                    return await handler(request)
            except TimeoutError:
                raise web.HTTPGatewayTimeout(text=f"no result within {limit:g} s\n") from None
            except RelayError as error:
                raise web.HTTPConflict(text="\n".join(map(str, error.args)) + "\n") from error

        self._app.router.add_route(method, path, bounded)

    async def start(self, inherited: Sequence[socket.socket] = ()) -> None:
        """Listens on the sockets of the service manager, else on `admin.socket`, if it is set."""
        self._tasks.start_loop(self._status.rates.sample, "sample rates")
        await self._runner.setup()
        make_handler = cast("Callable[[], asyncio.Protocol]", self._runner.server)
        try:
            for listening in inherited or self._listen():
                await self._connections.adopt(listening, make_handler)
                self.address = os.fsdecode(listening.getsockname())
        except OSError as error:
            NO_COMMANDS.log(path=str(self._path), error=error.strerror or str(error))

    def _listen(self) -> list[socket.socket]:
        if self._path is None:
            return []
        listening = unix_socket.listen_on(self._path, _MODE, "", _BACKLOG)
        self._own_socket = self._path, self._path.lstat().st_ino
        return [listening]

    async def close(self) -> None:
        """Stops listening, and closes all connections."""
        if self._own_socket:
            unix_socket.remove(*self._own_socket)
        self._connections.close()
        await self._runner.cleanup()
        await self._tasks.cancel()

    async def _get_process(self, request: web.Request) -> web.Response:
        """Says which relay answers."""
        del request
        return web.json_response(self._status.process())

    async def _get_status(self, request: web.Request) -> web.Response:
        del request
        return web.json_response(self._status(self.address))


async def _name_versions(request: web.Request, response: web.StreamResponse) -> None:
    del request
    response.headers[API_FIELD], response.headers[VERSION_FIELD] = API, __version__
