"""Finds the files of an archive that hold mail: mbox files, Maildirs, folders, single messages. Names do not matter."""

from __future__ import annotations

import os
import re
import stat
from dataclasses import dataclass
from enum import Enum, auto
from typing import TYPE_CHECKING, NamedTuple

from relay.judge.mime.parser import HEADER_LIMIT
from relay.runtime.files import read_error

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence
    from pathlib import Path

_MAILDIR = {b"cur", b"new"}
_MBOX = re.compile(rb"From [^\r\n]{0,500}\r?\n(?:[!-9;-~]{1,100}[ \t]*:|>From )")
_FIRST_FIELD = re.compile(rb"[!-9;-~]{1,100}[ \t]*:")
_MAIL_FIELD = re.compile(
    rb"(?im)^(from|to|cc|date|subject|received|message-id|return-path|delivered-to|reply-to)[ \t]*:"
)
_COMPRESSED = (b"\x1f\x8b", b"BZh", b"\xfd7zXZ\x00", b"(\xb5/\xfd", b"PK\x03\x04")
_NOT_MAIL = "it does not look like mail"
_NOT_REGULAR = "not a regular file; save it to one first"


class FileKind(Enum):
    """What a file holds."""

    MBOX = auto()
    MESSAGE = auto()
    EMPTY = auto()


class Problem(NamedTuple):
    """Something that could not be read, and the reason. `place` is a path, with an offset for one message in it."""

    place: str
    reason: str


@dataclass(frozen=True, slots=True)
class MailFile:
    """A file that holds mail. The descriptor is open until the next file is asked for."""

    path: bytes
    kind: FileKind
    descriptor: int
    status: os.stat_result
    head: bytes
    in_maildir: bool


class MailFiles:
    """Finds the files below several paths. Each file is found once, however many names and links lead to it."""

    def __init__(self) -> None:
        self.problems: list[Problem] = []
        self.skipped = 0
        """Files in folders that hold no mail."""
        self.first_skipped = b""
        """The path of the first skipped file."""
        self.repeated = 0
        """Files that were reached again."""
        self._seen: dict[int, set[int]] = {}
        """The inodes that were reached, by device."""

    def find(self, paths: Sequence[Path]) -> Iterator[MailFile]:
        """Yields every file that holds mail. Adds what cannot be read to `problems`, and continues."""
        for path in map(os.fsencode, paths):
            try:
                is_folder = stat.S_ISDIR(os.stat(path).st_mode)  # noqa: PTH116 - names are octets here
                if is_folder:
                    yield from self._walk(path)
                else:
                    yield from self._open(path, in_maildir=False, named=True)
            except OSError as error:
                self._add_problem(path, error)

    def _walk(self, top: bytes) -> Iterator[MailFile]:
        """Walks a folder and those below it, and follows symbolic links. Links may loop: each folder is read once."""
        waiting = [top]
        while waiting:
            folder = waiting.pop()
            try:
                if not self._is_new(os.stat(folder)):  # noqa: PTH116
                    continue
                with os.scandir(folder) as scan:
                    entries = sorted(scan, key=lambda entry: entry.name)
            except OSError as error:
                self._add_problem(folder, error)
                continue
            folders = []
            is_maildir = _MAILDIR.issubset(entry.name for entry in entries)
            in_maildir = os.path.basename(folder) in _MAILDIR  # noqa: PTH119
            for entry in entries:
                try:
                    if entry.is_dir():
                        # https://cr.yp.to/proto/maildir.html: what is in tmp is not delivered.
                        folders += [] if is_maildir and entry.name == b"tmp" else [entry.path]
                    elif not is_maildir and not (in_maildir and entry.name.startswith(b".")):
                        yield from self._open(entry.path, in_maildir=in_maildir, named=False)
                except OSError as error:
                    self._add_problem(entry.path, error)
            waiting += reversed(folders)

    def _open(self, path: bytes, *, in_maildir: bool, named: bool) -> Iterator[MailFile]:
        """Yields the file if it holds mail. A file that the user has named and that holds no mail is a problem."""
        # O_NONBLOCK: opening a named pipe must not wait for a writer.
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
        try:
            status = os.fstat(descriptor)
            if not stat.S_ISREG(status.st_mode):
                self._reject(path, _NOT_REGULAR, named=named)
            elif self._is_new(status):
                head = os.pread(descriptor, HEADER_LIMIT, 0)
                kind = _kind(head)
                if isinstance(kind, str):
                    self._reject(path, kind, named=named)
                elif named or kind is not FileKind.EMPTY:
                    yield MailFile(path, kind, descriptor, status, head, in_maildir)
                else:
                    self._skip(path)
        finally:
            os.close(descriptor)

    def _is_new(self, status: os.stat_result) -> bool:
        inodes = self._seen.setdefault(status.st_dev, set())
        if status.st_ino in inodes:
            self.repeated += not stat.S_ISDIR(status.st_mode)
            return False
        inodes.add(status.st_ino)
        return True

    def _reject(self, path: bytes, reason: str, *, named: bool) -> None:
        if named or reason not in (_NOT_MAIL, _NOT_REGULAR):
            self.problems.append(Problem(os.fsdecode(path), reason))
        else:
            self._skip(path)

    def _skip(self, path: bytes) -> None:
        self.skipped += 1
        self.first_skipped = self.first_skipped or path

    def _add_problem(self, path: bytes, error: OSError) -> None:
        self.problems.append(Problem(os.fsdecode(path), read_error(error)))


def _kind(head: bytes) -> FileKind | str:
    """Returns what a file with this beginning holds, or the reason why it cannot be read."""
    if not head:
        return FileKind.EMPTY
    if _MBOX.match(head):
        return FileKind.MBOX
    if head.startswith(_COMPRESSED):
        return "it is compressed; decompress it first"
    section = head.partition(b"\n\n")[0].partition(b"\n\r\n")[0]
    if _FIRST_FIELD.match(section) and _MAIL_FIELD.search(section):
        return FileKind.MESSAGE
    return _NOT_MAIL
