"""A kept copy as a file: header fields of ours that carry the envelope, and below them the content, byte for byte.

    X-Relay-Record: 3f9c0a1b2c4d
    Return-Path: <contact@example.org>
    X-Original-To: <alice@example.org>      one for each recipient that it was suppressed for
    X-Relay-Released: <alice@example.org>   one for each of these that it was released to
    X-Relay-Parameters: BODY=8BITMIME       where the client gave any
    X-Relay-Content: 1234 octets, blake2b 9f86d081884c7d65

The last one ends ours: whatever follows is content, also where it begins with the same names.
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
    """The file is no kept copy, or not any more as it was written. `str()` says what is wrong."""


def encode(record: str, copy: SuppressedCopy, released: Collection[bytes] = ()) -> bytes:
    """Write a copy, and whom it was released to. Raises `ValueError` where a path holds a line end, which none can."""
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
    """Read the copy of this record. Raises `DamagedError`."""
    found, at = _fields(octets)
    records, reverse_paths, contents = (
        found.get(name, []) for name in (b"X-Relay-Record", b"Return-Path", b"X-Relay-Content")
    )
    paths = found.get(b"X-Original-To", [])
    if not (records == [record.encode("ascii")] and len(reverse_paths) == len(contents) == 1 and paths):
        raise DamagedError("the fields on its top are not as they were written")
    plain = octets[at:]
    expected = _CONTENT.fullmatch(contents[0])
    if not expected or (int(expected[1]), expected[2]) != (len(plain), _digest(plain)):
        raise DamagedError("its content was changed, or cut short")
    return SuppressedCopy(
        reverse_path=_path(reverse_paths[0]),
        paths=tuple(map(_path, paths)),
        content=Content.from_plain(plain),
        parameters=tuple(found.get(b"X-Relay-Parameters", ())),
    )


def released(octets: bytes) -> frozenset[bytes]:
    """Give the paths that a copy was released to. Raises `DamagedError`."""
    found, _ = _fields(octets)
    return frozenset(map(_path, found.get(b"X-Relay-Released", ())))


def _fields(octets: bytes) -> tuple[dict[bytes, list[bytes]], int]:
    """Give our fields by name, and where the content begins."""
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
        raise DamagedError("an address on its top is not as it was written")
    return value[1:-1]


def _digest(plain: bytes) -> bytes:
    return hashlib.blake2b(plain, digest_size=8).hexdigest().encode()
