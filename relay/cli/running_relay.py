"""The store of a running relay with `store.url = "memory:"`, asked over its HTTP address."""

from __future__ import annotations

import contextlib
import os
from http import HTTPStatus
from typing import TYPE_CHECKING

from relay.cli.exit_status import CommandError

if TYPE_CHECKING:
    from collections.abc import AsyncIterator

    import aiohttp

    from relay.records.selection import Selection
    from relay.settings import Settings
    from relay.settings.addresses import HostPort

_ANSWER_LIMIT = 60.0
"""Seconds."""
_LOOPBACK = {"0.0.0.0": "127.0.0.1", "::": "::1"}
"""The address to connect to where the relay listens on all addresses."""


@contextlib.asynccontextmanager
async def ask_running_relay(settings: Settings) -> AsyncIterator[RunningRelay]:
    """Opens the HTTP client. Raises `CommandError` where the relay does not answer, or not as a relay does."""
    import aiohttp

    address = settings.http.address
    if address is None:
        raise CommandError(
            "store.url memory: is in the relay's own memory, and http.address is empty, so commands cannot reach it; "
            "set http.address, or another store"
        )
    at = f"the relay at http.address {address}"
    async with aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=_ANSWER_LIMIT)) as client:
        try:
            yield RunningRelay(client, address)
        except aiohttp.ClientResponseError as error:
            if error.status == HTTPStatus.NOT_FOUND:
                raise CommandError(
                    f"the relay at {address} does not keep its store in memory; name the store that it uses with "
                    "-c FILE or --store URL"
                ) from error
            raise CommandError(f"{at} says {error.status}: {error.message}") from error
        except (aiohttp.ClientError, TimeoutError, ValueError) as error:
            reason = _reason(error)
            raise CommandError(
                f"{at} does not answer: {reason}; with store.url memory: it must be running, and on this host"
            ) from error


class RunningRelay:
    """What a running relay offers of its store. Raises aiohttp's errors, and `ValueError` for a wrong answer."""

    def __init__(self, client: aiohttp.ClientSession, address: HostPort) -> None:
        host = _LOOPBACK.get(address.host, address.host)
        self._client = client
        self._base = f"http://[{host}]:{address.port}" if ":" in host else f"http://{host}:{address.port}"

    async def lines(self, age: float) -> AsyncIterator[str]:
        """Yields the records that are at most `age` seconds old, as stored, newest first."""
        for line in (await self._ask("GET", "/records", "records", params={"age": age})).splitlines():
            yield line

    async def forget(self, selection: Selection) -> int:
        """Frees the selected acceptances, and returns their number."""
        return await self._count("/forget", selection, "freed")

    async def preview(self, selection: Selection) -> int:
        """Returns the number of selected acceptances."""
        return await self._count("/forget/preview", selection, "found")

    async def _count(self, path: str, selection: Selection, name: str) -> int:
        import json

        answer = await self._ask("POST", path, "forget", data=selection.encode())
        try:
            return int(json.loads(answer)[name])
        except (LookupError, TypeError, ValueError):
            raise ValueError("it answers as no relay does") from None

    async def _ask(self, method: str, path: str, command: str, **request: object) -> str:
        import aiohttp

        from relay.monitor.http import COMMAND

        headers = {COMMAND: command}
        async with self._client.request(method, self._base + path, headers=headers, **request) as answer:  # type: ignore[arg-type]
            text = await answer.text()
        if answer.status != HTTPStatus.OK:
            message = text.strip()[:200]
            raise aiohttp.ClientResponseError(
                answer.request_info, answer.history, status=answer.status, message=message
            )
        return text


def _reason(error: Exception) -> str:
    """Returns why the relay could not be reached: the system's message without aiohttp's additions."""
    import aiohttp

    if isinstance(error, aiohttp.ClientConnectorError):
        return (os.strerror(error.errno) if error.errno and error.errno > 0 else "no such host").lower()
    return str(error) or f"no answer within {_ANSWER_LIMIT:g} s"
