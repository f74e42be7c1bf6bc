"""Cuts the bytes of a client into command lines and content. `relay.smtp.connection` feeds and reads it."""

from __future__ import annotations

import asyncio
import math
from typing import TYPE_CHECKING

from relay.core.session_refusal import SessionRefusal

if TYPE_CHECKING:
    from collections.abc import Callable

_END = b"\r\n.\r\n"
_INCOMPLETE_END = b".\r"
"""The bytes at the end of the buffer that may belong to the final dot rather than to the content."""
_MOST_AHEAD = 64 * 1024
"""Bytes that a client may send ahead, except of content that is being read. Then the relay stops reading its socket."""
_LINES_IN_A_ROW = 8
"""Pipelined lines after which the other sessions have their turn. One command takes 10 to 100 µs."""


class LineTooLong(Exception):  # noqa: N818 - a client's error, answered with 500 5.5.2
    """A command line was longer than the limit. All of it has been skipped."""


class ContentTooLarge(Exception):  # noqa: N818 - a client's error, answered with 552 5.3.4
    """The content was larger than the limit. It has been skipped up to and including its final dot."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size
        """Bytes."""


class NoMemory(Exception):  # noqa: N818 - answered with 452 4.3.1
    """There was no memory for all of the content. It has been skipped up to and including its final dot."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size
        """Bytes."""


class ClientGone(Exception):  # noqa: N818 - the ordinary end of a session
    """The client sends no more."""


class TimedOut(Exception):  # noqa: N818 - the other ordinary end of a session
    """A time limit of the session ended: the client was silent, or too slow, or stayed too long."""

    def __init__(self, refusal: SessionRefusal) -> None:
        super().__init__(refusal.reason)
        self.refusal = refusal


class Reader:
    """Receives bytes and returns lines and content.

    `pause` and `resume` stop and restart reading from the socket. `idle` is the limit in seconds for each read; it
    starts again when bytes arrive. Content must arrive at `rate` bytes per second or more, averaged over `idle`
    seconds; 0 means any rate.
    """

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None], idle: float, rate: int = 0) -> None:
        self._pause = pause
        self._resume = resume
        self._idle = idle
        self._rate = rate
        self.until = math.inf
        """When the last read must end, by the event loop's clock."""
        self._content_due = math.inf
        """When more content must have arrived, by the event loop's clock."""
        self._buffer = bytearray()
        self._paused = False
        self._reads_content = False
        self._in_a_row = 0
        """The lines that were returned since the reader last waited."""
        self._ended = False
        self._arrival: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        """Appends bytes that arrived."""
        self._buffer += data
        self._wake()
        if len(self._buffer) > _MOST_AHEAD and not (self._reads_content or self._paused):
            self._paused = True
            self._pause()

    def end(self) -> None:
        """Notes that no more bytes will arrive."""
        self._ended = True
        self._wake()

    @property
    def is_empty(self) -> bool:
        """Whether no bytes have arrived that were not returned."""
        return not self._buffer

    async def line(self, limit: int) -> bytes:
        """Returns the next line without its line end. Raises `LineTooLong`, `ClientGone` or `TimedOut`.

        `limit` in bytes. A bare LF ends a line too.
        """
        self._in_a_row += 1
        if self._in_a_row > _LINES_IN_A_ROW:
            self._in_a_row = 1
            await asyncio.sleep(0)
        searched = 0
        too_long = False
        while (end := self._buffer.find(b"\n", searched)) < 0:
            searched = len(self._buffer)
            if searched > limit:
                too_long = True
                self._buffer.clear()
                searched = 0
            await self._more()
        line = bytes(self._buffer[:end])
        del self._buffer[: end + 1]
        if too_long or len(line) > limit:
            raise LineTooLong
        return line.removesuffix(b"\r")

    async def content(self, limit: int, reserve: Callable[[int], bool] = lambda size: True) -> bytes:  # noqa: ARG005
        """Returns the content up to the final dot, in its transparent form. `limit` in bytes.

        `reserve` is called with the bytes that have arrived, before more are read; it returns False if there is no
        memory for them. Only CRLF "." CRLF ends the content (RFC 5321 section 4.1.1.4), or "." CRLF at its very start.
        Raises `ContentTooLarge`, `NoMemory`, `ClientGone` or `TimedOut`.
        """
        self._reads_content = True
        if self._rate:
            self._content_due = asyncio.get_running_loop().time() + self._idle
        try:
            return await self._content(limit, reserve)
        except (ClientGone, TimedOut, asyncio.CancelledError):
            self._buffer.clear()  # the session ends; the bytes of a half upload would wait for the garbage collector
            raise
        finally:
            self._reads_content = False
            self._content_due = math.inf

    async def skip(self, size: int) -> None:
        """Reads and drops `size` bytes. Raises `ClientGone` or `TimedOut`."""
        while size > len(self._buffer):
            size -= len(self._buffer)
            self._buffer.clear()
            await self._more()
        del self._buffer[:size]

    async def _content(self, limit: int, reserve: Callable[[int], bool]) -> bytes:
        skipped = 0
        searched = 0
        is_small = has_memory = True
        while True:
            if not skipped and self._buffer.startswith(_END[2:]):
                del self._buffer[: len(_END) - 2]
                return b""
            end = self._buffer.find(_END, searched)
            if end >= 0:
                break
            searched = max(0, len(self._buffer) - len(_END) + 1)
            is_small = is_small and len(self._buffer) <= limit + len(_INCOMPLETE_END)
            has_memory = has_memory and (not is_small or reserve(len(self._buffer)))
            if not (is_small and has_memory):
                skipped += searched
                del self._buffer[:searched]
                searched = 0
            await self._more()
        size = skipped + end + 2
        if has_memory and is_small and size <= limit and reserve(size):
            content = bytes(memoryview(self._buffer)[: end + 2])
            del self._buffer[: end + len(_END)]
            return content
        del self._buffer[: end + len(_END)]
        raise ContentTooLarge(size) if has_memory and size > limit else NoMemory(size)

    async def _more(self) -> None:
        """Waits until more bytes have arrived."""
        if self._ended:
            raise ClientGone
        if self._paused:
            self._paused = False
            self._resume()
        self._in_a_row = 0
        loop = asyncio.get_running_loop()
        self._arrival = loop.create_future()
        due, refusal = loop.time() + self._idle, SessionRefusal.IDLE
        if self._content_due < due:
            due, refusal = self._content_due, SessionRefusal.DATA_RATE
        if self.until < due:
            due, refusal = self.until, SessionRefusal.SESSION_TIME
        timer = loop.call_at(due, self._time_out, refusal)
        before = len(self._buffer)
        try:
            await self._arrival
        finally:
            self._arrival = None
            timer.cancel()
        if self._content_due < math.inf:
            gained = (len(self._buffer) - before) / self._rate
            # No credit for more than `idle`: a client that was fast may not be silent for longer than others.
            self._content_due = min(self._content_due + gained, loop.time() + self._idle)

    def _wake(self) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_result(None)

    def _time_out(self, refusal: SessionRefusal) -> None:
        if self._arrival is not None and not self._arrival.done():
            self._arrival.set_exception(TimedOut(refusal))
