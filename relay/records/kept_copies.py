"""Suppressed copies in a Maildir, so that one can be sent after all: the cure for a false twin.

A file's name holds when it was kept and the id of its record, so it is found without the store. It lies in `new` until
it was released to all, then in `cur` with the flag P (passed on), as https://cr.yp.to/proto/maildir.html has it.
"""

from __future__ import annotations

import contextlib
import fcntl
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
"""Bytes that stay free on the disk: what else lies there, such as the store, matters more than copies."""
MOST_CLEARED = 5_000
"""Files that one sweep takes away at most."""


@dataclass(frozen=True, slots=True)
class KeptFile:
    """A kept copy and where it lies."""

    path: Path
    at: int
    """Seconds since the Unix epoch."""
    released: bool
    """To all its recipients; its own fields name those of a part."""


class KeptCopies:
    """The Maildir at `path`. Everything here blocks: not for the event loop's own thread."""

    def __init__(self, path: Path) -> None:
        self.path = path

    def save(self, record: str, copy: SuppressedCopy) -> str:
        """Keep a copy, on the disk when this returns, and give its name. Raises `OSError` or `ValueError`."""
        octets = copies.encode(record, copy)
        make_maildir(self.path)
        _see_room(self.path, len(octets))
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

    def try_out(self) -> None:
        """See that copies can be kept, or raise `OSError`. Leaves no file behind."""
        try_maildir(self.path)
        _see_room(self.path, 0)

    def find(self, record: str) -> KeptFile | None:
        """Give the copy of a record, if there is one. Raises `OSError` where the folders cannot be read."""
        for path, name in self._files("new", "cur"):
            if name["record"] == record:
                return KeptFile(path, int(name["at"]), "P" in (name["flags"] or ""))
        return None

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Let nobody else release anything meanwhile. Raises `BlockingIOError` while somebody does, or `OSError`."""
        folder = os.open(self.path, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
        try:
            fcntl.flock(folder, fcntl.LOCK_EX | fcntl.LOCK_NB)
            yield
        finally:
            os.close(folder)

    def mark_released(self, found: KeptFile, record: str, copy: SuppressedCopy, paths: Collection[bytes]) -> KeptFile:
        """Note that a copy was released to these paths and no other, and give where it lies now. Raises `OSError`."""
        name = found.path.name.partition(":")[0]
        waiting = self.path / "tmp" / name
        remove(waiting)  # of a process that was killed
        write_new(waiting, copies.encode(record, copy, paths))
        # In its place first: whenever this ends, there is one file, and it says who has got the copy.
        waiting.rename(found.path)
        to_all = set(paths) >= set(copy.paths)
        path = self.path / "cur" / f"{name}:2,PS" if to_all else self.path / "new" / name
        found.path.rename(path)
        return KeptFile(path, found.at, to_all)

    def sweep(self, before: float, most: int = MOST_CLEARED) -> int:
        """Take away what was kept before this time, in seconds since the epoch. Gives how many. Raises `OSError`."""
        cleared = 0
        for path, name in self._files(*MAILDIR):
            if cleared == most:
                break
            if int(name["at"]) < before:
                remove(path)
                cleared += 1
        return cleared

    def _files(self, *folders: str) -> Iterator[tuple[Path, re.Match[str]]]:
        """Give the files that are ours. A Maildir that others use too keeps theirs."""
        for folder in folders:
            try:
                entries = os.scandir(self.path / folder)
            except FileNotFoundError:
                continue
            with entries:
                for entry in entries:
                    if name := _NAME.fullmatch(entry.name):
                        yield Path(entry.path), name


def _see_room(path: Path, size: int) -> None:
    disk = os.statvfs(path)
    if disk.f_bavail * disk.f_frsize < _LEAST_FREE + size:
        raise OSError(f"less than {_LEAST_FREE >> 20} MiB would be left free on the disk")
