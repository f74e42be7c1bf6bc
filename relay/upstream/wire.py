"""The SMTP client's side of one connection: commands out, replies in, several at once (RFC 2920).

aiosmtplib connects, speaks TLS and AUTH; then this takes the transport over, because its own commands wait for one
reply each and its DATA would rewrite bare CR and LF.
"""

from __future__ import annotations

import asyncio
import re
from collections import deque
from typing import TYPE_CHECKING

from relay.core.reply import Reply

if TYPE_CHECKING:
    from collections.abc import Sequence

# RFC 5321 section 4.5.3.1.5 asks for 512 octets a line; be generous, yet bounded.
LONGEST_REPLY = 64 * 1024
_REPLY_LINE = re.compile(rb"([2-5]\d\d)(?:([ -])(.*))?", re.DOTALL)
_HIDE = bytes.maketrans(bytes({*range(0x20), 0x7F} - {ord("\t")}), b"?" * 32)
"""A table that hides control characters: a bare CR in a reply could forge another one for whoever reads it next."""


class ConnectionEnded(Exception):  # noqa: N818 - it is an event, met in two places of `upstream.delivery`
    """The connection is of no further use: lost, out of time, or answering nonsense."""


class NoAnswer(ConnectionEnded):
    """The upstream let its time go by: it hangs, rather than that it went."""


class Wire(asyncio.Protocol):
    """Replies in the order of their commands. Anything that comes unasked ends the connection's usefulness."""

    def __init__(self, transport: asyncio.Transport) -> None:
        self._transport = transport
        self._buffer = bytearray()
        self._lines: list[bytes] = []
        self._length = 0
        self._awaited: deque[asyncio.Future[Reply] | None] = deque()
        self._writable = asyncio.Event()
        self._writable.set()
        self.ended = ""
        """Why the connection can be used no more, or empty."""
        transport.set_protocol(self)

    async def ask(self, commands: Sequence[bytes], limit: float) -> list[Reply]:
        """Send commands at once and give a reply for each.

        Raises `ConnectionEnded`, also when no reply has come for `limit` seconds.
        """
        replies = self._expect(len(commands))
        self._transport.writelines(commands)
        return await self._collect(replies, limit)

    async def ask_once(self, pieces: Sequence[bytes], limit: float) -> Reply:
        """Send what gets one reply as a whole, such as content with its dot. Raises `ConnectionEnded`."""
        replies = self._expect(1)
        self._transport.writelines(pieces)
        return (await self._collect(replies, limit))[0]

    def reset(self) -> None:
        """Send RSET and do not wait: its reply is swallowed before that of the next command."""
        if not self.ended:
            self._awaited.append(None)
            self._transport.write(b"RSET\r\n")

    async def start(self, block: bytes, limit: float) -> Reply | None:
        """Send a block of content and wait until all of it has left. A reply that comes already now is given."""
        [reply] = self._expect(1)
        try:
            self._transport.set_write_buffer_limits(high=0)
            self._transport.write(block)
            async with asyncio.timeout(limit):
                # A reply that comes early, or the end of the connection, sets it too.
                await self._writable.wait()
        except TimeoutError:
            self.end(f"took no content for {limit:g} s")
            raise NoAnswer(self.ended) from None
        if reply.done():
            return reply.result()
        self._forget(reply)
        return None

    def end(self, reason: str) -> ConnectionEnded:
        """Close at once, and give the exception to raise."""
        self._fail(reason)
        self._transport.abort()
        return ConnectionEnded(self.ended)

    def quit(self) -> None:
        """Say QUIT and close; what the upstream answers cannot matter any more."""
        if not self.ended:
            self._transport.write(b"QUIT\r\n")
            self._fail("closed by us")
        self._transport.close()

    def _expect(self, count: int) -> list[asyncio.Future[Reply]]:
        if self.ended:
            raise ConnectionEnded(self.ended)
        loop = asyncio.get_running_loop()
        replies = [loop.create_future() for _ in range(count)]
        self._awaited.extend(replies)
        return replies

    def _forget(self, reply: asyncio.Future[Reply]) -> None:
        self._awaited.remove(reply)
        reply.cancel()

    async def _collect(self, replies: Sequence[asyncio.Future[Reply]], limit: float) -> list[Reply]:
        try:
            for reply in replies:
                if not reply.done():
                    async with asyncio.timeout(limit):
                        await reply
            return [reply.result() for reply in replies]
        except TimeoutError:
            self.end(f"no reply within {limit:g} s")
            raise NoAnswer(self.ended) from None
        except asyncio.CancelledError:
            # Nobody will read these replies: the next transaction must not take them for its own.
            self.end("abandoned in the middle of a command")
            raise

    def _fail(self, reason: str) -> None:
        self.ended = self.ended or reason
        for reply in self._awaited:
            if reply is not None and not reply.done():
                reply.set_exception(ConnectionEnded(self.ended))
                reply.exception()  # whoever waited may have been cancelled: nobody need hear of it
        self._awaited.clear()
        self._writable.set()

    # asyncio.Protocol

    def data_received(self, data: bytes) -> None:
        """Cut replies out of what came in."""
        self._buffer += data
        while not self.ended and (end := self._buffer.find(b"\n")) >= 0:
            line = bytes(self._buffer[:end]).removesuffix(b"\r").translate(_HIDE)
            del self._buffer[: end + 1]
            self._take(line)
        if len(self._buffer) > LONGEST_REPLY + len(b"\r"):
            self.end("an endless reply")

    def _take(self, line: bytes) -> None:
        found = _REPLY_LINE.fullmatch(line)
        if not found or (self._lines and not line.startswith(self._lines[0][:3])):
            self.end(f"not an SMTP reply: {line[:80]!r}")
            return
        self._lines.append(line)
        self._length += len(line)
        if self._length > LONGEST_REPLY:
            self.end("an endless reply")
            return
        if found[2] == b"-":
            return
        reply = Reply(int(found[1]), tuple(line[4:] for line in self._lines))
        self._lines, self._length = [], 0
        if not self._awaited:
            self.end(f"said without being asked: {reply.code} {reply.text}")
            return
        waiting = self._awaited.popleft()
        if waiting is None:
            if not reply.positive:
                self.end(f"refused RSET: {reply.code} {reply.text}")
        elif not waiting.done():  # whoever waited may have been cancelled just now, and is about to end this
            waiting.set_result(reply)
            self._writable.set()
        if reply.closing:
            # Nothing else will be answered; whoever waits is to hear why.
            self._fail(f"answered {reply.code} {reply.text}")

    def eof_received(self) -> bool:
        """Treat a half-close as a close: nobody speaks SMTP in one direction."""
        self._fail("closed by the upstream")
        return False

    def connection_lost(self, exc: Exception | None) -> None:
        """Tell whoever waits."""
        self._fail(f"lost: {exc}" if exc else "closed by the upstream")

    def pause_writing(self) -> None:
        """Let `start` wait."""
        if not self.ended:
            self._writable.clear()

    def resume_writing(self) -> None:
        """Let `start` go on."""
        self._writable.set()
