"""What a client sends, cut into command lines and content."""

from __future__ import annotations

import asyncio
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Callable

_END = b"\r\n.\r\n"
_BEFORE_DOT_IS_SURE = b".\r"
"""What may stand at the end of the buffer without being content."""
_MOST_AHEAD = 64 * 1024
"""Bytes that a client may send ahead of what is being worked on; then it has to wait."""


class LineTooLong(Exception):  # noqa: N818 - a client's mistake, answered with 500 5.5.2
    """A command line over the limit; it has been skipped whole."""


class ContentTooLarge(Exception):  # noqa: N818 - a client's mistake, answered with 552 5.3.4
    """Content over the limit; it has been skipped up to its final dot."""

    def __init__(self, size: int) -> None:
        super().__init__(size)
        self.size = size


class ClientGone(Exception):  # noqa: N818 - the ordinary end of a session
    """No more input will come."""


class Idle(Exception):  # noqa: N818 - the other ordinary end of a session
    """Nothing was received for as long as a session may be idle."""


class Reader:
    """Bytes in, lines and content out. `pause` and `resume` hold the client back; `idle` in seconds."""

    def __init__(self, pause: Callable[[], None], resume: Callable[[], None], idle: float) -> None:
        self._pause = pause
        self._resume = resume
        self._idle = idle
        self._buffer = bytearray()
        self._paused = False
        self._ended = False
        self._wanted: asyncio.Future[None] | None = None

    def feed(self, data: bytes) -> None:
        """Take what arrived."""
        self._buffer += data
        if self._wanted is not None:
            self._wake()
        elif len(self._buffer) > _MOST_AHEAD and not self._paused:
            self._paused = True
            self._pause()

    def end(self) -> None:
        """No more will arrive."""
        self._ended = True
        self._wake()

    @property
    def ended(self) -> bool:
        """Whether the client has gone, or said that it has nothing more to say."""
        return self._ended

    async def line(self, limit: int) -> bytes:
        """Give the next line without its line end. Raises `LineTooLong`, `ClientGone` or `Idle`."""
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

    async def content(self, limit: int) -> bytes:
        """Give all up to the final dot, in its transparent form. Raises `ContentTooLarge`, `ClientGone` or `Idle`.

        Only CRLF "." CRLF ends it (RFC 5321 section 4.1.1.4), or "." CRLF right away.
        """
        skipped = 0
        searched = 0
        while True:
            if not skipped and self._buffer.startswith(_END[2:]):
                del self._buffer[: len(_END) - 2]
                return b""
            end = self._buffer.find(_END, searched)
            if end >= 0:
                break
            searched = max(0, len(self._buffer) - len(_END) + 1)
            if len(self._buffer) > limit + len(_BEFORE_DOT_IS_SURE):
                skipped += searched
                del self._buffer[:searched]
                searched = 0
            await self._more()
        content = bytes(memoryview(self._buffer)[: end + 2])
        del self._buffer[: end + len(_END)]
        if skipped or len(content) > limit:
            raise ContentTooLarge(skipped + len(content))
        return content

    async def _more(self) -> None:
        if self._ended:
            raise ClientGone
        if self._paused:
            self._paused = False
            self._resume()
        loop = asyncio.get_running_loop()
        self._wanted = loop.create_future()
        timer = loop.call_later(self._idle, self._give_up)
        try:
            await self._wanted
        finally:
            self._wanted = None
            timer.cancel()

    def _wake(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_result(None)

    def _give_up(self) -> None:
        if self._wanted is not None and not self._wanted.done():
            self._wanted.set_exception(Idle())
