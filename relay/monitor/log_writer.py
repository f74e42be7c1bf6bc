"""Writes log lines in batches, without ever waiting for a reader that has stalled or a disk that hangs."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import os
import select
import socket
import stat
import threading
from functools import partial
from typing import TYPE_CHECKING, TextIO, cast

from relay.events.service import LINES_DROPPED

if TYPE_CHECKING:
    from collections.abc import Callable

MOST_WAITING = 1024 * 1024
"""Bytes of the lines that wait for the stream, some 3,000 lines. Further lines are dropped."""
_BATCH = 64 * 1024
"""Bytes in one write."""
_GATHER = 0.05
"""Seconds for which lines are gathered before a thread writes them. A hand-over to a thread for each line took 15 % of
the CPU time of a message."""
_LAST_LINES = 0.5
"""Seconds at the end of the process for lines that wait."""


class LogWriter(logging.Handler):
    """Writes formatted lines to a stream with a file descriptor.

    In a running relay (after `start`) the event loop writes what the stream takes at once: all lines of one turn of the
    loop in one system call. What a full pipe does not take, and what goes to a regular file, is left to a thread, which
    may block. Lines that exceed `most_waiting` bytes are dropped; their number is reported when lines flow again.
    """

    def __init__(self, stream: TextIO, most_waiting: int = MOST_WAITING) -> None:
        super().__init__()
        self._lock = cast("threading.RLock", self.lock)
        self._descriptor = stream.fileno()
        self._encoding, self._errors = stream.encoding or "utf-8", stream.errors or "backslashreplace"
        self._resources = contextlib.ExitStack()
        self._write_at_once = _nonblocking_writer(self._descriptor, self._resources)
        self._most_waiting = most_waiting
        self._waiting = bytearray()
        self._dropped = 0
        self._on_dropped: Callable[[], object] = lambda: None
        self._loop: asyncio.AbstractEventLoop | None = None
        self._loop_thread = 0
        self._scheduled = False
        self._thread: threading.Thread | None = None

    @property
    def is_terminal(self) -> bool:
        """Whether a person may read the lines as they are written."""
        return os.isatty(self._descriptor)

    def start(self, on_dropped: Callable[[], object]) -> None:
        """Lets the running event loop write from now on. `on_dropped` is called for each dropped line."""
        self._on_dropped = on_dropped
        self._loop, self._loop_thread = asyncio.get_running_loop(), threading.get_ident()

    def stop(self, limit: float = _LAST_LINES) -> None:
        """Writes what waits, for at most `limit` seconds. Lines that follow are written one by one."""
        self._loop, self._scheduled = None, False
        self._flush()
        if thread := self._thread:
            thread.join(limit)

    def close(self) -> None:
        """Closes what this writer has opened. The stream stays open."""
        self.stop()
        self._write_at_once = None
        self._resources.close()
        super().close()

    def emit(self, record: logging.LogRecord) -> None:
        """Adds the line of a record to those that wait. Called with the handler's lock held."""
        try:
            line = (self.format(record) + "\n").encode(self._encoding, self._errors)
        except Exception:  # noqa: BLE001 - a log line with wrong arguments must not stop mail
            self.handleError(record)
            return
        if len(self._waiting) + len(line) > self._most_waiting:
            self._flush()
        if len(self._waiting) + len(line) > self._most_waiting:
            self._dropped += 1
            self._on_dropped()
        else:
            self._waiting += line
        self._schedule()

    def _schedule(self) -> None:
        if self._scheduled or self._thread:
            return
        if self._loop is None:
            self._flush()
            return
        self._scheduled = True
        if threading.get_ident() != self._loop_thread:
            self._loop.call_soon_threadsafe(self._flush)
        elif self._write_at_once:
            self._loop.call_soon(self._flush)
        else:
            self._loop.call_later(_GATHER, self._flush)

    def _flush(self) -> None:
        with self._lock:
            self._scheduled = False
            if self._thread or not self._waiting:
                return
            try:
                while self._waiting and self._write_at_once:
                    del self._waiting[: self._write_at_once(self._waiting[:_BATCH])]
            except BlockingIOError:
                pass
            except OSError:  # such as a full disk; the next line tries again
                return
            if self._waiting:
                thread = threading.Thread(target=self._write_blocking, name="log", daemon=True)
                with contextlib.suppress(RuntimeError):  # the system has no thread left; the next line tries again
                    thread.start()
                    self._thread = thread
            else:
                self._report_dropped()

    def _write_blocking(self) -> None:
        """Writes until nothing waits. Runs in the thread; the event loop leaves the stream alone meanwhile."""
        while batch := self._next_batch():
            try:
                written = os.write(self._descriptor, batch)
            except BlockingIOError:  # another process has made the open file non-blocking
                select.select([], [self._descriptor], [])
                continue
            except OSError:
                with self._lock:
                    self._thread = None
                return
            with self._lock:
                del self._waiting[:written]

    def _next_batch(self) -> bytes:
        """Returns what the thread is to write. It ends when nothing waits."""
        with self._lock:
            batch = bytes(self._waiting[:_BATCH])
            if not batch:
                self._thread = None
                self._report_dropped()
            return batch

    def _report_dropped(self) -> None:
        dropped, self._dropped = self._dropped, 0
        if dropped:
            LINES_DROPPED.log(lines=dropped)


def _nonblocking_writer(descriptor: int, resources: contextlib.ExitStack) -> Callable[[bytes | bytearray], int] | None:
    """Returns a function that writes as much as possible without waiting, and returns the number of bytes.

    Returns None for a regular file: the system offers no such write, and a disk may hang. O_NONBLOCK cannot be set on
    the descriptor: it would be set for all processes that share the open file, such as the shell of a terminal.
    """
    kind = os.fstat(descriptor).st_mode
    if stat.S_ISSOCK(kind):  # the journal of systemd
        journal = resources.enter_context(socket.socket(fileno=os.dup(descriptor)))
        return lambda lines: journal.send(lines, socket.MSG_DONTWAIT)
    if stat.S_ISFIFO(kind) or stat.S_ISCHR(kind):
        with contextlib.suppress(OSError):  # the terminal of another user, or no /proc
            own = os.open(f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC)
            resources.callback(os.close, own)
            return partial(os.write, own)
    return None
