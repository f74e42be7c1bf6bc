"""A TCP proxy in front of a server, which can cut, delay, refuse and watch connections."""

from __future__ import annotations

import asyncio
import contextlib
from typing import TYPE_CHECKING, Self

from parts.faults import break_off
from parts.ports import HOST, free_port

if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable


class Wire:
    """Listens on `port` and passes everything on to `server_port`.

    `before(octets)` is awaited before octets go to the server. It returns how many of them may pass, or None for all;
    after fewer the connection is cut. `after(octets)` is awaited when they have been sent, while answers may already
    arrive. `answer(octets)` is awaited before an answer goes back, and returns the same as `before`.
    """

    def __init__(self, server_port: int, host: str = HOST) -> None:
        self.port = free_port()
        self._host = host
        self.delay = 0.0
        """Seconds of delay for each piece, in both directions."""
        self.before: Callable[[bytes], Awaitable[int | None]] | None = None
        self.after: Callable[[bytes], Awaitable[None]] | None = None
        self.answer: Callable[[bytes], Awaitable[int | None]] | None = None
        self._server_port = server_port
        self._server: asyncio.Server | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._writers: set[asyncio.StreamWriter] = set()

    async def __aenter__(self) -> Self:
        await self.listen()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.refuse()

    async def listen(self) -> None:
        """Accepts connections."""
        if self._server is None:
            self._server = await asyncio.start_server(self._connected, self._host, self.port, backlog=1024)

    async def refuse(self) -> None:
        """Resets all connections and accepts no new ones."""
        server, self._server = self._server, None
        if server is not None:
            server.close()
        self.cut()
        await asyncio.gather(*self._tasks, return_exceptions=True)

    def cut(self) -> None:
        """Resets all connections."""
        for writer in list(self._writers):
            break_off(writer)

    async def _connected(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task
        self._tasks.add(task)
        ends = {writer}
        self._writers |= ends
        try:
            there_reader, there = await asyncio.open_connection(HOST, self._server_port)
            ends.add(there)
            self._writers |= ends
            upward = asyncio.create_task(self._carry_up(reader, there))
            downward = asyncio.create_task(self._carry_down(there_reader, writer))
            await asyncio.wait({upward, downward}, return_when=asyncio.FIRST_COMPLETED)
            for direction in (upward, downward):
                direction.cancel()
            await asyncio.gather(upward, downward, return_exceptions=True)
        except OSError:
            pass
        finally:
            self._writers -= ends
            for end in ends:
                end.transport.abort()
            self._tasks.discard(task)

    async def _carry_up(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while octets := await reader.read(1 << 16):
                if self.delay:
                    await asyncio.sleep(self.delay)
                most = await self.before(octets) if self.before else None
                writer.write(octets if most is None else octets[:most])
                await writer.drain()
                if self.after:
                    await self.after(octets)
                if most is not None and most < len(octets):
                    return

    async def _carry_down(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while octets := await reader.read(1 << 16):
                if self.delay:
                    await asyncio.sleep(self.delay)
                most = await self.answer(octets) if self.answer else None
                writer.write(octets if most is None else octets[:most])
                await writer.drain()
                if most is not None and most < len(octets):
                    return
