"""Suppressed copies in a Maildir, from which `relay release` can send them.

A file's name contains the time and the record id, so a copy is found without the store. The file stays in `new` until
it was released to all recipients, then moves to `cur` with flag P (passed, https://cr.yp.to/proto/maildir.html).
"""

from __future__ import annotations

import contextlib
import fcntl
import heapq
import os
import re
import secrets
import socket
import time
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from relay.records import copy_format as copies
from relay.runtime.files import MAILDIR, make_maildir, remove, try_maildir, write_new

if TYPE_CHECKING:
    from collections.abc import Collection, Iterator

    from relay.core.record import SuppressedCopy

_NAME = re.compile(r"(?P<at>[0-9]{1,12})\.R(?P<record>[0-9a-f]{12})U[0-9a-f]{8}\.[^:]*(?P<flags>:2,[A-Za-z]*)?")
_LEAST_FREE = 256 * 1024 * 1024
"""Bytes that stay free on the disk for other data, such as the store."""
MOST_SWEPT = 5_000
"""The largest number of files that one sweep removes."""


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A kept copy in the Maildir."""

    record: str
    path: Path
    at: int
    """Seconds since the Unix epoch."""
    released: bool
    """Whether it was released to all its recipients. `copy_format.released` returns the recipients so far."""


class KeptCopies:
    """The Maildir at `path`. All methods block, so the event loop calls them in a thread."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, record: str, copy: SuppressedCopy) -> str:
        """Writes a copy to the disk and returns its file name. Raises `OSError` or `ValueError`."""
        octets = copies.encode(record, copy)
        make_maildir(self.path)
        _require_space(self.path, len(octets))
        host = re.sub(r"[^\w.-]", "_", socket.gethostname())
        name = f"{int(time.time())}.R{record}U{secrets.token_hex(4)}.{host}"
        waiting = self.path / "tmp" / name
        write_new(waiting, octets)
        try:
            waiting.rename(self.path / "new" / name)
        except OSError:
            remove(waiting)
            raise
        return name

    def check(self) -> None:
        """Checks that copies can be kept. Leaves no file behind. Raises `OSError`."""
        try_maildir(self.path)
        _require_space(self.path, 0)

    def find(self, record: str) -> KeptFile | None:
        """Returns the copy of a record, or None. Raises `OSError` if the folders cannot be read."""
        for path, name in self._files("new", "cur"):
            if name["record"] == record:
                return _kept_file(path, name)
        return None

    def newest(self, most: int) -> list[KeptFile]:
        """Returns the newest copies, newest first. Raises `OSError` if the folders cannot be read."""
        found = (_kept_file(path, name) for path, name in self._files("new", "cur"))
        return heapq.nlargest(most, found, key=lambda each: each.at)

    @contextlib.contextmanager
    def lock(self) -> Iterator[None]:
        """Holds the lock for releasing copies. Raises `BlockingIOError` if another process holds it, or `OSError`."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(folder)

    def mark_released(self, found: KeptFile, record: str, copy: SuppressedCopy, paths: Collection[bytes]) -> KeptFile:
        """Records that a copy was released to exactly these paths. Returns the file's new place. Raises `OSError`."""
        name = found.path.name.partition(":")[0]
        waiting = self.path / "tmp" / name
        remove(waiting)  # left by a process that was killed
        write_new(waiting, copies.encode(record, copy, paths))
        # Replaced before it is moved: at any moment there is one file, and it names the recipients that have the copy.
        waiting.rename(found.path)
        to_all = set(paths) >= set(copy.paths)
        path = self.path / "cur" / f"{name}:2,PS" if to_all else self.path / "new" / name
        found.path.rename(path)
        return KeptFile(record, path, found.at, to_all)

    def sweep(self, before: float, most: int = MOST_SWEPT) -> int:
        """Removes copies kept before this time (seconds since the epoch). Returns their number. Raises `OSError`."""
        swept = 0
        for path, name in self._files(*MAILDIR):
            if swept == most:
                break
            if int(name["at"]) < before:
                remove(path)
                swept += 1
        return swept

    def _files(self, *folders: str) -> Iterator[tuple[Path, re.Match[str]]]:
        """Yields the relay's files. Files of other programs in the same Maildir are skipped."""
        for folder in folders:
            try:
                entries = os.scandir(self.path / folder)
            except FileNotFoundError:
                continue
            with entries:
                for entry in entries:
                    if name := _NAME.fullmatch(entry.name):
                        yield Path(entry.path), name


def _kept_file(path: Path, name: re.Match[str]) -> KeptFile:
    return KeptFile(name["record"], path, int(name["at"]), "P" in (name["flags"] or ""))


def _require_space(path: Path, size: int) -> None:
    disk = os.statvfs(path)
    if disk.f_bavail * disk.f_frsize < _LEAST_FREE + size:
        raise OSError(f"less than {_LEAST_FREE >> 20} MiB would be left free on the disk")
