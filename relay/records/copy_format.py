"""The file format of a kept copy: header fields with the envelope, then the content byte for byte.

    X-Relay-Record: 3f9c0a1b2c4d
    Return-Path: <contact@example.org>
    X-Original-To: <alice@example.org>      one for each recipient it was suppressed for
    X-Relay-Released: <alice@example.org>   one for each recipient it was released to
    X-Relay-Parameters: BODY=8BITMIME       if the client gave any
    X-Relay-Content: 1234 octets, blake2b 9f86d081884c7d65

`X-Relay-Content` is the last of these fields. What follows is content, even if it begins with the same names.
"""

from __future__ import annotations

import hashlib
import re
from typing import TYPE_CHECKING

from relay.core.content import Content
from relay.core.record import SuppressedCopy

if TYPE_CHECKING:
    from collections.abc import Collection

_FIELD = re.compile(rb"([A-Za-z-]{1,40}): ([^\r\n]{0,10000})\r\n")
_CONTENT = re.compile(rb"([0-9]{1,18}) octets, blake2b ([0-9a-f]{16})")
_MOST_FIELDS = 100_000


class DamagedError(Exception):
    """The file is not a kept copy, or was changed. `str()` says what is wrong."""


def encode(record: str, copy: SuppressedCopy, released: Collection[bytes] = ()) -> bytes:
    """Returns the file's content. `released` holds the paths that the copy was released to.

    Raises `ValueError` if an address contains a line end.
    """
    plain = copy.content.plain
    fields = [
        (b"X-Relay-Record", record.encode("ascii")),
        (b"Return-Path", b"<%b>" % copy.reverse_path),
        *((b"X-Original-To", b"<%b>" % path) for path in copy.paths),
        *((b"X-Relay-Released", b"<%b>" % path) for path in copy.paths if path in released),
        *((b"X-Relay-Parameters", parameter) for parameter in copy.parameters),
        (b"X-Relay-Content", b"%d octets, blake2b %b" % (len(plain), _digest(plain))),
    ]
    head = b"".join(b"%b: %b\r\n" % field for field in fields)
    if head.count(b"\n") != len(fields) or head.count(b"\r") != len(fields):
        raise ValueError("a line end in an address")
    return head + plain


def decode(octets: bytes, record: str) -> SuppressedCopy:
    """Returns the copy of this record. Raises `DamagedError`."""
    fields, content_start = _fields(octets)
    records, reverse_paths, contents = (
        fields.get(name, []) for name in (b"X-Relay-Record", b"Return-Path", b"X-Relay-Content")
    )
    paths = fields.get(b"X-Original-To", [])
    if not (records == [record.encode("ascii")] and len(reverse_paths) == len(contents) == 1 and paths):
        raise DamagedError("its first fields were changed")
    plain = octets[content_start:]
    expected = _CONTENT.fullmatch(contents[0])
    if not expected or (int(expected[1]), expected[2]) != (len(plain), _digest(plain)):
        raise DamagedError("its content was changed or truncated")
    return SuppressedCopy(
        reverse_path=_path(reverse_paths[0]),
        paths=tuple(map(_path, paths)),
        content=Content.from_plain(plain),
        parameters=tuple(fields.get(b"X-Relay-Parameters", ())),
    )


def released(octets: bytes) -> frozenset[bytes]:
    """Returns the paths that a copy was released to. Raises `DamagedError`."""
    fields, _ = _fields(octets)
    return frozenset(map(_path, fields.get(b"X-Relay-Released", ())))


def _fields(octets: bytes) -> tuple[dict[bytes, list[bytes]], int]:
    """Returns the fields by name, and the offset at which the content begins."""
    found: dict[bytes, list[bytes]] = {}
    at = 0
    for _ in range(_MOST_FIELDS):
        line = _FIELD.match(octets, at)
        if not line:
            break
        found.setdefault(line[1], []).append(line[2])
        at = line.end()
        if line[1] == b"X-Relay-Content":
            break
    return found, at


def _path(value: bytes) -> bytes:
    if not (value.startswith(b"<") and value.endswith(b">")):
        raise DamagedError("an address in its first fields was changed")
    return value[1:-1]


def _digest(plain: bytes) -> bytes:
    return hashlib.blake2b(plain, digest_size=8).hexdigest().encode()
