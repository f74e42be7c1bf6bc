"""The file of users: one in each line, `NAME:HASH` or `NAME:HASH:SENDER,SENDER`, and comments after `#`."""

from __future__ import annotations

import os
import re
import secrets
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

from relay.core.envelope import fold
from relay.logins.passwords import check_hash
from relay.runtime.files import locked_folder, remove, write_new

if TYPE_CHECKING:
    from collections.abc import Callable, Mapping
    from pathlib import Path

LARGEST_FILE = 4 * 1024 * 1024
"""Bytes: some 20,000 users."""
LONGEST_NAME = 255
"""Bytes (RFC 4616 section 2)."""
_SENDER = re.compile(r"[^\s@,:<>\"]*@[^\s@,:<>\"]+")
_HEAD = "# Users of smtp-dedup-relay, written by `relay user`: NAME:HASH or NAME:HASH:SENDER,SENDER\n"


@dataclass(frozen=True, slots=True)
class User:
    """A user. `senders` as they are written: addresses, and domains such as `@example.org`; empty means all."""

    name: str
    hashed: str = field(repr=False)
    senders: tuple[str, ...] = ()

    @property
    def folded_senders(self) -> tuple[str, ...]:
        """The senders in the form in which `relay.core.login.Login` compares them."""
        return tuple(fold(sender.encode()) for sender in self.senders)


def check_name(name: str) -> str:
    """Returns a name that can be in the file. Raises `ValueError`."""
    if not name or name != name.strip() or ":" in name or name.startswith("#") or not name.isprintable():
        raise ValueError('a name has no ":", does not begin with "#" and does not begin or end with a space')
    if len(name.encode()) > LONGEST_NAME:
        raise ValueError(f"a name has at most {LONGEST_NAME} bytes")
    return name


def check_sender(sender: str) -> str:
    """Returns an address, or a domain such as `@example.org`. Raises `ValueError`."""
    if not _SENDER.fullmatch(sender) or not sender.isprintable():
        raise ValueError(f'"{sender}" is not a sender; write an address, or a domain such as @example.org')
    return sender


def read_users(path: Path) -> Mapping[str, User]:
    """Returns the users by name. Raises `OSError`, or `ValueError` with the number of the wrong line."""
    with path.open("rb") as file:
        octets = file.read(LARGEST_FILE + 1)
    if len(octets) > LARGEST_FILE:
        raise ValueError(f"larger than {LARGEST_FILE} bytes")
    users: dict[str, User] = {}
    for number, line in enumerate(octets.decode("utf-8-sig").splitlines(), 1):
        if not line.strip() or line.startswith("#"):
            continue
        try:
            user = _parse(line, users)
        except ValueError as error:
            raise ValueError(f"line {number}: {error}") from None  # the line itself may contain a password
        users[user.name] = user
    return users


def change_users(path: Path, change: Callable[[dict[str, User]], None]) -> None:
    """Reads the users, lets `change` alter them, and replaces the file, under a lock of its folder.

    A new file has mode 600 and, if root writes it, the owner of its folder: the service's in its state folder. An
    existing one keeps its owner, and its mode but for other users' rights. Comments are lost.

    Raises `OSError`, `ValueError`, or what `change` raises; then the file is as before.
    """
    path = path.resolve()
    with locked_folder(path.parent):
        users = dict(read_users(path)) if path.exists() else {}
        change(users)
        is_new = not path.exists()
        found = (path.parent if is_new else path).stat()
        owner: tuple[int, int] | None = (found.st_uid, found.st_gid)
        if owner == (os.geteuid(), os.getegid()) or (is_new and os.geteuid()):
            owner = None
        new = path.parent / f".{path.name}.{secrets.token_hex(4)}"
        content = (_HEAD + "".join(map(_line, users.values()))).encode()
        write_new(new, content, mode=0o600 if is_new else found.st_mode & 0o660, owner=owner)
        try:
            new.replace(path)
        except BaseException:
            remove(new)
            raise


def _parse(line: str, others: Mapping[str, User]) -> User:
    name, colon, rest = line.partition(":")
    if not colon:
        raise ValueError("not NAME:HASH")
    hashed, _, senders = rest.strip().partition(":")
    check_hash(hashed)
    if name in others:
        raise ValueError("this name has a line already")
    return User(check_name(name), hashed, tuple(check_sender(sender) for sender in senders.split(",") if senders))


def _line(user: User) -> str:
    senders = f":{','.join(user.senders)}" if user.senders else ""
    return f"{user.name}:{user.hashed}{senders}\n"
