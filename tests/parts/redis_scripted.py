"""Servers that answer as the test says: what no real Redis does when it is wanted."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, TypeAlias

import hiredis

from parts.ports import HOST

if TYPE_CHECKING:
    from collections.abc import AsyncIterator, Awaitable, Callable, Sequence

Serve: TypeAlias = "Callable[[asyncio.StreamReader, asyncio.StreamWriter], Awaitable[None]]"


@contextlib.asynccontextmanager
async def listening(serve: Serve) -> AsyncIterator[int]:
    """Serve connections in the test's own way on the port that this gives, and see them ended at its end."""
    sessions: set[asyncio.Task[None]] = set()

    async def session(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        sessions.add(asyncio.current_task())
        await serve(reader, writer)
        await closed(writer)

    async with await asyncio.start_server(session, HOST, 0) as server:
        yield server.sockets[0].getsockname()[1]
        if sessions:
            await asyncio.wait(sessions)


def saying(reply: Callable[[Sequence[bytes]], bytes]) -> Serve:
    """Answer each command, its name in upper case, with the bytes that the function gives; hang up if it gives none."""

    async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        commands = hiredis.Reader()
        while data := await reader.read(65536):
            commands.feed(data)
            while (command := commands.gets()) is not False:
                if not (told := reply([command[0].upper(), *command[1:]])):
                    return
                writer.write(told)

    return serve


def bulk(text: bytes) -> bytes:
    """Write a text as a reply, or as a part of one."""
    return b"$%d\r\n%s\r\n" % (len(text), text)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Close a connection, and wait until it is."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
