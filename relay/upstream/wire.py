"""The client's side of SMTP on one connection: pipelined commands and their replies (RFC 2920).

aiosmtplib connects and handles TLS and AUTH. Then `Wire` takes over its transport: aiosmtplib's commands wait for one
reply each, and its DATA would rewrite bare CR and LF.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import TYPE_CHECKING

from relay.core.reply import Reply
from relay.runtime.tasks import LATE
from relay.upstream.excerpt import HIDE, LONGEST_LINE, MOST_LINES, describe, excerpt

if TYPE_CHECKING:
    from collections.abc import Sequence

LONGEST_REPLY = 64 * 1024
"""Bytes of a reply that are accepted. Of these, `excerpt` bounds what is kept."""
_REPLY_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?", re.DOTALL)


class ConnectionEnded(Exception):  # noqa: N818 - an event, caught in `upstream.delivery`
    """The connection cannot be used any more: it was lost, a time limit ended, or a reply was invalid."""


class NoReply(ConnectionEnded):
    """A time limit ended: the upstream hangs."""


async def _wait(reply: asyncio.Future[Reply], limit: float) -> None:
    """Waits for a reply. Raises `TimeoutError` after `limit` seconds.

    A timer for the future itself: with `asyncio.timeout` or `asyncio.wait` a message takes 3 % more CPU.
    """
    loop = asyncio.get_running_loop()
    timer = loop.call_later(limit, _end_wait, reply, loop.time() + limit, limit / 2)
    try:
        await reply
    finally:
        timer.cancel()


def _end_wait(reply: asyncio.Future[Reply], due: float, extension: float) -> None:
    """Ends the wait for a reply with `TimeoutError`.

    If the event loop itself was held up, the wait is extended once: the reply may already be in the socket, unread.
    """
    loop = reply.get_loop()
    if extension and loop.time() > due + LATE:
        loop.call_later(extension, _end_wait, reply, due, 0)
    elif not reply.done():
        reply.set_exception(TimeoutError())


class Wire(asyncio.Protocol):
    """Matches replies to commands in their order. An unsolicited reply ends the connection."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._length = 0
        self._expected: deque[asyncio.Future[Reply] | None] = deque()
        self._writable = asyncio.Event()
        self._writable.set()
        self._closed = asyncio.Event()
        self.ended = ""
        """Why the connection cannot be used any more; empty while it can."""
        transport.set_protocol(self)

    async def execute(self, commands: Sequence[bytes], limit: float) -> list[Reply]:
        """Sends commands at once and returns a reply for each.

        Raises `ConnectionEnded`, also if a reply does not arrive within `limit` seconds.
        """
        replies = self._expect(len(commands))
        self._write(commands)
        return await self._collect(replies, limit)

    async def execute_one(self, pieces: Sequence[bytes], limit: float) -> Reply:
        """Sends what has one reply as a whole, such as a command, or content with its dot. Raises as `execute`."""
        replies = self._expect(1)
        self._write(pieces)
        return (await self._collect(replies, limit))[0]

    def reset(self) -> None:
        """Sends RSET without waiting. Its reply is dropped when it arrives."""
        if not self.ended:
            self._expected.append(None)
            self._write([b"RSET\r\n"])

    async def upload(self, block: bytes, limit: float) -> Reply | None:
        """Sends a block of content and waits until all of it has left. Returns a reply that arrives meanwhile."""
        [reply] = self._expect(1)
        try:
            self._transport.set_write_buffer_limits(high=0)
            self._write([block])
            async with asyncio.timeout(limit):
                # An early reply and the end of the connection set it too.
                await self._writable.wait()
        except TimeoutError:
            self.abort(f"took no content for {limit:g} s")
            raise NoReply(self.ended) from None
        if reply.done():
            return reply.result()
        self._forget(reply)
        return None

    def abort(self, reason: str) -> ConnectionEnded:
        """Closes the connection at once, and returns the exception to raise."""
        self._fail(reason)
        self._transport.abort()
        return ConnectionEnded(self.ended)

    def quit(self) -> None:
        """Sends QUIT and closes the connection without waiting for the reply."""
        self._say_quit()
        self._transport.close()

    async def leave(self, limit: float) -> None:
        """Sends QUIT and waits until the upstream has closed, so that it no longer counts the connection."""
        self._say_quit()
        try:
            async with asyncio.timeout(limit):
                await self._closed.wait()
        except TimeoutError:
            pass
        finally:
            self._transport.close()

    def _say_quit(self) -> None:
        if not self.ended:
            self._write([b"QUIT\r\n"])
            self._fail("closed by us")

    def _write(self, pieces: Sequence[bytes]) -> None:
        """Writes to the transport. An error ends the connection, and who waits for a reply receives the reason."""
        try:
            self._transport.writelines(pieces)
        except (OSError, RuntimeError) as error:  # uvloop raises RuntimeError on a transport that was reset
            self.abort(f"lost: {error}")

    def _expect(self, count: int) -> list[asyncio.Future[Reply]]:
        if self.ended:
            raise ConnectionEnded(self.ended)
        loop = asyncio.get_running_loop()
        replies = [loop.create_future() for _ in range(count)]
        self._expected.extend(replies)
        return replies

    def _forget(self, reply: asyncio.Future[Reply]) -> None:
        self._expected.remove(reply)
        reply.cancel()

    async def _collect(self, replies: Sequence[asyncio.Future[Reply]], limit: float) -> list[Reply]:
        try:
            for reply in replies:
                if not reply.done():
                    await _wait(reply, limit)
            return [reply.result() for reply in replies]
        except TimeoutError:
            self.abort(f"no reply within {limit:g} s")
            raise NoReply(self.ended) from None
        except asyncio.CancelledError:
            # These replies will not be read, and the next transaction must not read them as its own.
            self.abort("abandoned in the middle of a command")
            raise

    def _fail(self, reason: str) -> None:
        self.ended = self.ended or reason
        for reply in self._expected:
            if reply is not None and not reply.done():
                reply.set_exception(ConnectionEnded(self.ended))
                reply.exception()  # marks it as retrieved: the waiting task may have been cancelled
        self._expected.clear()
        self._writable.set()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Cuts the bytes that arrived into replies."""
        self._buffer += data
        while not self.ended and (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end]).removesuffix(b"\r").translate(HIDE)
            del self._buffer[: end + 1]
            self._take_line(line)
        if len(self._buffer) > LONGEST_REPLY + len(b"\r"):
            self.abort("an endless reply")

    def _take_line(self, line: bytes) -> None:
        match = _REPLY_LINE.fullmatch(line)
        if not match or (self._lines and not line.startswith(self._lines[0][:3])):
            self.abort(f"not an SMTP reply: {line[:80]!r}")
            return
        self._lines.append(line)
        self._length += len(line)
        if self._length > LONGEST_REPLY:
            self.abort("an endless reply")
            return
        if match[2] == b"-":
            return
        reply = Reply(int(match[1]), tuple(excerpt(line[4:], LONGEST_LINE, b" ") for line in self._lines[:MOST_LINES]))
        self._lines, self._length = [], 0
        if not self._expected:
            self.abort(f"said without being asked: {describe(reply)}")
            return
        expected = self._expected.popleft()
        if expected is None:
            if not reply.positive:
                self.abort(f"refused RSET: {describe(reply)}")
        elif not expected.done():  # if done, the waiting task was cancelled, and is about to abort the connection
            expected.set_result(reply)
            self._writable.set()
        if reply.closing:
            # No further reply will arrive. The waiting tasks receive the reason.
            self._fail(f"answered {describe(reply)}")

    def eof_received(self) -> bool:
        """Treats a half-close as a close: SMTP needs both directions."""
        self._fail("closed by the upstream")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Ends the commands that wait for a reply."""
        self._closed.set()
        self._fail(f"lost: {exc}" if exc else "closed by the upstream")

    def pause_writing(self) -> None:
        """Makes `upload` wait."""
        if not self.ended:
            self._writable.clear()

    def resume_writing(self) -> None:
        """Lets `upload` go on."""
        self._writable.set()
