"""Servers that reply as a test says, for replies that a real Redis does not give on demand."""

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
    """Serves connections by a function, on the port that it yields. At the end it waits for the sessions."""
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
    """Replies to each command (name in upper case) with the bytes that `reply` returns; closes if it returns none."""

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
    """Returns a bulk string, as a reply or a part of one."""
    return b"$%d\r\n%s\r\n" % (len(text), text)


async def closed(writer: asyncio.StreamWriter) -> None:
    """Closes a connection and waits until it is closed."""
    writer.close()
    with contextlib.suppress(OSError):
        await writer.wait_closed()
