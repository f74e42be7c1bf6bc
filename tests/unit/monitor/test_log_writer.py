"""The log is written in batches, never waits for its reader, and counts what it drops."""

from __future__ import annotations

import asyncio
import logging
import os
import socket
import threading
import time
from contextlib import contextmanager
from typing import TYPE_CHECKING, TextIO

import pytest
from parts.waiting import block_until, until

from relay.monitor.log_writer import LogWriter

if TYPE_CHECKING:
    from collections.abc import Iterator
    from pathlib import Path

BOUND = 20_000
"""Bytes that may wait in these tests."""
LINES = 2_000
"""More lines of 100 bytes than fit into a pipe (64 KiB) and the bound."""


class Drops:
    """Counts the lines that were reported as dropped."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self) -> None:
        self.count += 1


@pytest.fixture
def pipe() -> Iterator[tuple[int, TextIO]]:
    """The reader's descriptor, and the stream to write to."""
    reader, writer = os.pipe()
    with os.fdopen(writer, "w") as stream:
        yield reader, stream
    os.close(reader)


@contextmanager
def logger_to(stream: TextIO) -> Iterator[tuple[logging.Logger, LogWriter]]:
    """A logger, and the writer of its lines."""
    writer = LogWriter(stream, BOUND)
    loggers = [logging.getLogger("test of the log"), logging.getLogger("relay.log")]
    for logger in loggers:
        logger.handlers[:], logger.propagate = [writer], False
        logger.setLevel(logging.INFO)
    yield loggers[0], writer
    writer.close()
    for logger in loggers:
        logger.handlers.clear()
        logger.propagate = True


def write_lines(log: logging.Logger, count: int) -> list[str]:
    """Logs lines of 100 bytes, and returns them."""
    lines = [f"{number:099d}" for number in range(count)]
    for line in lines:
        log.info("%s", line)
    return lines


class Reader:
    """Collects the lines that a pipe holds. A write of more than PIPE_BUF bytes arrives in pieces (POSIX `write`)."""

    def __init__(self, descriptor: int) -> None:
        os.set_blocking(descriptor, False)
        self._descriptor = descriptor
        self._octets = b""

    def lines(self) -> list[str]:
        """Returns the complete lines read so far."""
        try:
            while more := os.read(self._descriptor, 1 << 20):
                self._octets += more
        except BlockingIOError:
            pass
        return self._octets.decode().split("\n")[:-1]


async def test_the_lines_of_one_turn_of_the_loop_are_one_write() -> None:
    reader, journal = socket.socketpair(socket.AF_UNIX, socket.SOCK_DGRAM)
    with reader, journal, journal.makefile("w") as stream, logger_to(stream) as (log, writer):
        writer.start(Drops())
        lines = write_lines(log, 10)
        octets = await asyncio.get_running_loop().run_in_executor(None, reader.recv, 1 << 16)
    assert octets.decode().splitlines() == lines


async def test_a_pipe_that_takes_all_needs_no_thread(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    with logger_to(stream) as (log, writer):
        writer.start(Drops())
        before = threading.active_count()
        lines = write_lines(log, 100)
        await asyncio.sleep(0)
        assert threading.active_count() == before
        assert Reader(reader).lines() == lines
        # Other processes, such as a shell, may share the open file.
        assert os.get_blocking(stream.fileno())


async def test_what_waits_for_a_stalled_reader_is_bounded_and_what_is_dropped_is_reported(
    pipe: tuple[int, TextIO],
) -> None:
    reader, stream = pipe
    drops = Drops()
    with logger_to(stream) as (log, writer):
        writer.start(drops)
        begun = time.monotonic()
        lines = write_lines(log, LINES)
        assert time.monotonic() - begun < 3 * 1.0
        assert 0 < drops.count < LINES
        taken = Reader(reader)
        report = "log lines were dropped, because the log took no more"
        await until(lambda: taken.lines()[-1:] == [report], "the report of what was dropped")
    written = taken.lines()[:-1]
    assert written == lines[: len(written)]
    assert len(written) == LINES - drops.count


async def test_a_stalled_reader_does_not_delay_the_end(pipe: tuple[int, TextIO]) -> None:
    _, stream = pipe
    with logger_to(stream) as (log, writer):
        writer.start(Drops())
        write_lines(log, LINES)
        begun = time.monotonic()
        writer.stop(0.2)
        assert time.monotonic() - begun < 3 * 0.2


async def test_a_regular_file_holds_all_lines_in_order(tmp_path: Path) -> None:
    with (tmp_path / "log").open("a") as stream, logger_to(stream) as (log, writer):
        first = write_lines(log, 5)  # before the event loop writes
        writer.start(Drops())
        second = write_lines(log, 50)
        await until(lambda: len((tmp_path / "log").read_text().splitlines()) == 55, "all lines in the file")
        last = write_lines(log, 7)
        writer.stop()
        assert (tmp_path / "log").read_text().splitlines() == first + second + last


async def test_lines_of_threads_are_written_too(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    with logger_to(stream) as (log, writer):
        writer.start(Drops())
        thread = threading.Thread(target=write_lines, args=(log, 100))
        thread.start()
        taken = Reader(reader)
        await until(lambda: len(taken.lines()) == 100, "the lines of the thread")
        thread.join()


def test_a_full_disk_raises_nothing_and_counts() -> None:
    drops = Drops()
    with open("/dev/full", "w") as stream, logger_to(stream) as (log, writer):  # noqa: PTH123 - a device
        asyncio.run(_start(writer, drops))
        writer.stop()
        write_lines(log, LINES)
    assert drops.count == LINES - BOUND // 100


async def _start(writer: LogWriter, drops: Drops) -> None:
    writer.start(drops)


def test_without_an_event_loop_lines_are_written_at_once(pipe: tuple[int, TextIO]) -> None:
    reader, stream = pipe
    with logger_to(stream) as (log, _):
        lines = write_lines(log, 3)
        taken = Reader(reader)
        block_until(lambda: taken.lines() == lines, "the lines")
