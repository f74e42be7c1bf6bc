"""A relay whose standard error stream is a pipe that is not read."""

from __future__ import annotations

import contextlib
import fcntl
import os

from parts.relay_process import RelayProcess

_LEAST_PIPE = 4096
"""Bytes: the smallest pipe of Linux."""


class UnreadLogRelay(RelayProcess):
    """A relay whose log reader stalls, as a paused `docker logs` or a stopped `less` does.

    A named pipe of 4 KiB takes the place of the log file. After the end of the relay `stderr` returns its content.
    """

    async def start(self) -> None:
        os.mkfifo(self.stderr_file)
        self._reader = os.open(self.stderr_file, os.O_RDONLY | os.O_NONBLOCK)
        fcntl.fcntl(self._reader, fcntl.F_SETPIPE_SZ, _LEAST_PIPE)
        await super().start()

    async def close(self) -> None:
        await super().close()
        os.close(self._reader)

    def stderr(self) -> str:
        """Returns the complete lines in the pipe. Empties it, so that it is called only after the end of the relay."""
        text = b""
        with contextlib.suppress(BlockingIOError):
            while piece := os.read(self._reader, 1 << 16):
                text += piece
        return text[: text.rfind(b"\n") + 1].decode(errors="replace")
