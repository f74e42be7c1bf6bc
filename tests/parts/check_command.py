"""`relay check` as a process, and an address that another program holds."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING

from parts.ports import HOST, free_port
from parts.relay_process import Finished, run_relay

if TYPE_CHECKING:
    from collections.abc import AsyncIterator


UPSTREAM = "maildir:nowhere/mail"
"""A Maildir that does not exist and could be created."""


async def check(*flags: str, **settings: object) -> Finished:
    """Run `relay check` on free addresses unless others are given."""
    listen = str(settings.pop("listen", f"{HOST}:{free_port()}"))
    http = str(settings.pop("http", f"{HOST}:{free_port()}"))
    return await run_relay("check", "--listen", listen, "--http", http, *flags)


@contextlib.asynccontextmanager
async def holding(said: bytes) -> AsyncIterator[str]:
    """Hold an address with a server that sends this to every client."""

    async def serve(_: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(said)
        await writer.drain()
        writer.close()

    port = free_port()
    async with await asyncio.start_server(serve, HOST, port):
        yield f"{HOST}:{port}"
