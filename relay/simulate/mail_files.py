"""Which files of an archive hold mail: an mbox, a Maildir, a folder, a single message. Found by looking into them."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from relay.judge.mime.parser import HEADER_LIMIT

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MAILDIR = {b"cur", b"new"}
_MBOX = re.compile(rb"From [^\r\n]{0,500}\r?\n(?:[!-9;-~]{1,100}[ \t]*:|>From )")
_FIRST_FIELD = re.compile(rb"[!-9;-~]{1,100}[ \t]*:")
_MAIL_FIELD = re.compile(
    rb"(?im)^(from|to|cc|date|subject|received|message-id|return-path|delivered-to|reply-to)[ \t]*:"
)
_PACKED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"(\xb5/\xfd", b"PK\x03\x04")
_NO_MAIL = "it does not look like mail"
_NO_FILE = "not a regular file; save it to one first"


class FileKind(Enum):
    """What is in a file."""

    MBOX = auto()
    MESSAGE = auto()
    EMPTY = auto()


class Problem(NamedTuple):
    """Something that could not be read, and why. `place` is a path, with an offset where it is about one message."""

    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class OpenFile:
    """A file that holds mail, open for as long as it is looked at."""

    path: bytes
    kind: FileKind
    descriptor: int
    status: os.stat_result
    head: bytes
    in_maildir: bool


class MailFiles:
    """Finds the files of several paths. No file is given twice, by whatever names it is reached."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.skipped = 0
        """Files in folders that hold no mail."""
        self.skipped_such = b""
        """The first of them."""
        self.repeated = 0
        """Files that were reached a second time."""
        self._seen: dict[int, set[int]] = {}

    def find(self, paths: Sequence[Path]) -> Iterator[OpenFile]:
        """Give every file that holds mail. What stands in the way is noted, and the search goes on."""
        for path in map(os.fsencode, paths):
            try:
                is_folder = stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 - names are octets here
                if is_folder:
                    yield from self._walk(path)
                else:
                    yield from self._look(path, in_maildir=False, named=True)
            except OSError as error:
                self._problem(path, error)

    def _walk(self, top: bytes) -> Iterator[OpenFile]:
        """Walk a folder and those below it, a symbolic link like what it leads to, each once: links may go round."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            try:
                if self._is_new(os.stat(folder)):  # noqa: PTH116
                    with os.scandir(folder) as entries:
                        inside = sorted(entries, key=lambda entry: entry.name)
                else:
                    continue
            except OSError as error:
                self._problem(folder, error)
                continue
            folders = []
            is_maildir = _MAILDIR.issubset(entry.name for entry in inside)
            in_maildir = os.path.basename(folder) in _MAILDIR  # noqa: PTH119
            for entry in inside:
                try:
                    if entry.is_dir():
                        # https://cr.yp.to/proto/maildir.html: what is in tmp is not delivered.
                        folders += [] if is_maildir and entry.name == b"tmp" else [entry.path]
                    elif not is_maildir and not (in_maildir and entry.name.startswith(b".")):
                        yield from self._look(entry.path, in_maildir=in_maildir, named=False)
                except OSError as error:
                    self._problem(entry.path, error)
            waiting += reversed(folders)

    def _look(self, path: bytes, *, in_maildir: bool, named: bool) -> Iterator[OpenFile]:
        # O_NONBLOCK: to open a named pipe must not wait for its writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                self._no_mail(path, _NO_FILE, named=named)
            elif self._is_new(status):
                head = os.pread(descriptor, HEADER_LIMIT, 0)
                kind = _kind(head)
                if isinstance(kind, str):
                    self._no_mail(path, kind, named=named)
                elif named or kind is not FileKind.EMPTY:
                    yield OpenFile(path, kind, descriptor, status, head, in_maildir)
                else:
                    self._skip(path)
        finally:
            os.close(descriptor)

    def _is_new(self, status: os.stat_result) -> bool:
        seen = self._seen.setdefault(status.st_dev, set())
        if status.st_ino in seen:
            self.repeated += not stat.S_ISDIR(status.st_mode)
            return False
        seen.add(status.st_ino)
        return True

    def _no_mail(self, path: bytes, reason: str, *, named: bool) -> None:
        if named or reason not in (_NO_MAIL, _NO_FILE):
            self.problems.append(Problem(os.fsdecode(path), reason))
        else:
            self._skip(path)

    def _skip(self, path: bytes) -> None:
        self.skipped += 1
        self.skipped_such = self.skipped_such or path

    def _problem(self, path: bytes, error: OSError) -> None:
        self.problems.append(Problem(os.fsdecode(path), error.strerror or str(error)))


def _kind(head: bytes) -> FileKind | str:
    """Say what a file holds that begins so, or why it is nothing that can be read."""
    if not head:
        return FileKind.EMPTY
    if _MBOX.match(head):
        return FileKind.MBOX
    if head.startswith(_PACKED):
        return "it is packed; unpack it first"
    section = head.partition(b"\n\n")[0].partition(b"\n\r\n")[0]
    if _FIRST_FIELD.match(section) and _MAIL_FIELD.search(section):
        return FileKind.MESSAGE
    return _NO_MAIL
