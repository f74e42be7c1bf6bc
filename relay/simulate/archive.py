"""An archive: an index with a few numbers for each message, and the messages, which are read one at a time."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, Self

from relay.simulate import mbox
from relay.simulate.delivery_fields import LATEST, DeliveryFields, parse_file_name
from relay.simulate.mail_files import FileKind, MailFiles, Problem

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from relay.simulate.mail_files import MailFile

LARGEST = 64 << 20
"""Bytes. A larger message is left out, and is a problem."""
UNDATED = "none"
"""The source of the date of a message without one."""


class ArchivedMessage(NamedTuple):
    """A message of the archive: the fields about its delivery, and its content as on the wire."""

    delivery: DeliveryFields
    content: bytes


class Archive:
    """Messages by number, in the order in which they were found."""

    def __init__(self) -> None:
        self.files = MailFiles()
        self.date_sources: Counter[str] = Counter()
        """Messages by the source of their date. Those without a date are not in the index."""
        self.dates = array("d")
        """Seconds since the Unix epoch, for each message."""
        self._paths: list[bytes] = []
        self._files = array("l")
        self._starts = array("q")
        self._sizes = array("q")
        self._open: tuple[int, int] | None = None
        """The number and the descriptor of the file that was read last."""

    def __len__(self) -> int:
        return len(self.dates)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def index(self, paths: Sequence[Path]) -> Iterator[int]:
        """Searches for messages and yields, after each, how many are indexed. Adds to `problems` what is unreadable."""
        for file in self.files.find(paths):
            self._paths.append(file.path)
            if file.kind is FileKind.MESSAGE:
                self._add(file, 0, file.status.st_size, DeliveryFields(file.head))
                yield len(self)
            elif file.kind is FileKind.MBOX:
                yield from self._index_mbox(file)

    @property
    def problems(self) -> list[Problem]:
        """What could not be read."""
        return self.files.problems

    def in_order(self) -> list[int]:
        """Returns the numbers by date, and within the same second in the order in which they were found."""
        return sorted(range(len(self)), key=self.dates.__getitem__)

    def read(self, number: int) -> ArchivedMessage | None:
        """Reads a message. If that is no longer possible, returns None and adds to `problems`."""
        start, size = self._starts[number], self._sizes[number]
        path = self._paths[self._files[number]]
        try:
            raw = os.pread(self._descriptor(self._files[number]), size, start)
        except OSError as error:
            self._add_problem(path, error.strerror or str(error), start)
            return None
        if len(raw) < size:
            self._add_problem(path, "it became shorter while it was read", start)
            return None
        from_line, content = mbox.unpack(raw) if raw.startswith(b"From ") else (b"", raw)
        if b"\r\n" not in content:
            # A file with local line ends; on the wire lines end with CRLF.
            content = content.replace(b"\n", b"\r\n")
        return ArchivedMessage(DeliveryFields(content, from_line), content)

    def _index_mbox(self, file: MailFile) -> Iterator[int]:
        size = file.status.st_size
        for span in mbox.find_messages(file.descriptor, size):
            is_last = span.start + span.size == size
            if is_last and span.size <= LARGEST and mbox.is_truncated(os.pread(file.descriptor, span.size, span.start)):
                reason = "the mbox ends in the middle of this message, which is left out"
                self._add_problem(file.path, reason, span.start)
            else:
                from_line, _, head = span.head.partition(b"\n")
                self._add(file, span.start, span.size, DeliveryFields(head, from_line))
            yield len(self)

    def _add(self, file: MailFile, start: int, size: int, delivery: DeliveryFields) -> None:
        if size > LARGEST:
            self._add_problem(file.path, f"a message of {size >> 20} MiB; messages over 64 MiB are left out", start)
            return
        at, source = delivery.date() or (None, UNDATED)
        if at is None and file.in_maildir:
            at, source = parse_file_name(os.path.basename(file.path)), "file name"  # noqa: PTH119 - octets
            if at is None:
                at, source = min(file.status.st_mtime, LATEST), "file time"
        self.date_sources[source] += 1
        if at is not None:
            self.dates.append(at)
            self._files.append(len(self._paths) - 1)
            self._starts.append(start)
            self._sizes.append(size)

    def _descriptor(self, file: int) -> int:
        """Returns the descriptor of a file. The last one stays open: the next message is often in the same mbox."""
        if self._open is None or self._open[0] != file:
            self._close()
            self._open = (file, os.open(self._paths[file], os.O_RDONLY | os.O_CLOEXEC))
        return self._open[1]

    def _close(self) -> None:
        if self._open is not None:
            with contextlib.suppress(OSError):
                os.close(self._open[1])
            self._open = None

    def _add_problem(self, path: bytes, reason: str, start: int) -> None:
        place = os.fsdecode(path) + (f" at byte {start}" if start else "")
        self.problems.append(Problem(place, reason))
