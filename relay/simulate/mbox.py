"""Messages in an mbox file (RFC 4155), whatever program wrote it: mboxo, mboxrd, mboxcl, mboxcl2; LF or CRLF.

A message begins at a line "From " with a time, which follows a blank line and is followed by a header field. Where
Content-Length leads to such a line, or to the end of the file, it is believed.
"""

from __future__ import annotations

import os
import re
from typing import TYPE_CHECKING, NamedTuple

from relay.judge.mime.message import Multipart
from relay.judge.mime.parser import HEADER_LIMIT, parse

if TYPE_CHECKING:
    from collections.abc import Iterator

_BLOCK = 1 << 20
_FROM = rb"From [^\r\n]{0,200}[0-9]:[0-9]{2}[^\r\n]{0,200}\r?\n"
_NEXT = re.compile(rb"%b(?:[!-9;-~]{1,100}[ \t]*:|>From )" % _FROM)
_OVERLAP = 1024
"""Bytes; more than `_NEXT` looks at."""
_AT_NEXT = re.compile(rb"(?:\r?\n){0,2}(?=%b|\Z)" % _FROM)
_CONTENT_LENGTH = re.compile(rb"(?im)^content-length:[ \t]*([0-9]{1,12})[ \t]*\r?$")
_BLANK_LINE = re.compile(rb"\n\r?\n")
_QUOTED_FROM = re.compile(rb"(?m)^>(>*From )")


class Span(NamedTuple):
    """Where a message stands with its From_ line, and its beginning."""

    start: int
    size: int
    head: bytes


class Unpacked(NamedTuple):
    """A message as it was before it was put into the mbox."""

    from_line: bytes
    content: bytes


def spans(descriptor: int, size: int) -> Iterator[Span]:
    """Give each message of an open mbox file of this size. Raises `OSError`."""
    at = 0
    while at < size:
        head = os.pread(descriptor, HEADER_LIMIT, at)
        if not head:
            return
        end = _end(descriptor, head, at, size)
        yield Span(at, end - at, head[: end - at])
        at = end


def unpack(raw: bytes) -> Unpacked:
    """Take off what the mbox added: the From_ line, one `>` before quoted ones, the blank line at the end."""
    line, newline, content = raw.partition(b"\n")
    if content.endswith((b"\n\n", b"\n\r\n")):
        content = content[:-1].removesuffix(b"\r")
    if b">From " in content:
        content = _QUOTED_FROM.sub(rb"\1", content)
    return Unpacked(line + newline, content)


def is_cut(raw: bytes) -> bool:
    """Say whether the last message of an mbox lacks its end."""
    message = parse(unpack(raw).content)
    if isinstance(message.root, Multipart):
        return False
    return not raw.endswith(b"\n") or message.broken in {
        "a multipart without its closing boundary",
        "no blank line after the header section",
    }


def _end(descriptor: int, head: bytes, at: int, size: int) -> int:
    """Give where the next message begins."""
    blank = _BLANK_LINE.search(head)
    length = _CONTENT_LENGTH.search(head, 0, blank.end()) if blank else None
    if blank and length:
        told = at + blank.end() + int(length[1])
        found = _AT_NEXT.match(os.pread(descriptor, _OVERLAP, told)) if told <= size else None
        if found:
            return told + found.end()
    block, base = head, at
    while True:
        if following := _next(block):
            return base + following
        if base + len(block) >= size or len(block) <= _OVERLAP:
            return size
        base += len(block) - _OVERLAP
        block = os.pread(descriptor, _BLOCK, base)


def _next(block: bytes) -> int:
    """Give where in a block a message begins, or 0."""
    at = block.find(b"\nFrom ")
    while at >= 0:
        if block.endswith((b"\n", b"\n\r"), max(0, at - 2), at) and _NEXT.match(block, at + 1):
            return at + 1
        at = block.find(b"\nFrom ", at + 1)
    return 0
