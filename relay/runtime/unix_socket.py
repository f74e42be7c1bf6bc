"""Unix sockets to listen on: their permissions, and what is left of a process that was killed."""

from __future__ import annotations

import contextlib
import errno
import grp
import os
import socket
import stat
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathlib import Path

_ANSWER_LIMIT = 1.0
"""Seconds. A connection to a Unix socket waits only if the backlog is full."""
_LAST_GROUP = 2**32 - 2


def listen_on(path: Path, mode: int, group: str, backlog: int) -> socket.socket:
    """Returns a listening socket. Raises `OSError`, also if `check_free` or `group_id` do.

    Clients are refused until the permissions are set: before that, the socket does not listen.
    """
    owner = group_id(group) if group else None
    if check_free(path):
        path.unlink(missing_ok=True)
    listening = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        listening.bind(os.fspath(path))
        try:
            if owner is not None:  # the unit's SystemCallFilter refuses chown
                os.chown(path, -1, owner)
            path.chmod(mode)
            listening.listen(backlog)
        except BaseException:
            path.unlink()
            raise
    except BaseException:
        listening.close()
        raise
    return listening


def remove(path: Path, inode: int) -> None:
    """Removes a socket with this inode number. A process that has replaced it keeps its own."""
    with contextlib.suppress(OSError):
        if path.lstat().st_ino == inode:
            path.unlink()


def check_free(path: Path) -> bool:
    """Returns whether there is a socket on which no process listens, so that it can be replaced.

    Raises `OSError` if the relay cannot listen there: a process does, it is no socket, or its folder cannot be written.
    """
    try:
        found = path.lstat()
    except FileNotFoundError:
        path.parent.stat()
        if not os.access(path.parent, os.W_OK | os.X_OK):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES)) from None
        return False
    if not stat.S_ISSOCK(found.st_mode):
        raise OSError("the file there is no socket")
    try:
        connect(path, _ANSWER_LIMIT).close()
    except (ConnectionRefusedError, FileNotFoundError):
        return True
    except OSError:  # no permission, or another type of socket: a process may listen
        pass
    raise OSError(errno.EADDRINUSE, os.strerror(errno.EADDRINUSE))


def connect(path: str | Path, limit: float) -> socket.socket:
    """Returns a connection to a Unix socket; `limit` in seconds, for each step. Raises `OSError`."""
    connection = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    try:
        connection.settimeout(limit)
        connection.connect(os.fspath(path))
    except BaseException:
        connection.close()
        raise
    return connection


def group_id(group: str) -> int:
    """Returns the number of a group, given its name or number. Raises `OSError` if this user may not use it."""
    try:
        number = int(group) if group.isdecimal() else grp.getgrnam(group).gr_gid
    except KeyError:
        number = _LAST_GROUP + 1
    if number > _LAST_GROUP:
        raise OSError(f"there is no group {group}")
    if os.geteuid() != 0 and number not in {os.getegid(), *os.getgroups()}:
        raise OSError(f"this user is not in the group {group}")
    return number
