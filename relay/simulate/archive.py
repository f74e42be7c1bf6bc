"""The archive: an index with a few numbers per message, and the messages, read one at a time when they are played."""

from __future__ import annotations

import contextlib
import os
from array import array
from collections import Counter
from typing import TYPE_CHECKING, NamedTuple, Self

from relay.simulate import mbox
from relay.simulate.heading import LATEST, Heading, name_date
from relay.simulate.mail_files import FileKind, MailFiles, Problem
from relay.simulate.mbox import unpack

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

    from relay.simulate.mail_files import OpenFile

LARGEST = 64 << 20
"""Bytes of a message that is played; a larger one is left out and named."""
UNDATED = "none"
"""The source of the date of a message that has none."""


class ArchivedMessage(NamedTuple):
    """A message of the archive: what its header section tells, and its content as it travelled."""

    heading: Heading
    content: bytes


class Archive:
    """Messages by number, in the order in which they were found."""

    def __init__(self) -> None:
        self.places = MailFiles()
        self.date_sources: Counter[str] = Counter()
        """How many messages are dated by what; those without a date are left out of the index."""
        self.dates = array("d")
        """Seconds since the Unix epoch."""
        self._paths: list[bytes] = []
        self._files = array("l")
        self._starts = array("q")
        self._sizes = array("q")
        self._open: tuple[int, int] | None = None
        """The file that was read last, and its descriptor."""

    def __len__(self) -> int:
        return len(self.dates)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self._close()

    def index(self, paths: Sequence[Path]) -> Iterator[int]:
        """Look for messages; gives their number so far, again and again. What cannot be read is among `problems`."""
        for file in self.places.find(paths):
            self._paths.append(file.path)
            if file.kind is FileKind.MESSAGE:
                self._add(file, 0, file.status.st_size, Heading(file.head))
                yield len(self)
            elif file.kind is FileKind.MBOX:
                yield from self._index_mbox(file)

    @property
    def problems(self) -> list[Problem]:
        """What could not be read."""
        return self.places.problems

    def in_order(self) -> list[int]:
        """Give the numbers by date; of the same second in the order in which they were found."""
        return sorted(range(len(self)), key=self.dates.__getitem__)

    def read(self, number: int) -> ArchivedMessage | None:
        """Read a message, or note why it can no longer be read."""
        start, size = self._starts[number], self._sizes[number]
        path = self._paths[self._files[number]]
        try:
            raw = os.pread(self._descriptor(self._files[number]), size, start)
        except OSError as error:
            self._problem(path, error.strerror or str(error), start)
            return None
        if len(raw) < size:
            self._problem(path, "it became shorter while it was read", start)
            return None
        from_line, content = unpack(raw) if raw.startswith(b"From ") else (b"", raw)
        if b"\r\n" not in content:
            # A file of this system; on the wire lines end with CRLF.
            content = content.replace(b"\n", b"\r\n")
        return ArchivedMessage(Heading(content, from_line), content)

    def _index_mbox(self, file: OpenFile) -> Iterator[int]:
        size = file.status.st_size
        for span in mbox.spans(file.descriptor, size):
            last = span.start + span.size == size
            if last and span.size <= LARGEST and mbox.is_cut(os.pread(file.descriptor, span.size, span.start)):
                reason = "the mbox ends in the middle of this message, which is left out"
                self._problem(file.path, reason, span.start)
            else:
                from_line, _, head = span.head.partition(b"\n")
                self._add(file, span.start, span.size, Heading(head, from_line))
            yield len(self)

    def _add(self, file: OpenFile, start: int, size: int, heading: Heading) -> None:
        if size > LARGEST:
            self._problem(file.path, f"a message of {size >> 20} MiB; more than 64 MiB are left out", start)
            return
        at, source = heading.date() or (None, UNDATED)
        if at is None and file.in_maildir:
            at, source = name_date(os.path.basename(file.path)), "file name"  # noqa: PTH119 - octets
            if at is None:
                at, source = min(file.status.st_mtime, LATEST), "file time"
        self.date_sources[source] += 1
        if at is not None:
            self.dates.append(at)
            self._files.append(len(self._paths) - 1)
            self._starts.append(start)
            self._sizes.append(size)

    def _descriptor(self, file: int) -> int:
        """Keep the file open that was read last: in an mbox the next message is mostly there too."""
        if self._open is None or self._open[0] != file:
            self._close()
            self._open = (file, os.open(self._paths[file], os.O_RDONLY | os.O_CLOEXEC))
        return self._open[1]

    def _close(self) -> None:
        if self._open is not None:
            with contextlib.suppress(OSError):
                os.close(self._open[1])
            self._open = None

    def _problem(self, path: bytes, reason: str, start: int = 0) -> None:
        place = os.fsdecode(path) + (f" at byte {start}" if start else "")
        self.places.problems.append(Problem(place, reason))
