"""The paths of the admin API that show and test the settings, and release copies."""

from __future__ import annotations

import asyncio
import json
from typing import TYPE_CHECKING, TypeVar

from aiohttp import web

from relay.admin.check import check_running, decode_trial, encode_checked
from relay.admin.on_disk import difference
from relay.admin.protocol import CHECK_LIMIT, FILES_LIMIT, RELEASE_LIMIT
from relay.admin.release import ReleaseRequest, release
from relay.check.finding import Finding
from relay.core.errors import SettingsError
from relay.runtime.executor import Executor
from relay.settings.render import effective_toml

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping

    from relay.admin.release import Released
    from relay.admin.server import AddPath
    from relay.service import Service
    from relay.settings import Loaded

T = TypeVar("T")


class ActionsApi:
    """Serves one service. Its work is in threads: it reads and writes files, and a disk may hang.

    There is one thread for each kind. A second check or release waits for the first.
    """

    def __init__(self, service: Service, load: Callable[[], Loaded], add_path: AddPath) -> None:
        self._service = service
        self._load = load
        self._reading = Executor("settings", 1, FILES_LIMIT)
        self._checking = Executor("check", 1)
        self._releasing = Executor("release", 1)
        add_path("GET", "/config", self._get_config, FILES_LIMIT)
        add_path("POST", "/check", self._post_check, CHECK_LIMIT)
        add_path("POST", "/release", self._post_release, RELEASE_LIMIT)

    async def _get_config(self, request: web.Request) -> web.Response:
        """Returns the settings in force, and in which those on disk differ. Passwords are masked."""
        del request
        in_force = self._service.loaded
        return web.json_response({"toml": effective_toml(in_force), "remarks": await self._remarks(in_force)})

    async def _remarks(self, in_force: Loaded) -> list[str]:
        try:
            new = await self._reading.run(self._load)
        except SettingsError as error:
            return [f"the settings on disk are wrong, and not in force: {line}" for line in str(error).splitlines()]
        return ["; ".join(changed)] if (changed := difference(in_force, new)) else []

    async def _post_check(self, request: web.Request) -> web.Response:
        """Tests the settings in force, and those on disk if they differ."""
        trial = await _decoded(request, decode_trial)
        in_force, held = self._service.loaded, self._held()
        checked = await self._checking.run(
            lambda: asyncio.run(check_running(in_force, self._load, held, trial)),
        )
        return web.json_response(encode_checked(checked, in_force.warnings))

    def _held(self) -> dict[str, Finding]:
        service = self._service
        addresses = {
            "listen.address": service.address,
            "listen.tls_address": service.tls_address,
            "http.address": service.http_address,
        }
        return {
            key: Finding(key, f"the running relay listens on {address}")
            for key, address in addresses.items()
            if address
        }

    async def _post_release(self, request: web.Request) -> web.Response:
        """Releases a copy, and returns what the upstream answers."""
        return web.json_response((await self.release(await _decoded(request, ReleaseRequest.decode))).encode())

    async def release(self, wanted: ReleaseRequest) -> Released:
        """Releases a copy. Raises `AdminError` or `SettingsError`."""
        settings = self._service.loaded.settings
        return await self._releasing.run(lambda: asyncio.run(release(settings, wanted)))


async def _decoded(request: web.Request, decode: Callable[[Mapping[str, object]], T]) -> T:
    try:
        return decode(json.loads(await request.read()))
    except (LookupError, TypeError, ValueError, RecursionError):
        raise web.HTTPBadRequest(text="the request lacks what it needs\n") from None
