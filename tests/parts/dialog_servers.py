"""The two servers for SMTP dialogs: the relay in this process, and an unchanged aiosmtpd."""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from aiosmtpd.smtp import SMTP

from parts.ports import HOST
from parts.waiting import until
from relay.runtime.executor import Executor
from relay.service import Service
from relay.service.reload import reload
from relay.settings.sources import from_values

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Mapping

    from relay.settings import Loaded
    from relay.settings.sections.monitor import LogSection


@dataclass(frozen=True)
class Relay:
    """A relay that runs in this process."""

    service: Service
    port: int
    """0 if it listens on a Unix socket."""
    keys: Mapping[str, object]
    """The settings with which it started."""
    reading: Executor

    async def reload(self, changes: Mapping[str, object] | None = None) -> bool:
        """Reloads with some settings changed. Returns whether they are in force."""
        return await reload(self.service, lambda: loaded(self.keys | dict(changes or {})), self.reading, ignore_log)

    @property
    def busy(self) -> bool:
        """Whether a client is connected or a message is being delivered."""
        table = self.service.listener.table
        return bool(len(table) or len(table.handlers) or len(table.messages))


@contextlib.asynccontextmanager
async def relay(upstream: str, settings: Mapping[str, object] | None = None) -> AsyncIterator[Relay]:
    """Starts a relay on a memory store. It adds no Received field, so that content can be compared."""
    keys: dict[str, object] = {
        "listen.address": f"{HOST}:0",
        "http.address": "",
        "store.url": "memory:",
        "upstream.url": upstream,
        "upstream.patience": "1s",
        "upstream.received_field": False,
        **(settings or {}),
    }
    service = Service(loaded(keys))
    reading = Executor("reload", 1)
    await service.start()
    try:
        await until(lambda: service.state()[0], "the upstream")
        port = 0 if service.address.startswith("unix:") else int(service.address.rpartition(":")[2])
        yield Relay(service, port, keys, reading)
    finally:
        reading.close()
        await service.close()


def ignore_log(log: LogSection) -> None:
    """Leaves the log as it is: it belongs to the process."""


def loaded(keys: Mapping[str, object]) -> Loaded:
    """Returns settings by dotted key."""
    return from_values({key: (value, "test") for key, value in keys.items()})


@dataclass(frozen=True)
class _Arrived:
    reverse_path: bytes
    recipients: list[bytes]
    content: bytes


class _Handler:
    def __init__(self) -> None:
        self.arrived: list[_Arrived] = []

    async def handle_DATA(self, server: SMTP, session: object, envelope: Any) -> str:  # noqa: N802
        path = envelope.mail_from.encode("utf-8", "surrogateescape").removeprefix(b"<").removesuffix(b">")
        recipients = [path.encode("utf-8", "surrogateescape") for path in envelope.rcpt_tos]
        self.arrived.append(_Arrived(path, recipients, envelope.content))
        return "250 OK"


@contextlib.asynccontextmanager
async def aiosmtpd() -> AsyncIterator[tuple[int, list[_Arrived]]]:
    """Starts aiosmtpd. Yields its port and the list of messages that arrived."""
    handler = _Handler()
    loop = asyncio.get_running_loop()
    made: list[SMTP] = []

    def connection() -> SMTP:
        made.append(SMTP(handler, hostname="relay.example.test", enable_SMTPUTF8=True, loop=loop))
        return made[-1]

    server = await loop.create_server(connection, HOST, 0)
    try:
        yield server.sockets[0].getsockname()[1], handler.arrived
    finally:
        server.close()
        for protocol in made:
            if protocol._handler_coroutine is not None:
                protocol._handler_coroutine.cancel()
        await asyncio.gather(
            *(p._handler_coroutine for p in made if p._handler_coroutine is not None), return_exceptions=True
        )
