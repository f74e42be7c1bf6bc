"""Content taken apart: header section and MIME tree (RFC 5322, RFC 2045, RFC 2046).

Strict and small. A structure that two readers could see differently is not guessed at: the message is `broken`, says
why, and its raw bytes count. Everything is an offset into the one content, found with `bytes.find`; nesting and number
of parts are bounded, so the time is linear in the size.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from functools import lru_cache
from typing import NamedTuple, TypeAlias

from relay.judge.mime.headers import Fields, Parametric, parse_parametric
from relay.judge.mime.transfer import IDENTITY

HEADER_LIMIT = 64 * 1024
"""Bytes of one header section."""
DEPTH_LIMIT = 15
"""Each level reads all that is below it once more."""
PART_LIMIT = 10_000
FIELD_LIMIT = 1_000
"""Fields of one header section."""
ITEM_LIMIT = 50_000
"""Fields and parameters of all parts."""
_BOUNDARY_LIMIT = 70  # RFC 2046 section 5.1.1
_NOT_IN_BOUNDARY = re.compile(rb"[\\\"]")
_COMMON_LENGTH = 120

# RFC 5322 section 2.2. A folded line of white space alone ends the header section for some readers: it does not match.
# The group has no `*+`, which is wrong before Python 3.11.5 (gh-106052): what it gives back is no field, and is missed.
_FIELDS = {
    newline: re.compile(
        rb"^([!-9;-~]++):([^\r\n]*+(?:%b[ \t]++[^ \t\r\n][^\r\n]*+)*)%b" % (newline, newline), re.MULTILINE
    )
    for newline in (b"\r\n", b"\n")
}
_DELIMITER_END = re.compile(rb"(--)?[ \t]*(?:\r?\n|\Z)")
_SINGLE = frozenset(("content-type", "content-transfer-encoding", "content-disposition"))
_TEXT = Parametric("text/plain")
_MESSAGE = Parametric("message/rfc822")  # The default inside a digest: RFC 2046 section 5.1.5
_RECEIVED = re.compile(rb"(?im)^received:(.*(?:\n[ \t].*)*)")


class Leaf(NamedTuple):
    """A part that holds no parts of ours; `message/*` is one. The body is still encoded."""

    fields: Fields
    media: Parametric
    disposition: Parametric | None
    encoding: str
    body: bytes


class Multipart(NamedTuple):
    """A container. What stands before the first and after the last delimiter is kept: it counts."""

    fields: Fields
    media: Parametric
    disposition: Parametric | None
    preamble: bytes
    children: tuple[Part, ...]
    epilogue: bytes


Part: TypeAlias = Leaf | Multipart


@dataclass(frozen=True, slots=True)
class Message:
    """A header section and what is below it. Without a `root` it is broken, and `raw` is what counts.

    Without trusted fields either, `raw` is the whole content.
    """

    fields: Fields
    root: Part | None
    raw: bytes = b""
    broken: str = ""
    received: tuple[bytes, ...] = ()
    """Raw values of the Received fields, top first; found as well as can be where the header section is broken."""
    size: int = 0
    """Bytes of the whole content."""


def has_attachment(part: Part) -> bool:
    """Say whether a part is meant to be saved: it is an attachment, or has a file name."""
    if isinstance(part, Multipart):
        return any(map(has_attachment, part.children))
    disposition = part.disposition
    named = disposition and (disposition.get("filename") is not None or disposition.has_extended("filename"))
    return bool((disposition and disposition.kind == "attachment") or named or part.media.get("name") is not None)


class _Head(NamedTuple):
    """A header section, and what it says about how to read the part."""

    fields: Fields
    media: Parametric | None
    disposition: Parametric | None
    encoding: str


class _BrokenError(Exception):
    """The structure cannot be trusted. Never leaves this module."""


def parse(content: bytes) -> Message:
    """Take content apart. Any bytes give a message."""
    scan = _Scan(content)
    try:
        section, start = scan.header_section(0, len(content))
        fields = _split_fields(section, scan.newline)
    except _BrokenError as fault:
        top = content[:HEADER_LIMIT]
        return Message(
            (), None, content, str(fault), tuple(found[1] for found in _RECEIVED.finditer(top)), len(content)
        )
    received = tuple(value for name, value in fields if name == "received")
    # The others describe the message, not its topmost part (RFC 2045 section 3).
    own = tuple([field for field in fields if field[0].startswith("content-")])
    try:
        root = scan.part(_describe(own), start, len(content), _TEXT, 0)
    except _BrokenError as fault:
        return Message(fields, None, content[start:], str(fault), received, len(content))
    return Message(fields, root, received=received, size=len(content))


class _Scan:
    """One walk over one content."""

    def __init__(self, content: bytes) -> None:
        self._content = content
        first = content.find(b"\n")
        # On the wire lines end in CRLF, in a file often in LF; both at once are ambiguous where structure is concerned.
        self.newline = b"\r\n" if first < 0 or content[first - 1 : first] == b"\r" else b"\n"
        self._parts = 0
        self._items = 0

    def header_section(self, start: int, end: int) -> tuple[bytes, int]:
        """Give the lines of the fields, and where the body begins."""
        newline = self.newline
        if self._content.startswith(newline, start, end):
            return b"", start + len(newline)
        blank = self._content.find(newline * 2, start, min(end, start + HEADER_LIMIT))
        if blank < 0:
            raise _BrokenError(
                "header section over 64 KiB" if end - start > HEADER_LIMIT else "no blank line after the header section"
            )
        stop = blank + len(newline)
        return self._content[start:stop], stop + len(newline)

    def part(self, head: _Head, start: int, end: int, default: Parametric, depth: int) -> Part:
        """Take apart the part whose body lies between two offsets."""
        fields, described, disposition, encoding = head
        media = described or default
        self._items += len(fields) + len(media.parameters) + (len(disposition.parameters) if disposition else 0)
        if self._items > ITEM_LIMIT:
            raise _BrokenError(f"more than {ITEM_LIMIT} fields and parameters")
        if "/" not in media.kind:
            raise _BrokenError("content-type without a subtype")
        if not media.kind.startswith("multipart/"):
            return Leaf(fields, media, disposition, encoding, self._content[start:end])
        if encoding not in IDENTITY:
            raise _BrokenError("a multipart with a transfer encoding")  # RFC 2045 section 6.4
        if depth == DEPTH_LIMIT:
            raise _BrokenError(f"nested deeper than {DEPTH_LIMIT}")
        if media.has_extended("boundary"):
            raise _BrokenError("a boundary in the form of RFC 2231")
        inner = _MESSAGE if media.kind == "multipart/digest" else _TEXT
        slices = self._slices(media.get("boundary") or b"", start, end)
        children = []
        for first, last in slices[1:-1]:
            section, body = self.header_section(first, last)
            # Few stand in nearly all parts. Those that name a boundary or a file are never seen again.
            common = len(section) <= _COMMON_LENGTH and b"name" not in section and b"boundary" not in section
            own = (_common_head if common else _head)(section, self.newline)
            children.append(self.part(own, body, last, inner, depth + 1))
        preamble, epilogue = (self._content[first:last] for first, last in (slices[0], slices[-1]))
        return Multipart(fields, media, disposition, preamble, tuple(children), epilogue)

    def _slices(self, boundary: bytes, start: int, end: int) -> list[tuple[int, int]]:
        """Give the offsets of preamble, parts and epilogue: what lies between the delimiter lines.

        The line end before a delimiter belongs to it (RFC 2046 section 5.1.1), also when it is that of the blank line.
        """
        # A backslash or a quote mark is in no boundary: with one readers look for different lines.
        if not 0 < len(boundary) <= _BOUNDARY_LIMIT or boundary.endswith(b" ") or _NOT_IN_BOUNDARY.search(boundary):
            raise _BrokenError("a multipart without a usable boundary")
        marker = b"\n--" + boundary
        if self._content.find(b"\r--" + boundary, start, end) >= 0:
            raise _BrokenError("a bare carriage return before a boundary")
        slices = []
        closed = False
        while not closed:
            at = self._content.find(marker, start - 1, end)
            if at < 0:
                raise _BrokenError("a multipart without its closing boundary")
            following, closed = self._delimiter(at, at + len(marker), end)
            slices.append((start, max(start, at + 1 - len(self.newline))))
            start = following
            self._parts += 1
            if self._parts > PART_LIMIT:
                raise _BrokenError(f"more than {PART_LIMIT} parts")
        if len(slices) == 1:
            raise _BrokenError("a multipart without a part")
        slices.append((start, end))
        return slices

    def _delimiter(self, at: int, tail: int, end: int) -> tuple[int, bool]:
        """Give where the delimiter line ends, and whether it closes. More text on the line makes readers differ."""
        wire = len(self.newline) == len(b"\r\n")
        after = tail + len(b"\r\n")
        if wire and after <= end and self._content[tail:after] == b"\r\n" == self._content[at - 1 : at + 1]:
            return after, False  # As nearly all are.
        found = _DELIMITER_END.match(self._content, tail, end)
        if not found:
            raise _BrokenError("a line that only begins like a boundary")
        line_end = found[0]
        if (self._content[at - 1 : at] == b"\r") != wire or (
            line_end[-1:] == b"\n" and (line_end[-2:-1] == b"\r") != wire
        ):
            raise _BrokenError("mixed line ends around a boundary")
        return found.end(), found[1] is not None


def _head(section: bytes, newline: bytes) -> _Head:
    return _describe(_split_fields(section, newline))


_common_head = lru_cache(maxsize=256)(_head)


def _describe(fields: Fields) -> _Head:
    single = _single_fields(fields)
    encoding = single.get("content-transfer-encoding", b"7bit").strip().lower().decode("latin-1")
    return _Head(fields, _parametric(single, "content-type"), _parametric(single, "content-disposition"), encoding)


def _split_fields(section: bytes, newline: bytes) -> Fields:
    found = _FIELDS[newline].findall(section)
    # A colon and a line end each. What is missing was skipped.
    if sum([len(name) + len(value) for name, value in found]) + len(found) * (1 + len(newline)) != len(section):
        lines = section.count(newline)
        if section.count(b"\n") != lines or section.count(b"\r") != lines * (len(newline) - 1):
            raise _BrokenError("bare or mixed line ends in a header section")
        raise _BrokenError("a header line is not a field")
    if len(found) > FIELD_LIMIT:
        raise _BrokenError(f"more than {FIELD_LIMIT} fields in a header section")
    return tuple([(name.decode("ascii").lower(), value) for name, value in found])


def _single_fields(fields: Fields) -> dict[str, bytes]:
    """Give the fields that say how to read a part. Of two, readers take either."""
    single: dict[str, bytes] = {}
    for name, value in fields:
        if name in _SINGLE:
            if name in single:
                raise _BrokenError(f"two {name} fields")
            single[name] = value
    return single


def _parametric(single: dict[str, bytes], name: str) -> Parametric | None:
    if name not in single:
        return None
    value = parse_parametric(single[name])
    if value is None:
        raise _BrokenError(f"{name} cannot be read")
    return value
